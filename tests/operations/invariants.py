"""What holds in the store at any time, whatever has failed in between."""

from __future__ import annotations

from collections import Counter

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
    for job_id in ids:
        job = {name.decode(): value.decode() for name, value in client.hgetall(keys.JOB + job_id).items()}
        status = Status(job["status"])
        parts = {part for part in PARTS if client.exists(f"{keys.JOB}{job_id}:{part}")}
        assert (job_id in active) == (status not in TERMINAL), "a live job that nobody looks after, or a dead one"
        assert (client.pttl(keys.JOB + job_id) > 0) == (status in TERMINAL)
        assert queue[job_id] <= 1, "a job twice in the queue"
        if status in TERMINAL:
            assert "owner" not in job
            assert not parts & {"data", "checkpoint"}, "parts of a job that has ended"
            assert not client.exists(f"{keys.RQ_JOB}{job_id}"), "RQ's record of a job that has ended"
            continue
        assert "data" in parts
        assert "result" not in parts
        if status is not Status.CANCELLING:
            assert ("owner" in job) == (status is Status.RUNNING)
        if queue[job_id]:
            assert "owner" not in job
            assert client.exists(f"{keys.RQ_JOB}{job_id}"), "a delivery without a record"
