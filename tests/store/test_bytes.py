"""What live and ended jobs may take of the server's memory, and what goes on when that is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from tests.store.crew import Workers, attempts_of_steps
from tests.store.crew import ended as reached
from tests.store.toy import FUNCTION
from worker import store
from worker.queue import delivery, reconcile
from worker.store import Admission, RefusedError, Status, Submission, keys

SIZE = 100  # bytes of the data and the description of each job here
ROOM = 3 * SIZE


def submit(client: redis.Redis, job_id: str, size: int = SIZE) -> Admission:
    job = Submission(job_id, b"{}", bytes(size - 2), "f", 60.0)
    return store.run(client, store.submit(job, delivery(job_id), max_bytes=ROOM))


def run(client: redis.Redis, job_id: str, result: bytes = b"r") -> None:
    """From the queue to its end."""
    client.lrem(keys.QUEUE_LIST, 0, job_id)
    claim = store.run(client, store.claim(job_id, f"owner of {job_id}"))
    assert claim is not None
    assert store.run(client, store.finish(job_id, claim.attempt, Status.SUCCEEDED, result=result))


def live_bytes(client: redis.Redis) -> int:
    return int(client.get(keys.LIVE_BYTES) or 0)


def kept_bytes(client: redis.Redis) -> int:
    """The sum, which is that of its parts."""
    parts = sum(int(member.split()[1]) for member in client.zrange(keys.ENDED, 0, -1))
    assert int(client.get(keys.ENDED_BYTES) or 0) == parts
    return parts


def test_live_jobs_take_no_more_than_they_may(client: redis.Redis) -> None:
    for job_id in "abc":
        assert submit(client, job_id)
    assert submit(client, "d") is Admission.CROWDED
    assert not client.exists(keys.JOB + "d")
    assert live_bytes(client) == ROOM
    run(client, "a")
    assert submit(client, "d")
    assert submit(client, "e", 2) is Admission.CROWDED
    # Running ones count, too; whatever ends a job makes room.
    client.lrem(keys.QUEUE_LIST, 0, "b")
    assert store.run(client, store.claim("b", "owner")) is not None
    assert submit(client, "e", 2) is Admission.CROWDED
    assert store.run(client, store.cancel("c")) is Status.CANCELLED
    assert submit(client, "e")
    for job_id in "de":
        store.run(client, store.cancel(job_id))
    assert live_bytes(client) == SIZE
    assert store.run(client, store.finish("b", 1, Status.FAILED, error=b"{}"))
    assert not client.exists(keys.LIVE_BYTES)


def test_what_older_versions_leave_in_the_sum_refuses_nobody_for_long(client: redis.Redis) -> None:
    """They know no sum: their jobs are not in it, and those that they end stay in it."""
    for job_id in "abc":
        assert submit(client, job_id)
    run(client, "a")
    client.incrby(keys.LIVE_BYTES, SIZE)  # as if an older worker had ended it
    client.hdel(keys.JOB + "b", "bytes")  # as if an older API had made it
    assert submit(client, "d")
    assert live_bytes(client) == ROOM
    assert client.hget(keys.JOB + "b", "bytes") == b"%d" % SIZE
    assert submit(client, "e", 2) is Admission.CROWDED


def test_a_refusal_counts_again_once_a_second(client: redis.Redis) -> None:
    for job_id in "abc":
        assert submit(client, job_id)
    assert submit(client, "d") is Admission.CROWDED
    before = client.info("commandstats")["cmdstat_hget"]["calls"]
    for _ in range(20):
        assert submit(client, "d") is Admission.CROWDED
    assert client.info("commandstats")["cmdstat_hget"]["calls"] - before <= 20 + 3


def ended(client: redis.Redis, *names: str, size: int = 10_000) -> None:
    for job_id in names:
        assert submit(client, job_id)
        run(client, job_id, bytes(size))


def test_the_oldest_ended_jobs_make_room(client: redis.Redis) -> None:
    ended(client, "a", "b", "c", "d")
    assert submit(client, "live")
    each = kept_bytes(client) // 4
    assert 10_000 < each < 12_000
    assert store.run(client, store.trim(2 * each)) == 0  # their callers are about to read them
    assert store.run(client, store.trim(2 * each, grace=0.0, limit=1)) == 1
    assert store.run(client, store.trim(2 * each, grace=0.0)) == 1
    records, _ = store.run(client, store.jobs())
    assert {record.id for record in records} == {"c", "d", "live"}
    assert client.keys(f"{keys.JOB}a*") == []
    assert kept_bytes(client) == 2 * each
    assert store.run(client, store.trim(0, grace=0.0)) == 2
    assert store.run(client, store.job("live")) is not None
    assert not client.exists(keys.ENDED, keys.ENDED_BYTES)


def test_names_count(client: redis.Redis) -> None:
    job = Submission("a", b"{}", b"", "f", 60.0, names=bytes(1000))
    assert store.run(client, store.submit(job, delivery("a"), max_bytes=1001)) is Admission.CROWDED
    assert store.run(client, store.submit(job, delivery("a"), max_bytes=1002))
    assert live_bytes(client) == 1002
    run(client, "a")
    assert 2000 < kept_bytes(client) < 3000


def test_steps_count(client: redis.Redis) -> None:
    assert submit(client, "a")
    client.lrem(keys.QUEUE_LIST, 0, "a")
    store.run(client, store.claim("a", "owner"))
    store.run(client, store.beat("a", 1, elapsed=1.0, checkpoint=b"c", steps=[bytes(1000)] * 50))
    store.run(client, store.cancel("a"))
    store.run(client, store.finish("a", 1, Status.CANCELLED, result=b"r"))
    assert 50_000 < kept_bytes(client) < 53_000


def test_jobs_that_are_gone_count_no_more(client: redis.Redis) -> None:
    ended(client, "deleted", "expired", "removed", "kept")
    each = kept_bytes(client) // 4
    assert store.run(client, store.delete("deleted")) is store.Deletion.DELETED
    assert kept_bytes(client) == pytest.approx(3 * each, rel=0.01)
    for name in ("expired", "removed"):  # past its retention; by an older version, which knows no sum
        client.delete(f"{keys.JOB}{name}", f"{keys.JOB}{name}:result")
    reconcile(client)
    assert kept_bytes(client) == pytest.approx(each, rel=0.01)
    assert [member.split()[0] for member in client.zrange(keys.ENDED, 0, -1)] == [b"kept"]


def test_ended_jobs_take_half_of_a_limited_server_at_most(client: redis.Redis) -> None:
    ended(client, *(f"j{number}" for number in range(40)), size=100_000)
    client.config_set("maxmemory", 6_000_000)
    try:
        removed = store.run(client, store.trim(grace=0.0))
    finally:
        client.config_set("maxmemory", 0)
    assert 5 <= removed <= 20
    assert kept_bytes(client) <= 3_000_000


@contextmanager
def full(client: redis.Redis) -> Iterator[None]:
    client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        client.config_set("maxmemory", 0)


def test_a_full_memory_refuses_new_jobs_and_lets_the_others_end(client: redis.Redis) -> None:
    ended(client, "ended", "old")
    for job_id in ("running", "cancelled", "waiting"):
        assert submit(client, job_id)
    with full(client), store.connect(f"unix://{client.connection_pool.connection_kwargs['path']}", patience=0.2) as c:
        with pytest.raises(RefusedError) as refused:
            submit(c, "new")
        assert store.explain(refused.value).sentence == store.FULL
        with pytest.raises(redis.ResponseError):
            c.lmove(keys.QUEUE_LIST, keys.INTERMEDIATE_LIST)  # RQ's own
        assert store.run(c, store.take()) == "running"
        assert store.run(c, store.claim("running", "owner", lease=1.0)) is not None
        assert store.run(c, store.watch("running", "owner", attempt_before=0)).hold is store.Hold.HELD
        beat = store.beat("running", 1, progress=b"{}", elapsed=1.0, checkpoint=b"c" * 100, steps=[b"step"])
        assert store.run(c, beat) is store.Verdict.OK
        assert store.run(c, store.release("running", "owner", delivery("running", at_front=True)))
        reconcile(c, 0.0)
        assert store.run(c, store.take()) == "running"
        assert store.run(c, store.claim("running", "other")) is not None
        assert store.run(c, store.finish("running", 2, Status.SUCCEEDED, result=b"r" * 1000, steps=[]))
        assert store.run(c, store.cancel("cancelled")) is Status.CANCELLED
        assert store.run(c, store.delete("ended")) is store.Deletion.DELETED
        assert store.run(c, store.trim(0, grace=0.0)) == 3
        assert not client.exists(keys.JOB + "new")
    assert store.run(client, store.result("running")) is None  # it has made room
    record = store.run(client, store.job("waiting"))
    assert record is not None
    assert record.status is Status.QUEUED


def test_a_worker_empties_the_queue_of_a_full_server(client: redis.Redis, workers: Workers) -> None:
    """What waits may be what fills it."""
    for number in range(3):
        job = Submission(f"j{number}", b'{"steps": 3, "pause": 0.01}', b"data", "f", 60.0)
        assert store.run(client, store.submit(job, delivery(job.id, function=FUNCTION)))
    with full(client):
        workers.start()
        for number in range(3):
            reached(client, f"j{number}")
            assert attempts_of_steps(client, f"j{number}") == [1] * 3
