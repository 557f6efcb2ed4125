"""The server dies and its replica takes its place behind the same address: what had been replicated goes on.

The forwarder stands for whatever makes the address follow the primary: a name, a proxy, a service's own endpoint.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from tests.operations.deployments import Deployed, deployed, replicated
from tests.operations.forwarder import Forwarder
from tests.operations.invariants import check
from tests.operations.test_rolling_restart import SEARCH, answers, free_port, reference
from tests.service.api import Api, eventually
from tests.system.processes import Running, killed, numbers, running
from worker import store
from worker.store import keys

LONG = {**SEARCH, "outer": {**SEARCH["outer"], "starts": 30}}


@dataclass
class Pair:
    """A primary with a replica, and a service that knows only the address of the forwarder."""

    primary: Deployed
    replica: Deployed
    forwarder: Forwarder
    worker: Running
    api: Api
    port: int

    def fail_over(self) -> None:
        """The primary is gone; somebody promotes the replica and lets the address point to it."""
        self.primary.kill()
        self.replica.client.replicaof("NO", "ONE")
        self.forwarder.target = ("127.0.0.1", self.replica.port)
        self.forwarder.cut()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with ExitStack() as stack:
        keep = ("--appendonly", "yes")
        primary = stack.enter_context(deployed(tmp_path / "primary", *keep))
        follow = ("--replicaof", f"127.0.0.1 {primary.port}")
        replica = stack.enter_context(deployed(tmp_path / "replica", *keep, *follow))
        forwarder = stack.enter_context(Forwarder(("127.0.0.1", primary.port)))
        port, url = free_port(), forwarder.url
        stack.enter_context(running("api", "--port", str(port), log=tmp_path / "api.log", GRADTUNE_REDIS_URL=url))
        worker = stack.enter_context(running("worker", log=tmp_path / "worker.log", GRADTUNE_REDIS_URL=url))
        eventually(lambda: answers(port, workers=1))
        api = stack.enter_context(Api(f"http://127.0.0.1:{port}"))
        yield Pair(primary, replica, forwarder, worker, api, port)


def test_a_failover_loses_nothing_that_was_replicated(pair: Pair) -> None:
    api = pair.api
    ended = api.created(SEARCH)["id"]
    result = api.result(api.ended(ended)["id"])
    running_job = api.created(LONG)["id"]
    waiting = [api.created(LONG)["id"], api.created(SEARCH)["id"]]
    eventually(lambda: len(api.steps(running_job)) > 30)
    replicated(pair.primary.client, pair.replica.client)
    began = time.monotonic()
    pair.fail_over()
    eventually(lambda: known(api, running_job))
    print(f"the API answers {time.monotonic() - began:.2f} s after the primary's death")
    jobs = {job_id: api.ended(job_id) for job_id in (running_job, *waiting)}
    assert {job["status"] for job in jobs.values()} == {"succeeded"}
    print(f"attempts: {[job['attempt'] for job in jobs.values()]}")
    assert api.result(ended) == result
    assert numbers(api.result(running_job)) == numbers(api.result(waiting[0]))
    assert numbers(api.result(waiting[1])) == numbers(result)
    assert api.get("/readyz").json()["warnings"] == []
    check(pair.replica.client)


def known(api: Api, job_id: str) -> bool:
    reply = api.get(f"/v1/jobs/{job_id}")
    assert reply.status_code in {200, 503}
    return reply.status_code == 200


@pytest.mark.slow
def test_a_job_whose_worker_dies_with_the_primary_is_taken_up_again(pair: Pair) -> None:
    api = pair.api
    expected = reference(pair.port, LONG)
    job_id = api.created(LONG)["id"]
    eventually(lambda: len(api.steps(job_id)) > 30)
    replicated(pair.primary.client, pair.replica.client)
    killed(pair.worker.part("worker.main"))
    pair.fail_over()
    eventually(lambda: known(api, job_id))
    before = len(api.steps(job_id))
    assert before > 0
    job = api.ended(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 2)
    assert numbers(api.result(job_id)) == expected
    check(pair.replica.client)


@pytest.mark.slow
def test_what_had_not_been_replicated_is_done_again(pair: Pair) -> None:
    """The primary acknowledges some more steps that the replica never hears of: they are made again, once."""
    api = pair.api
    expected = reference(pair.port, LONG)
    job_id = api.created(LONG)["id"]
    eventually(lambda: len(api.steps(job_id)) > 30)
    replicated(pair.primary.client, pair.replica.client)
    pair.replica.client.replicaof("NO", "ONE")  # it hears no more
    behind = stored(pair.replica.client, job_id)
    eventually(lambda: stored(pair.primary.client, job_id) > behind + 30)
    pair.fail_over()
    job = api.ended(job_id)
    print(f"attempts: {job['attempt']}")
    assert job["status"] == "succeeded"
    assert numbers(api.result(job_id)) == expected
    steps = api.steps(job_id)
    assert [step["sequence"] for step in steps] == list(range(1, len(steps) + 1))
    check(pair.replica.client)


def stored(client: redis.Redis, job_id: str) -> int:
    """Steps that this server has of a job."""
    return int(client.llen(f"{keys.JOB}{job_id}:steps"))


def test_a_primary_without_its_replica_refuses_if_told_so(tmp_path: Path) -> None:
    """`min-replicas-to-write` turns a possible loss into a refusal, which callers and workers survive."""
    with (
        deployed(tmp_path / "primary", "--appendonly", "yes") as primary,
        deployed(tmp_path / "replica", "--replicaof", f"127.0.0.1 {primary.port}") as replica,
        store.connect(primary.url, patience=0.5) as client,
    ):
        replicated(primary.client, replica.client)
        client.config_set("min-replicas-to-write", 1)
        submission = store.Submission("j", b"{}", b"data", "f", 9.0)
        assert store.run(client, store.submit(submission, ()))
        replica.kill()
        eventually(lambda: client.info("replication")["connected_slaves"] == 0)
        for operation in (store.claim("j", "o"), store.cancel("j"), store.submit(submission, ())):
            if operation.__name__ == "submit":
                assert store.run(client, operation) is store.Admission.EXISTS  # nothing to write
                continue
            with pytest.raises(store.RefusedError, match="NOREPLICAS"):
                store.run(client, operation)
        client.config_set("min-replicas-to-write", 0)
        assert store.run(client, store.claim("j", "o")) is not None
        check(client)
