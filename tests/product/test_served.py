"""Requests of the product through a real server and a real worker."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.product.choices import drawn
from tests.product.factors import FACTORS, plain, request, shelve
from tests.product.served import Served, serving_jobs

pytestmark = pytest.mark.unchecked


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("served")
    shelve(directory)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GRADTUNE_DATA_DIR", str(directory))
        with serving_jobs(directory) as running:
            yield running


@pytest.fixture(autouse=True)
def _same_environment(served: Served) -> None:
    """The server is there before the environment is looked at."""


@pytest.mark.parametrize("training", FACTORS["training"].levels)
def test_requests_through_a_server(served: Served, training: str) -> None:
    rng = np.random.default_rng(len(training))
    for _ in range(3):
        choice = drawn({"training": training}, rng)
        assert choice is not None
        served.check(request(choice))
    refused = plain({"training": training, "selection": "quadratic" if training != "quadratic" else "reml"})
    assert refused is not None
    served.check(request(refused))
