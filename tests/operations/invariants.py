"""What holds in the store at any time, whatever has failed in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import redis

from worker.store import TERMINAL, Status, keys

PARTS = ("data", "checkpoint", "steps", "result")


def check(client: redis.Redis) -> None:
    """Raise AssertionError unless all that is stored fits together."""
    active = {name.decode() for name in client.zrange(keys.ACTIVE, 0, -1)}
    listed = {name.decode() for name in client.zrange(keys.JOBS, 0, -1)}
    queue = Counter(name.decode() for name in client.lrange(keys.QUEUE_LIST, 0, -1))
    names = {key.decode().removeprefix(keys.JOB) for key in client.scan_iter(f"{keys.JOB}*", count=1000)}
    ids = {name for name in names if ":" not in name}
    assert {name.partition(":")[0] for name in names} == ids, "a part without its job"
    assert ids <= listed, "a job that is in no list"
    for job_id, (fields, ttl, delivery, *found) in _read(client, sorted(ids)):
        job = {name.decode(): value.decode() for name, value in fields.items()}
        status = Status(job["status"])
        parts = {part for part, there in zip(PARTS, found, strict=True) if there}
        assert (job_id in active) == (status not in TERMINAL), "a live job that nobody looks after, or a dead one"
        assert (ttl > 0) == (status in TERMINAL)
        assert queue[job_id] <= 1, "a job twice in the queue"
        if status in TERMINAL:
            assert "owner" not in job
            assert not parts & {"data", "checkpoint"}, "parts of a job that has ended"
            assert not delivery, "RQ's record of a job that has ended"
            continue
        assert "data" in parts
        assert "result" not in parts
        if status is not Status.CANCELLING:
            assert ("owner" in job) == (status is Status.RUNNING)
        if queue[job_id]:
            assert "owner" not in job
            assert delivery, "an id in the queue without RQ's record"


def _read(client: redis.Redis, ids: list[str]) -> Iterator[tuple[str, list[Any]]]:
    """The hash of each job, its time to live, whether RQ has a record, and which parts there are."""
    each = 3 + len(PARTS)
    for batch in (ids[begin : begin + 500] for begin in range(0, len(ids), 500)):
        with client.pipeline(transaction=False) as pipeline:
            for job_id in batch:
                pipeline.hgetall(keys.JOB + job_id)
                pipeline.pttl(keys.JOB + job_id)
                pipeline.exists(f"{keys.RQ_JOB}{job_id}")
                for part in PARTS:
                    pipeline.exists(f"{keys.JOB}{job_id}:{part}")
            replies = pipeline.execute()
        for number, job_id in enumerate(batch):
            yield job_id, replies[number * each : (number + 1) * each]
