"""The index of datasets: what it counts, what it removes, and that it never removes what a live job needs."""

from __future__ import annotations

import pytest
import redis

from worker import store
from worker.queue import delivery
from worker.store import Admission, Removal, Shelving, Status, keys


def add(client: redis.Redis, name: str, size: int = 10, **options: object) -> Shelving:
    return store.run(client, store.add_dataset(name, size, name.encode(), **options))  # type: ignore[arg-type]


def submit(client: redis.Redis, job_id: str, dataset: str) -> Admission:
    job = store.Submission(job_id, b"{}", b"", "f", 9.0, dataset=dataset)
    return store.run(client, store.submit(job, delivery(job_id)))


def remove(client: redis.Redis, name: str) -> Removal:
    return store.run(client, store.remove_dataset(name))


def total(client: redis.Redis) -> int:
    return store.run(client, store.stored_bytes())


def names(client: redis.Redis) -> set[str]:
    page, _ = store.run(client, store.datasets())
    return {entry.id for entry in page}


def finish(client: redis.Redis, job_id: str) -> None:
    claim = store.run(client, store.claim(job_id, "o", lease=1000.0))
    assert claim is not None
    assert store.run(client, store.finish(job_id, claim.attempt, Status.SUCCEEDED, result=b"{}"))


def age(client: redis.Redis, name: str, seconds: float) -> None:
    client.zincrby(keys.DATASETS_USED, -seconds, name)


def test_added_read_listed_removed(client: redis.Redis):
    assert [add(client, "a"), add(client, "b", 5), add(client, "a")] == ["created", "created", "exists"]
    entry = store.run(client, store.dataset("a"))
    assert entry is not None
    assert (entry.id, entry.summary, entry.jobs, total(client)) == ("a", b"a", 0, 15)
    page, cursor = store.run(client, store.datasets(limit=1))
    assert [entry.id for entry in page] == ["b"]
    page, last = store.run(client, store.datasets(limit=1, cursor=cursor))
    assert ([entry.id for entry in page], last) == (["a"], None)
    assert [remove(client, "a"), remove(client, "a"), remove(client, "c")] == ["removed", "unknown", "unknown"]
    assert (store.run(client, store.dataset("a")), total(client), names(client)) == (None, 5, {"b"})


def test_a_removed_one_is_doomed_until_its_files_are_gone_or_it_is_added_again(client: redis.Redis):
    for name in ("a", "b"):
        add(client, name)
        remove(client, name)
    assert set(store.run(client, store.sweep_datasets())) == {"a", "b"}
    store.run(client, store.forget_doomed("a"))
    assert not store.run(client, store.doomed("a"))
    assert store.run(client, store.doomed("b"))
    add(client, "b")
    assert not store.run(client, store.doomed("b"))
    assert store.run(client, store.sweep_datasets()) == []


def test_a_live_job_keeps_its_dataset(client: redis.Redis):
    add(client, "a")
    assert submit(client, "j", "a")
    assert submit(client, "k", "a")
    assert remove(client, "a") is Removal.USED
    finish(client, "j")
    assert remove(client, "a") is Removal.USED
    store.run(client, store.cancel("k"))
    assert remove(client, "a") is Removal.REMOVED


def test_a_job_without_its_dataset_is_not_accepted(client: redis.Redis):
    assert submit(client, "j", "a") is Admission.UNKNOWN_DATASET
    assert store.run(client, store.job("j")) is None
    add(client, "a")
    assert submit(client, "j", "a") is Admission.CREATED


def test_a_refused_job_holds_nothing(client: redis.Redis):
    add(client, "a")
    job = store.Submission("j", b"{}", b"", "f", 9.0, dataset="a")
    assert store.run(client, store.submit(job, delivery("j"), max_queued=0)) is Admission.FULL
    assert remove(client, "a") is Removal.REMOVED


def test_a_job_that_ended_without_a_word_keeps_nothing(client: redis.Redis):
    add(client, "a")
    submit(client, "j", "a")
    submit(client, "k", "a")
    client.hset(f"{keys.JOB}j", "status", "succeeded")  # as a worker of a version before would
    client.delete(f"{keys.JOB}k")
    assert remove(client, "a") is Removal.REMOVED


def test_the_quota_refuses_what_does_not_fit(client: redis.Redis):
    assert add(client, "a", 60, quota=100) is Shelving.CREATED
    assert add(client, "b", 41, quota=100) is Shelving.FULL
    assert (names(client), total(client)) == ({"a"}, 60)
    assert add(client, "a", 60, quota=10) is Shelving.EXISTS
    assert add(client, "b", 40, quota=100) is Shelving.CREATED


def test_making_room_takes_the_longest_unused_that_no_job_needs(client: redis.Redis):
    for number, name in enumerate("abcd"):
        add(client, name, 25)
        age(client, name, 100.0 - number)
    submit(client, "j", "a")
    age(client, "a", 1000.0)
    assert add(client, "e", 40, quota=100, evict=True) is Shelving.CREATED
    assert (names(client), total(client)) == ({"a", "d", "e"}, 90)
    assert add(client, "f", 90, quota=100, evict=True) is Shelving.FULL
    assert "a" in names(client)
    assert add(client, "g", 101, quota=100, evict=True) is Shelving.FULL


def test_what_was_not_used_for_long_is_swept(client: redis.Redis):
    for name in ("old", "fresh", "needed", "just ended"):
        add(client, name)
    for job, name in (("j", "needed"), ("k", "just ended")):
        submit(client, job, name)
    for name in ("old", "needed", "just ended"):
        age(client, name, 100.0)
    finish(client, "k")
    assert store.run(client, store.sweep_datasets(retention=50.0)) == ["old"]
    assert names(client) == {"fresh", "needed", "just ended"}
    age(client, "fresh", 10.0)
    swept = store.run(client, store.sweep_datasets(quota=20))
    assert set(swept) == {"old", "fresh"}
    assert total(client) == 20


def test_a_broken_cursor(client: redis.Redis):
    with pytest.raises(ValueError, match="cursor"):
        store.run(client, store.datasets(cursor="nonsense"))
