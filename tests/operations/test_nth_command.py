"""The n-th exchange with the server fails, for n = 1, 2, ... until one is left alone; then the caller tries again.

The connection breaks for real, before the server sees the request or after it has acted on it. Whoever tries again (the
caller, the client itself, the asynchronous client of the API), the store ends as if nothing had failed, and at no time
does it contradict itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.operations.forwarder import Forwarder
from tests.operations.invariants import check
from worker import store
from worker.embedded import EmbeddedServer
from worker.queue import delivery, reconcile
from worker.store import Algorithm, Status, Submission, keys

Who = Literal["caller", "client", "asynchronous client"]
Step = Callable[[redis.Redis], object]
VOLATILE = {b"nonce", b"version", b"created_at", b"started_at", b"finished_at", b"claimed_at", b"cancelled_at"}


def operation(make: Callable[[], store.Operation[Any]]) -> Step:
    """The step that runs a new operation each time."""

    def step(client: redis.Redis) -> object:
        return store.run(client, make())

    step.make = make  # type: ignore[attr-defined]
    return step


def submit(job_id: str = "j") -> Step:
    return operation(lambda: store.submit(Submission(job_id, b"{}", b"data", "f", 9.0), delivery(job_id)))


def claim(job_id: str = "j", owner: str = "o") -> Step:
    return operation(lambda: store.claim(job_id, owner, lease=1000.0))


def beat(job_id: str = "j", done: int = 1) -> Step:
    steps = [b"step %d" % done]
    return operation(
        lambda: store.beat(
            job_id, 1, progress=b"p", elapsed=1.0, checkpoint=b"%d" % done, steps=steps, steps_before=done - 1
        )
    )


def finish(job_id: str = "j", *, before: int = 1) -> Step:
    return operation(
        lambda: store.finish(job_id, 1, Status.SUCCEEDED, result=b"r", steps=[b"last step"], steps_before=before)
    )


def cancel(job_id: str = "j") -> Step:
    return operation(lambda: store.cancel(job_id))


def release(job_id: str = "j", *, blameless: bool = False) -> Step:
    return operation(lambda: store.release(job_id, "o", delivery(job_id, at_front=True), blameless=blameless))


def popped(client: redis.Redis) -> None:
    """As a worker takes an id out of the queue."""
    assert client.lmove(keys.QUEUE_LIST, keys.INTERMEDIATE_LIST)


def wreckage(client: redis.Redis) -> None:
    """What there is for a reconciler to do: jobs lost in every way, and jobs that are well."""
    for job_id in ("unclaimed", "leased", "lost", "stopping", "over", "gone", "forgotten", "waiting"):
        submit(job_id)(client)
        if job_id == "unclaimed":
            popped(client)
    for job_id in ("leased", "lost", "stopping", "over", "gone"):
        claim(job_id)(client)
        client.lrem(keys.QUEUE_LIST, 0, job_id)
    beat("stopping")(client)
    cancel("stopping")(client)
    for job_id in ("over", "gone"):
        finish(job_id, before=0)(client)
    client.lrem(keys.QUEUE_LIST, 0, "forgotten")
    client.delete(f"{keys.JOB}gone", f"{keys.JOB}gone:steps", f"{keys.JOB}gone:result")  # past its retention
    for place, job_id in enumerate(("unclaimed", "lost", "stopping", "forgotten", "waiting")):
        client.zadd(keys.ACTIVE, {job_id: place})


CASES: dict[str, tuple[list[Step], Step]] = {
    "submit": ([], submit()),
    "submit to a full queue": (
        [submit("other")],
        operation(lambda: store.submit(Submission("j", b"{}", b"d", "f", 9.0), delivery("j"), max_queued=1)),
    ),
    "claim": ([submit(), popped], claim()),
    "claim of a job that kills": (
        [submit(), *(step for n in range(3) for step in (popped, claim(owner="o"), release()))],
        claim(owner="new"),
    ),
    "claim of a job of another version": (
        [submit(), popped, claim(), beat(), release(), popped],
        operation(lambda: store.claim("j", "new", lease=1000.0, algorithm=Algorithm("2", lambda _: "f2"))),
    ),
    "beat": ([submit(), popped, claim(), beat()], beat(done=2)),
    "finish": ([submit(), popped, claim(), beat()], finish()),
    "cancel a queued job": ([submit()], cancel()),
    "cancel a running job": ([submit(), popped, claim(), beat()], cancel()),
    "cancel an interrupted job": ([submit(), popped, claim(), beat(), release()], cancel()),
    "release": ([submit(), popped, claim(), beat()], release()),
    "release without blame": ([submit(), popped, claim()], release(blameless=True)),
    "release what was not claimed": ([submit(), popped], release()),
    "delete": ([submit(), popped, claim(), beat(), finish()], operation(lambda: store.delete("j"))),
    "reconcile": ([wreckage], lambda client: reconcile(client, 0.0)),
}

ANSWER_ONCE = {"delete", "release", "release without blame", "release what was not claimed", "reconcile"}
"""Cases that answer what this one sending has done."""


@pytest.fixture(scope="module")
def forwarder(operated: EmbeddedServer) -> Iterator[Forwarder]:
    with Forwarder(operated.url.removeprefix("unix://")) as running:
        yield running


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("case", "who"),
    [(case, who) for case in CASES for who in get_args(Who) if (case, who) != ("reconcile", "asynchronous client")],
)
def test_trying_again_converges(client: redis.Redis, forwarder: Forwarder, case: str, who: Who, when: str) -> None:
    before, step = CASES[case]

    def prepare() -> None:
        client.flushall()
        for earlier in before:
            earlier(client)
        if case != "reconcile":
            check(client)

    prepare()
    answer, wanted = step(client), snapshot(client)
    failures = 0
    while True:
        prepare()
        again = tried(forwarder, step, failures + 1, client, after=when == "after", who=who)
        check(client)
        assert snapshot(client) == wanted
        if who != "caller" and case not in ANSWER_ONCE:
            assert made(again) == made(answer)
        if not forwarder.failed:
            break
        failures += 1
    assert failures >= (4 if case == "reconcile" else 1)


def tried(forwarder: Forwarder, step: Step, fail_at: int, direct: redis.Redis, *, after: bool, who: Who) -> object:
    """Run a step whose exchange `fail_at` fails, as often as it takes; the answer that its caller ends up with."""
    forwarder.arm(0, after=after)
    if who == "asynchronous client":
        return asyncio.run(_atried(forwarder, step, fail_at, after=after))
    with store.connect(forwarder.url) as through:
        if who == "caller":
            through.set_retry(Retry(NoBackoff(), 0))
        through.ping()
        forwarder.arm(fail_at, after=after)
        try:
            return step(through)
        except redis.ConnectionError:
            assert who == "caller"
            check(direct)
            return step(through)


async def _atried(forwarder: Forwarder, step: Step, fail_at: int, *, after: bool) -> object:
    client = store.aconnect(forwarder.url, patience=30.0)
    try:
        await client.ping()
        forwarder.arm(fail_at, after=after)
        return await store.arun(client, step.make())  # type: ignore[attr-defined]
    finally:
        await client.aclose()


def made(answer: object) -> object:
    """An answer without the time at which it was given."""
    return (answer.id, answer.attempt, answer.checkpoint) if isinstance(answer, store.Claim) else answer


def snapshot(client: redis.Redis) -> dict[str, object]:
    found: dict[str, object] = {"queue": client.lrange(keys.QUEUE_LIST, 0, -1)}
    for key in client.keys("*"):
        kind = client.type(key)
        if kind == b"hash":
            fields = client.hgetall(key)
            job = key.startswith(keys.JOB.encode())
            found[key] = {k: v for k, v in fields.items() if k not in VOLATILE} if job else sorted(fields)
        elif kind == b"list":
            found[key] = client.lrange(key, 0, -1)
        elif kind == b"zset":
            found[key] = client.zrange(key, 0, -1) if key.decode() == keys.JOBS else sorted(client.zrange(key, 0, -1))
        else:
            found[key] = client.get(key) if kind == b"string" else client.smembers(key)
    return found
