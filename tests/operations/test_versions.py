"""Versions side by side: jobs of an earlier contract are run to their end, those of a newer one are left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from service.settings import Settings
from tests.operations.invariants import check
from tests.operations.versions import EMPTY, LATER, STORED, claimed, deliver, interrupted, record
from tests.plain import plain
from tests.servers import server
from tests.service.api import eventually, serving
from worker import store
from worker.contract.description import fingerprint, hyperparameter_names
from worker.contract.spec import ALGORITHM
from worker.embedded import EmbeddedServer
from worker.queue import reconcile
from worker.report import OTHER_VERSION
from worker.store import CONTRACT, FIRST_ALGORITHM, Status, keys


@pytest.fixture(scope="module")
def staffed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server of its own with a real worker."""
    with server(tmp_path_factory.mktemp("staffed")) as running:
        environment = {**os.environ, "GRADTUNE_REDIS_URL": running.url, "GRADTUNE_LOG_LEVEL": "warning"}
        process = subprocess.Popen([sys.executable, "-m", "worker.main"], env=environment)
        try:
            yield running
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture
def staffed(staffed_server: EmbeddedServer) -> Iterator[redis.Redis]:
    """The empty store with a worker."""
    with store.connect(staffed_server.url) as connected:
        connected.flushall()
        yield connected


def ended(client: redis.Redis, job_id: str) -> dict[str, Any]:
    eventually(lambda: record(client, job_id).done)
    document = store.run(client, store.result(job_id))
    assert document is not None, record(client, job_id).error
    return dict(json.loads(document))


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
@pytest.mark.parametrize("begun", [False, True], ids=["from the start", "from its checkpoint"])
def test_a_job_of_an_earlier_contract_is_run_to_its_end(staffed: redis.Redis, path: Path, begun: bool) -> None:
    job = json.loads(path.read_text())
    deliver(staffed, job, "j", CONTRACT + 1 if begun else job["contract"])  # the worker here leaves the newer alone
    if begun:
        interrupted(staffed, job)
    result = ended(staffed, "j")
    if algorithm_of(job) == ALGORITHM:
        compare(result, job)
    assert record(staffed, "j").attempt == 1 + begun
    assert record(staffed, "j").fingerprint == result["fingerprint"] == fingerprint(job["description"])
    assert (record(staffed, "j").elapsed >= 30.0) == begun
    steps = [json.loads(step) for step in store.run(staffed, store.steps("j"))]
    assert [step["sequence"] for step in steps] == list(range(1, len(steps) + 1))
    if begun and algorithm_of(job) == ALGORITHM:
        told = [step["value"] for step in steps[: len(job["steps"])]]
        assert told == pytest.approx([step["value"] for step in job["steps"]])
    else:  # begun again: not a number of it is of the other version
        deliver(staffed, job, "undisturbed", job["contract"])
        assert numbers(ended(staffed, "undisturbed")) == numbers(result)
        assert store.run(staffed, store.steps("undisturbed")) == store.run(staffed, store.steps("j"))


@pytest.mark.parametrize("path", STORED[:-1], ids=lambda path: path.stem)
def test_plain_tuning_comes_to_the_numbers_of_an_earlier_contract(staffed: redis.Redis, path: Path) -> None:
    """What earlier versions described has no word of hyper-priors, which are the default now."""
    job = json.loads(path.read_text())
    deliver(staffed, {**job, "description": plain(job["description"])}, "j", job["contract"])
    compare(ended(staffed, "j"), job)


def compare(result: dict[str, Any], job: dict[str, Any]) -> None:
    """Another machine's linear algebra may differ in the last digits."""
    assert result["selection"]["value"] == pytest.approx(job["value"], rel=1e-7)
    assert [h["value"] for h in result["hyperparameters"]] == pytest.approx(job["hyperparameters"], rel=1e-3)
    assert [c["value"] for c in result["model"]["coefficients"]] == pytest.approx(job["coefficients"], rel=1e-4)


def algorithm_of(job: dict[str, Any]) -> str:
    return str(job.get("algorithm", FIRST_ALGORITHM))


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in result.items() if name not in {"job_id", "timing"}}


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_cancelled_job_of_an_earlier_algorithm_ends_with_what_that_found(staffed: redis.Redis, path: Path) -> None:
    job = json.loads(path.read_text())
    deliver(staffed, job, "j", CONTRACT + 1)
    interrupted(staffed, job, cancelled=True)
    result = ended(staffed, "j")
    assert record(staffed, "j").status is Status.CANCELLED
    assert result["partial"]
    ended_descent = [step for step in job["steps"] if step["start"] == 0]  # of a path, a later one had just begun
    best = min(ended_descent, key=lambda step: float(step["value"]))
    assert result["selection"]["value"] == best["value"]
    assert [h["value"] for h in result["hyperparameters"]] == best["hyperparameters"]
    older = algorithm_of(job) != ALGORITHM
    assert (result["messages"][:1] == [OTHER_VERSION]) == (result["model"] is None) == older
    assert record(staffed, "j").fingerprint == result["fingerprint"] == job["fingerprint"]
    assert len(store.run(staffed, store.steps("j"))) == len(job["steps"])


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_what_an_earlier_contract_described_is_read(path: Path) -> None:
    job = json.loads(path.read_text())
    description = job["description"]
    assert fingerprint(description, algorithm_of(job)) == job["fingerprint"]
    assert len(hyperparameter_names(json.dumps(description).encode())) == len(job["hyperparameters"])
    for part in (description, description["limits"], description["training"], description["outer"]):
        part["a setting that is gone"] = 1
    for name in ("webhook", "test_fraction", "limits"):
        del description[name]  # as if this version had brought it
    assert len(hyperparameter_names(json.dumps(description).encode())) == len(job["hyperparameters"])


def test_the_current_contract_is_among_the_stored() -> None:
    """If this fails: see `tests/operations/stored`. A new algorithm needs a new contract, too."""
    assert STORED[-1].stem == f"contract_{CONTRACT}"
    assert algorithm_of(json.loads(STORED[-1].read_text())) == ALGORITHM


def test_a_worker_leaves_a_newer_job_to_a_newer_worker(staffed: redis.Redis) -> None:
    job = json.loads(STORED[-1].read_text())
    deliver(staffed, job, "newer", CONTRACT + 1)
    deliver(staffed, job, "neighbour", CONTRACT)
    assert ended(staffed, "neighbour")["stop_reason"]

    def deferred(times: int) -> bool:
        reconcile(staffed, 0.0)
        return int(staffed.hget(f"{keys.JOB}newer", "deferred") or 0) >= times

    eventually(lambda: deferred(3))
    left = record(staffed, "newer")
    assert (left.status, left.attempt, left.error, left.started_at) == (Status.QUEUED, 0, None, None)
    assert staffed.hmget(f"{keys.JOB}newer", "claims", "owner") == [None, None]
    assert int(staffed.hget(f"{keys.JOB}newer", "stranded") or 0) == 0
    staffed.hset(f"{keys.JOB}newer", "contract", CONTRACT)  # now this worker is as new as the job
    staffed.zadd(keys.ACTIVE, {"newer": 0})
    reconcile(staffed, 0.0)
    ended(staffed, "newer")
    assert record(staffed, "newer").attempt == 1


def test_old_workers_look_at_a_newer_job_ever_more_rarely(client: redis.Redis) -> None:
    deliver(client, EMPTY, "j", CONTRACT + 1)
    waits = []
    for _ in range(8):
        assert claimed(client, "j") is None
        waits.append(client.zscore(keys.ACTIVE, "j") - time.time())
        assert reconcile(client, 0.0) == 0  # not before its time
        assert client.llen(keys.QUEUE_LIST) == client.llen(keys.INTERMEDIATE_LIST) == 0
        check(client)
        client.zadd(keys.ACTIVE, {"j": 0})
        assert reconcile(client, 0.0) == 1
    assert waits == pytest.approx([2, 4, 8, 16, 32, 60, 60, 60], abs=1.0)
    claim = claimed(client, "j", CONTRACT + 1)
    assert claim is not None
    assert claim.attempt == 1


def test_thousands_of_newer_jobs_do_not_keep_old_workers_busy(client: redis.Redis) -> None:
    client.zadd(keys.ACTIVE, {f"other {number}": time.time() + LATER for number in range(10_000)})
    deliver(client, EMPTY, "j", CONTRACT + 1)
    assert claimed(client, "j") is None
    assert client.zscore(keys.ACTIVE, "j") - time.time() > 10_000 / 50 - 10  # 50 looks a second at all of them


def test_what_a_newer_worker_has_begun_is_left_for_newer_workers(client: redis.Redis) -> None:
    deliver(client, EMPTY, "j", CONTRACT)
    claim = claimed(client, "j", CONTRACT + 1)
    assert claim is not None
    store.run(client, store.beat("j", 1, progress=b"p", elapsed=1.0, checkpoint=b"in a newer format"))
    client.zadd(keys.ACTIVE, {"j": 0})  # its worker has died
    assert reconcile(client, 0.0) == 1
    assert claimed(client, "j") is None
    store.run(client, store.cancel("j"))
    assert record(client, "j").status is Status.CANCELLING  # to conclude takes a newer worker, too
    client.zadd(keys.ACTIVE, {"j": 0})
    assert reconcile(client, 0.0) == 1
    assert claimed(client, "j") is None
    client.zadd(keys.ACTIVE, {"j": 0})
    assert reconcile(client, 0.0) == 1
    again = claimed(client, "j", CONTRACT + 1)
    assert again is not None
    assert (again.attempt, again.cancelled, again.checkpoint) == (2, True, b"in a newer format")
    check(client)


def test_a_newer_job_that_nobody_has_begun_is_cancelled_at_once(client: redis.Redis) -> None:
    deliver(client, EMPTY, "j", CONTRACT + 1)
    assert claimed(client, "j") is None
    assert store.run(client, store.cancel("j")) is Status.CANCELLED
    check(client)


def test_a_job_that_was_stored_without_a_contract_is_of_the_first(client: redis.Redis) -> None:
    deliver(client, EMPTY, "j", CONTRACT)
    client.hdel(f"{keys.JOB}j", "contract")
    assert claimed(client, "j", 1) is not None


def test_an_old_service_says_that_it_cannot_read_a_newer_job(client: redis.Redis, operated: EmbeddedServer) -> None:
    job_id = f"job_{0:024x}"
    newer = {"description": {"training": {"kind": "of tomorrow"}, "data": {"features": []}}, "fingerprint": "f"}
    deliver(client, {**newer, "data": ""}, job_id, CONTRACT + 1)
    with serving(Settings(redis_url=operated.url)) as api:
        assert api.get(f"/v1/jobs/{job_id}").json()["spec"] == newer["description"]
        reply = api.get(f"/v1/jobs/{job_id}/steps?names=true")
        assert (reply.status_code, reply.json()["detail"]) == (
            503,
            "A newer version of the service has to answer this.",
        )
