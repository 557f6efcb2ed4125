"""The judge of the soak finds what it looks for, and a short soak passes."""

import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests.operations.soak import orphans
from worker import store
from worker.queue import delivery
from worker.store import Status, Submission, keys


def test_keys_without_an_owner_are_found(client: redis.Redis) -> None:
    for job_id in ("live", "waiting", "ended", "immortal"):
        assert store.run(client, store.submit(Submission(job_id, b"{}", b"data", "f", 9.0), delivery(job_id)))
    for job_id in ("live", "ended", "immortal"):
        assert store.run(client, store.claim(job_id, "o"))
        store.run(client, store.beat(job_id, 1, elapsed=1.0, progress=b"{}", checkpoint=b"c", steps=[b"{}"]))
    for job_id in ("ended", "immortal"):
        assert store.run(client, store.finish(job_id, 1, Status.SUCCEEDED, result=b"{}"))
    assert orphans(client) == []
    client.persist(f"{keys.JOB}immortal:steps")
    client.set(f"{keys.JOB}gone:data", b"data")
    client.set("gradtune:something", b"else")
    client.hset(f"{keys.RQ_JOB}ended", "status", "queued")
    assert orphans(client) == sorted(
        [f"{keys.JOB}immortal:steps", f"{keys.JOB}gone:data", "gradtune:something", f"{keys.RQ_JOB}ended"]
    )


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_short_soak() -> None:
    command = [sys.executable, "-m", "tests.operations.soak", "--jobs", "1500"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, check=False, cwd=root, capture_output=True, text=True, timeout=380)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert "keys without owner or time to live: 0" in done.stdout
