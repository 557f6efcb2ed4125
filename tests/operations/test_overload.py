"""More than the service can take: a full queue refuses, a job that kills its workers is given up, others live on."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from tests.contract.specs import document, table
from tests.operations.invariants import check
from tests.service.api import Api, eventually
from tests.store.crew import Workers, attempts_of_steps, ended, record
from tests.store.toy import FUNCTION
from tests.system.processes import Service, killed, numbers, service
from worker import store
from worker.embedded import EmbeddedServer
from worker.queue import delivery
from worker.store import MAX_CLAIMS, Status, Submission

MAX_QUEUED = 20
CALLERS, EACH = 8, 60
SHORT = document(training__penalty={"kind": "per_feature"})
# Its first iteration takes seconds: hundreds of factorizations, and as many Hessians in hundreds of hyperparameters.
HEAVY = document(
    data=table(310, 310),
    training__penalty={"kind": "per_feature"},
    selection={"kind": "k_fold", "folds": 300},
    outer={"kind": "newton"},
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a short queue."""
    with service(tmp_path_factory.mktemp("small"), "--max-queued", str(MAX_QUEUED)) as started:
        yield started


class Crowd:
    """Callers that submit as fast as they can, and remember every reply."""

    def __init__(self, url: str) -> None:
        self.address = urlsplit(url).netloc
        self.replies: list[tuple[int, str | None, dict[str, object]]] = []
        self.took = 0.0

    def rush(self) -> None:
        threads = [threading.Thread(target=self._call, args=(number,)) for number in range(CALLERS)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.took = time.perf_counter() - began

    def _call(self, caller: int) -> None:
        connection = http.client.HTTPConnection(self.address, timeout=60)
        for number in range(EACH):
            body = json.dumps({**SHORT, "labels": {"number": f"{caller}.{number}"}})
            connection.request("POST", "/v1/jobs", body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            self.replies.append((reply.status, reply.headers["Retry-After"], json.loads(reply.read())))
        connection.close()


def test_a_full_queue_refuses_and_loses_nothing(small: Service) -> None:
    crowd = Crowd(small.url)
    crowd.rush()
    assert {status for status, _, _ in crowd.replies} == {202, 429}
    accepted = {body["id"]: body["labels"] for status, _, body in crowd.replies if status == 202}
    refused = [(retry, body) for status, retry, body in crowd.replies if status == 429]
    print(f"{len(crowd.replies) / crowd.took:.0f} submissions a second: {len(accepted)} taken, {len(refused)} refused")
    assert len(accepted) + len(refused) == CALLERS * EACH
    for retry, body in refused:
        assert int(retry or 0) > 0
        assert (body["code"], "id" in body) == ("queue-full", False)
    for job_id in accepted:
        assert small.api.ended(str(job_id))["status"] == "succeeded"
    assert {job["id"]: job["labels"] for job in listed(small.api) if "number" in job["labels"]} == accepted
    assert small.api.create(SHORT).status_code == 202


def listed(api: Api) -> Iterator[dict[str, Any]]:
    """Every job that the service knows."""
    cursor: dict[str, str] = {}
    while True:
        page = api.get("/v1/jobs", params={"limit": 200, **cursor}).json()
        yield from page["data"]
        if page["next_cursor"] is None:
            return
        cursor = {"cursor": page["next_cursor"]}


def test_a_job_that_kills_its_worker_is_given_up_and_others_are_not(small: Service) -> None:
    api = small.api
    poison = api.created(HEAVY)["id"]
    neighbours = [api.created(SHORT)["id"] for _ in range(5)]
    for attempt in range(1, MAX_CLAIMS + 1):
        eventually(lambda attempt=attempt: at_work(api, poison, attempt))
        killed(small.horse())
    job = api.ended(poison)
    assert (job["status"], job["attempt"]) == ("failed", MAX_CLAIMS)
    assert job["error"]["code"] == "worker-lost"
    assert f"{MAX_CLAIMS} attempts in a row" in job["error"]["detail"]
    ended_jobs = [api.ended(job_id) for job_id in neighbours]
    assert [(job["status"], job["attempt"]) for job in ended_jobs] == [("succeeded", 1)] * len(neighbours)
    results = [numbers(api.result(job_id)) for job_id in neighbours]
    assert all(result == results[0] for result in results)


def at_work(api: Api, job_id: str, attempt: int) -> bool:
    job = api.get(f"/v1/jobs/{job_id}").json()
    return bool(job["status"] == "running" and job["attempt"] == attempt)


def test_many_such_jobs_among_others(client: redis.Redis, operated: EmbeddedServer, tmp_path: Path) -> None:
    crew = Workers(operated.url, tmp_path / "workers.log")
    jobs = {f"job-{number}": number % 3 == 1 for number in range(30)}
    try:
        started = [crew.start() for _ in range(2)]
        for job_id, kills in jobs.items():
            spec = json.dumps({"steps": 2, "die": kills}).encode()
            submission = Submission(job_id, spec, b"data", "f", 60.0)
            store.run(client, store.submit(submission, delivery(job_id, function=FUNCTION)))
        for job_id, kills in jobs.items():
            ended(client, job_id, Status.FAILED if kills else Status.SUCCEEDED, watched=True)
            assert record(client, job_id).attempt == (MAX_CLAIMS if kills else 1)
            assert attempts_of_steps(client, job_id) == ([] if kills else [1, 1])
        assert all(worker.is_running() for worker in started)  # the workers themselves live on
        check(client)
    finally:
        crew.stop()
