"""Jobs that are taken out of the queue and never claimed: whatever takes them dies first."""

import json
from collections.abc import Callable

import pytest
import redis

from worker import store
from worker.queue import TuneWorker, delivery, reconcile
from worker.store import Admission, Status, keys
from worker.store.operations import MAX_STRANDED

RETENTION = 3600.0
Submit = Callable[..., Admission]


def pop(client: redis.Redis) -> None:
    client.lrem(keys.QUEUE_LIST, 0, "j")
    client.rpush(keys.INTERMEDIATE_LIST, "j")


def record(client: redis.Redis) -> store.JobRecord:
    found = store.run(client, store.job("j"))
    assert found is not None
    return found


@pytest.mark.parametrize("noticed", ["by the worker", "by the reconciler"])
def test_such_a_job_fails_in_the_end(client: redis.Redis, submit: Submit, noticed: str) -> None:
    submit("j")
    worker = TuneWorker(connection=client, retention=RETENTION)
    for n in range(1, MAX_STRANDED + 1):
        pop(client)
        if noticed == "by the worker":
            worker._settle("j", f"o{n}", "gone", 0)
        else:
            client.zadd(keys.ACTIVE, {"j": 0})
            assert reconcile(client, 0.0, retention=RETENTION) == (n < MAX_STRANDED)
        assert record(client).status is (Status.QUEUED if n < MAX_STRANDED else Status.FAILED)
    assert json.loads(record(client).error or b"")["code"] == "worker-lost"
    assert client.exists(keys.QUEUE_LIST, keys.INTERMEDIATE_LIST, keys.ACTIVE, f"{keys.RQ_JOB}j") == 0
    assert RETENTION - 60 < client.ttl(f"{keys.JOB}j") <= RETENTION


def test_a_claim_ends_the_count_and_a_stop_does_not_count(client: redis.Redis, submit: Submit) -> None:
    submit("j")
    for n in range(2 * MAX_STRANDED):
        for blameless in (True, False):
            pop(client)
            assert store.run(client, store.release("j", "o", delivery("j"), blameless=blameless))
        if n % 5 == 0:
            pop(client)
            assert store.run(client, store.claim("j", f"o{n}")) is not None
            assert store.run(client, store.release("j", f"o{n}", delivery("j"), blameless=True))
    assert record(client).status is Status.QUEUED


def test_a_cancelled_job_that_is_never_claimed_is_cancelled(client: redis.Redis, submit: Submit) -> None:
    submit("j")
    assert store.run(client, store.claim("j", "o")) is not None
    store.run(client, store.beat("j", 1, progress=b"p", elapsed=1.0, checkpoint=b"c"))
    assert store.run(client, store.release("j", "o", delivery("j")))
    assert store.run(client, store.cancel("j")) is Status.CANCELLING
    for _ in range(MAX_STRANDED):
        pop(client)
        assert store.run(client, store.release("j", "x", delivery("j")))
    assert record(client).status is Status.CANCELLED
