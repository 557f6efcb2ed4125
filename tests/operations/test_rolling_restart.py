"""Every process of a service is replaced while it works: nothing that was acknowledged is lost, no number changes."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.contract.specs import document, table
from tests.operations.callers import Callers
from tests.operations.invariants import check
from tests.service.api import Api, eventually
from tests.system.processes import Running, numbers, running
from worker import store
from worker.embedded import EmbeddedServer
from worker.store import Status, keys

SEARCH = document(
    data=table(60, 20),
    training__penalty={"kind": "per_feature", "spread": None},
    outer={"kind": "lbfgs", "tolerance": 1e-12, "starts": 4, "max_iterations": 60},
)
SPECS: list[dict[str, Any]] = [
    SEARCH,
    document(training__penalty={"kind": "per_feature"}),
    {**SEARCH, "seed": 1, "outer": {**SEARCH["outer"], "kind": "newton"}},
]
ENDLESS = {**SEARCH, "outer": {**SEARCH["outer"], "starts": 1000, "max_iterations": 1000}}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Fleet:
    """Processes of a service on one server, each of which can be replaced."""

    def __init__(self, redis_url: str, logs: Path, ports: list[int], workers: int) -> None:
        self.redis_url = redis_url
        self.logs = logs
        self.arguments = {f"api {port}": ("api", "--port", str(port)) for port in ports}
        self.arguments |= {f"worker {number}": ("worker",) for number in range(workers)}
        self.processes: dict[str, Running] = {}
        self.stack = ExitStack()
        for name in self.arguments:
            self.start(name)

    def start(self, name: str) -> None:
        log = self.logs / f"{name.replace(' ', '-')}.log"
        process = running(*self.arguments[name], log=log, GRADTUNE_REDIS_URL=self.redis_url)
        self.processes[name] = self.stack.enter_context(process)

    def replace(self, name: str) -> float:
        """SIGTERM, and a new process when it has ended; returns the seconds that it took to end."""
        began = time.perf_counter()
        assert self.processes[name].stop() == 0
        took = time.perf_counter() - began
        self.start(name)
        return took


@pytest.fixture(scope="module")
def fleet(operated: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    started = Fleet(operated.url, tmp_path_factory.mktemp("fleet"), [free_port(), free_port()], workers=2)
    with started.stack:
        for port in ports(started):
            eventually(lambda port=port: answers(port))
        yield started


def ports(fleet: Fleet) -> list[int]:
    return [int(name.partition(" ")[2]) for name in fleet.arguments if name.startswith("api")]


def answers(port: int, workers: int = 2) -> bool:
    """Whether an API there takes requests, with all workers alive."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)):
            return False
    with Api(f"http://127.0.0.1:{port}") as api:
        reply = api.get("/readyz")
        return reply.status_code == 200 and reply.json()["workers"] == workers


@pytest.mark.parametrize("rounds", ["one", pytest.param("many", marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_a_rolling_restart_loses_nothing(fleet: Fleet, client: redis.Redis, rounds: str) -> None:
    every = list(fleet.arguments)
    callers = Callers(ports(fleet), SPECS)
    references = [reference(ports(fleet)[0], spec) for spec in SPECS]
    with callers:
        for names in [every[::2]] if rounds == "one" else [every] * 5:
            for name in names:
                known = len(callers.ends)
                took = fleet.replace(name)
                print(f"{name} ended in {took:.2f} s")
                eventually(lambda: answers(ports(fleet)[0]) and answers(ports(fleet)[1]))
                eventually(lambda known=known: len(callers.ends) > known + 3)  # the work goes on
    print(f"{len(callers.ends)} jobs; {callers.without_reply} requests without a reply, {callers.unavailable} refused")
    assert set(callers.ends) == set(callers.acknowledged)
    with Api(f"http://127.0.0.1:{ports(fleet)[0]}") as api:
        for job_id, job in callers.ends.items():
            assert job["status"] == "succeeded", job
            assert numbers(api.result(job_id)) == references[callers.acknowledged[job_id]]
    attempts = [job["attempt"] for job in callers.ends.values()]
    print(f"{sum(attempts) - len(attempts)} attempts were handed over")
    eventually(lambda: client.zcard(keys.ACTIVE) == 0)  # also those whose acknowledgement was lost
    check(client)


def reference(port: int, spec: dict[str, Any]) -> dict[str, Any]:
    """What a spec comes to when nothing happens."""
    with Api(f"http://127.0.0.1:{port}") as api:
        job = api.ended(api.created(spec)["id"])
        assert (job["status"], job["attempt"]) == ("succeeded", 1)
        return numbers(api.result(job["id"]))


def test_a_worker_that_is_told_to_stop_hands_its_job_over(fleet: Fleet, client: redis.Redis) -> None:
    with Api(f"http://127.0.0.1:{ports(fleet)[0]}") as api:
        job_ids = [api.created(ENDLESS)["id"] for _ in range(2)]
        for job_id in job_ids:
            eventually(lambda job_id=job_id: len(api.steps(job_id)) > 50)
        began = time.monotonic()
        for name in ("worker 0", "worker 1"):
            fleet.processes[name].process.terminate()
        eventually(lambda: all(status(client, job_id) is Status.QUEUED for job_id in job_ids))
        took = time.monotonic() - began
        print(f"handed over {took:.2f} s after the signal")
        assert took < 15  # usually below 1 s, far from a lease and a pass of a reconciler
        before = {job_id: len(api.steps(job_id)) for job_id in job_ids}
        for name in ("worker 0", "worker 1"):
            assert fleet.processes[name].process.wait(30) == 0
            fleet.start(name)
        for job_id in job_ids:
            eventually(lambda job_id=job_id: len(api.steps(job_id)) > before[job_id])
            steps = api.steps(job_id)
            assert [step["sequence"] for step in steps] == list(range(1, len(steps) + 1))
            job = api.get(f"/v1/jobs/{job_id}").json()
            assert (job["attempt"], job["error"]) == (2, None)
            assert api.post(f"/v1/jobs/{job_id}/cancel").status_code == 202
            assert api.ended(job_id)["status"] == "cancelled"
    check(client)


def status(client: redis.Redis, job_id: str) -> Status:
    record = store.run(client, store.job(job_id))
    assert record is not None
    return record.status
