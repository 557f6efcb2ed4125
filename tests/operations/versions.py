"""Jobs as other versions of the service leave them in the store, and workers of any version."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import redis

from worker import store
from worker.queue import delivery
from worker.store import CONTRACT, FIRST_ALGORITHM, Algorithm, Submission, keys

STORED = sorted((Path(__file__).parent / "stored").glob("contract_*.json"))
EMPTY: dict[str, Any] = {"description": {}, "data": "", "fingerprint": "f"}
LATER = 1000.0  # seconds of a lease


def deliver(client: redis.Redis, job: dict[str, Any], job_id: str, contract: int) -> None:
    """As a service of that contract stores a job; before there was a version of the algorithm, without one."""
    spec, data = json.dumps(job["description"]).encode(), base64.b64decode(job["data"])
    version = job.get("algorithm", FIRST_ALGORITHM)
    submission = Submission(job_id, spec, data, job["fingerprint"], 600.0, contract=contract, algorithm=version)
    assert store.run(client, store.submit(submission, delivery(job_id)))
    if "algorithm" not in job:
        client.hdel(f"{keys.JOB}{job_id}", "algorithm")


def interrupted(client: redis.Redis, job: dict[str, Any], *, cancelled: bool = False) -> None:
    """As a worker of that version has left it, before any other worker could claim it again."""
    claim = store.run(client, store.claim("j", "earlier", lease=LATER, contract=CONTRACT + 1))
    assert claim is not None
    steps = [json.dumps(step).encode() for step in job["steps"]]
    state = base64.b64decode(job["checkpoint"])
    store.run(client, store.beat("j", 1, progress=b"{}", elapsed=30.0, checkpoint=state, steps=steps))
    client.hset(f"{keys.JOB}j", "contract", job["contract"])
    if cancelled:
        store.run(client, store.cancel("j"))
    assert store.run(client, store.release("j", "earlier", delivery("j", at_front=True), blameless=True))


def record(client: redis.Redis, job_id: str) -> store.JobRecord:
    found = store.run(client, store.job(job_id))
    assert found is not None
    return found


def claimed(
    client: redis.Redis, job_id: str, contract: int = CONTRACT, algorithm: Algorithm | None = None
) -> store.Claim | None:
    """A worker of this contract takes the next id; those before there was a version of the algorithm have none."""
    assert client.lmove(keys.QUEUE_LIST, keys.INTERMEDIATE_LIST) == job_id.encode()
    owner = f"{contract} {time.monotonic()}"
    return store.run(client, store.claim(job_id, owner, lease=LATER, contract=contract, algorithm=algorithm))
