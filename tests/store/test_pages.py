"""Pages of jobs and of steps: bounds of bytes that hold in what the server sends, windows of time, thinning."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from tests.store.conftest import Submit
from worker import store
from worker.queue import delivery

LONG = {f"label{n}": "x" * 200 for n in range(30)}  # 6 kB


@pytest.fixture
def sent(client: redis.Redis) -> Callable[[], int]:
    """Bytes that the server has sent to clients so far."""
    return lambda: int(client.info("stats")["total_net_output_bytes"])


def pages(client: redis.Redis, **query: Any) -> Iterator[list[str]]:
    cursor = None
    while True:
        page, cursor = store.run(client, store.jobs(cursor=cursor, **query))
        yield [job.id for job in page]
        if cursor is None:
            return


def test_a_list_reads_no_spec_unless_it_is_asked_for(
    client: redis.Redis, submit: Submit, sent: Callable[[], int]
) -> None:
    for n in range(5):
        submit(f"j{n}", text="y" * 400_000)
    before = sent()
    listed, _ = store.run(client, store.jobs())
    assert sent() - before < 10_000
    assert [job.spec for job in listed] == [b""] * 5
    assert list(pages(client, specs=True)) == [["j4", "j3"], ["j2", "j1"], ["j0"]]  # of a megabyte each at most
    listed, _ = store.run(client, store.jobs(specs=True))
    assert listed[0].spec == json.dumps({"text": "y" * 400_000}).encode()


def test_a_page_ends_before_it_has_too_many_bytes(client: redis.Redis, submit: Submit, sent: Callable[[], int]) -> None:
    for n in range(20):
        submit(f"j{n:02}", labels=LONG if n % 2 else {})
    before = sent()
    found = list(pages(client, most_bytes=20_000))
    assert sent() - before < len(found) * 25_000
    assert [job for page in found for job in page] == [f"j{n:02}" for n in reversed(range(20))]
    assert 5 <= len(found) < 20
    assert list(pages(client, most_bytes=1)) == [[f"j{n:02}"] for n in reversed(range(20))]  # a single one fits


def test_labels_are_found_as_a_whole(client: redis.Redis, submit: Submit) -> None:
    texts = {"a": "x", "b": 'x", "a": "y', "c": "größe\u2028\\", "d": ""}
    for name, text in texts.items():
        submit(name, labels={"key": text, "a": text})
    for name, text in texts.items():
        assert list(pages(client, labels={"key": text, "a": text})) == [[name]]
    assert list(pages(client, labels={"a": "y"})) == [[]]
    assert list(pages(client, labels={"ey": "x"})) == [[]]


def test_jobs_of_a_time(client: redis.Redis, submit: Submit) -> None:
    for name in "abcd":
        submit(name)
    a, b, c, d = (int(client.zscore("gradtune:jobs", name)) for name in "abcd")  # type: ignore[arg-type]
    assert list(pages(client, created_from=b, created_before=d)) == [["c", "b"]]
    assert list(pages(client, created_from=b + 1)) == [["d", "c"]]
    assert list(pages(client, created_before=a)) == [[]]
    assert list(pages(client, created_from=a, created_before=d + 1, limit=2)) == [["d", "c"], ["b", "a"], []]
    page, cursor = store.run(client, store.jobs(limit=1))
    assert ([job.id for job in page], cursor) == (["d"], store_cursor(d, "d"))
    for before, expected in ((d + 1, "c"), (c, "b")):  # a cursor goes with another window, too
        page, _ = store.run(client, store.jobs(limit=1, cursor=cursor, created_before=before))
        assert [job.id for job in page] == [expected]


def store_cursor(created: int, name: str) -> str:
    """As every version makes them: callers keep them over an upgrade."""
    return base64.urlsafe_b64encode(f"{created}:{name}".encode()).decode().rstrip("=")


def step(n: int, size: int = 3) -> bytes:
    values = ",".join(["0.125"] * size)
    return f'{{"sequence":{n},"value":{n}.5,"hyperparameters":[{values}]}}'.encode()


def stored(client: redis.Redis, submit: Submit, steps: list[bytes]) -> None:
    submit("j")
    assert store.run(client, store.claim("j", "o"))
    for at in range(0, len(steps), 100):
        part = steps[at : at + 100]
        store.run(client, store.beat("j", 1, elapsed=1.0, checkpoint=b"c", steps=part, steps_before=at))


def sequences(found: store.StepsRead) -> list[int]:
    return [json.loads(one)["sequence"] for one in found.steps]


def test_pages_of_steps(client: redis.Redis, submit: Submit, sent: Callable[[], int]) -> None:
    stored(client, submit, [step(n, 1000) for n in range(1, 51)])  # 6 kB each
    before = sent()
    found = store.run(client, store.steps_within("j", 10, 100, most_bytes=40_000))
    assert sent() - before < 45_000
    assert (sequences(found), found.total) == ([11, 12, 13, 14, 15, 16], 50)
    assert sequences(store.run(client, store.steps_within("j", 10, 3))) == [11, 12, 13]
    assert sequences(store.run(client, store.steps_within("j", 48, 3, most_bytes=1))) == [49]
    for after in (50, 2**53):
        assert store.run(client, store.steps_within("j", after, 3)) == store.StepsRead([], 50)
    assert store.run(client, store.steps_within("none", 0, 3)) == store.StepsRead([], 0)


def test_steps_without_hyperparameters_do_not_send_them(
    client: redis.Redis, submit: Submit, sent: Callable[[], int]
) -> None:
    other = b'{"sequence":3,"hyperparameters":[1.0],"value":3.5}'  # another order: nothing is cut off
    stored(client, submit, [step(1, 10_000), step(2, 0), other])
    before = sent()
    found = store.run(client, store.steps_within("j", 0, 10, bare=True))
    assert sent() - before < 6000  # the question how many among them
    assert found.steps == [b'{"sequence":1,"value":1.5}', b'{"sequence":2,"value":2.5}', other]


def test_steps_at_even_distances(client: redis.Redis, submit: Submit, sent: Callable[[], int]) -> None:
    stored(client, submit, [step(n, 100) for n in range(1, 302)])

    def spread(after: int, points: int, **more: Any) -> list[int]:
        return sequences(store.run(client, store.steps_within("j", after, points, spread=True, **more)))

    assert spread(0, 4) == [1, 101, 201, 301]
    assert spread(0, 7) == [1, 51, 101, 151, 201, 251, 301]
    assert spread(299, 7) == [300, 301]
    assert spread(300, 7) == [301]
    assert spread(301, 7) == []
    assert spread(0, 2000) == list(range(1, 302))
    before = sent()
    assert spread(0, 301, most_bytes=2000) == [1, 151, 301]  # fewer, where more would not fit
    assert sent() - before < 6000  # the question how many among them
    assert spread(0, 100, most_bytes=1) == [1, 301]
    assert len(spread(0, 100, most_bytes=6000, bare=True)) == 100


def test_what_is_shown_of_a_spec(client: redis.Redis) -> None:
    job = store.Submission("j", b'{"list": [1, 2]}', b"", "f", 60.0, shown=b'{"list": 2}')
    assert store.run(client, store.submit(job, delivery("j")))
    record = store.run(client, store.job("j"))
    assert record is not None
    assert (record.spec, store.run(client, store.stored_spec("j"))) == (b'{"list": 2}', b'{"list": [1, 2]}')
    claim = store.run(client, store.claim("j", "o"))
    assert claim is not None
    assert claim.spec == b'{"list": [1, 2]}'  # workers of every version read it where it always was
    assert store.run(client, store.stored_spec("none")) is None
