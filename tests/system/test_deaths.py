"""Whatever process is killed, no acknowledged job is lost, and the numbers are those of a run without any accident."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import psutil
import pytest

from tests.service.api import eventually
from tests.system.conftest import LONG, LONG_OF_CLASSES, SHORT
from tests.system.processes import Service, killed, numbers

pytestmark = pytest.mark.timeout(300)  # of work that is a matter of seconds on an idle machine


def horse(service: Service) -> psutil.Process:
    return service.horse()


def worker(service: Service) -> psutil.Process:
    return service.part("worker.main")


@pytest.mark.parametrize("victim", [horse, worker])
def test_a_killed_attempt_is_resumed_to_the_same_numbers(
    shared: Service,
    undisturbed: tuple[dict[str, Any], list[dict[str, Any]]],
    victim: Callable[[Service], psutil.Process],
) -> None:
    api = shared.api
    job_id = api.created(LONG)["id"]
    eventually(lambda: len(api.steps(job_id)) > 100)
    killed(victim(shared))
    before = api.steps(job_id)
    job = api.ended(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 2)
    result, steps = api.result(job_id), api.steps(job_id)
    assert numbers(result) == numbers(undisturbed[0])
    assert steps == undisturbed[1]
    assert 100 < len(before) < len(steps)
    assert steps[: len(before)] == before
    assert job["progress"]["evaluations"] == result["counts"]["evaluations"]


def test_iterative_training_is_resumed_to_the_same_numbers(shared: Service) -> None:
    api = shared.api
    first = api.ended(api.created(LONG_OF_CLASSES)["id"])
    job_id = api.created(LONG_OF_CLASSES)["id"]
    eventually(lambda: len(api.steps(job_id)) > 20)
    killed(horse(shared))
    job = api.ended(job_id)
    assert (job["status"], job["attempt"], first["attempt"]) == ("succeeded", 2, 1)
    assert numbers(api.result(job_id)) == numbers(api.result(first["id"]))
    assert api.steps(job_id) == api.steps(first["id"])


def test_the_api_comes_back_on_the_same_port(shared: Service) -> None:
    job_id = shared.api.created(SHORT)["id"]
    old = shared.part("api")
    killed(old)

    def answers() -> bool:
        try:
            return shared.api.get(f"/v1/jobs/{job_id}").status_code == 200
        except httpx2.TransportError:
            return False

    eventually(answers)
    assert shared.part("api").pid != old.pid
    assert shared.api.ended(job_id)["status"] == "succeeded"


def test_no_acknowledged_job_is_lost_with_the_embedded_server(
    shared: Service, undisturbed: tuple[dict[str, Any], list[dict[str, Any]]]
) -> None:
    api = shared.api
    long = api.created(LONG)["id"]
    eventually(lambda: len(api.steps(long)) > 100)
    waiting = [api.created(SHORT)["id"] for _ in range(3)]
    old = shared.part("valkey-server")
    killed(old)
    eventually(lambda: api.get("/readyz").status_code == 200)
    assert shared.part("valkey-server").pid != old.pid
    assert [api.ended(job_id)["status"] for job_id in (long, *waiting)] == ["succeeded"] * 4
    assert numbers(api.result(long)) == numbers(undisturbed[0])
    assert api.steps(long) == undisturbed[1]
    assert len({str(numbers(api.result(job_id))) for job_id in waiting}) == 1
