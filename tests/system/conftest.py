from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.specs import document, table
from tests.service.api import Api
from tests.system.processes import Service, service

LONG = document(
    data=table(120, 40),
    training__penalty={"kind": "per_feature", "spread": 0.5},
    outer={"kind": "lbfgs", "tolerance": 1e-14, "starts": 60, "max_iterations": 30},
)  # a few seconds of work, in thousands of evaluations
LONG_OF_CLASSES = document(
    data={**LONG["data"], "y": ["low" if y < 0 else "high" for y in LONG["data"]["y"]]},
    training={"kind": "logistic", "penalty": {"kind": "per_feature", "lower": 1e-3, "spread": 0.5}},
    outer={"kind": "lbfgs", "tolerance": 1e-14, "starts": 8, "max_iterations": 25},
)  # fits that begin where earlier ones ended
ENDLESS = document(
    data=LONG["data"],
    training__penalty={"kind": "per_feature", "spread": None},
    outer={**LONG["outer"], "starts": 1000, "max_iterations": 1000},
)
SHORT = document(training__penalty={"kind": "per_feature"})


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that most tests share; each leaves it running and idle."""
    with service(tmp_path_factory.mktemp("shared")) as started:
        yield started


@pytest.fixture
def api(shared: Service) -> Api:
    return shared.api


@pytest.fixture(scope="session")
def undisturbed(shared: Service) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Result and trajectory of the long job when nothing goes wrong."""
    job = shared.api.ended(shared.api.created(LONG)["id"])
    assert (job["status"], job["attempt"]) == ("succeeded", 1)
    return shared.api.result(job["id"]), shared.api.steps(job["id"])
