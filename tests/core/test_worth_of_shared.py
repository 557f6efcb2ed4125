"""Where one shared value was chosen, nothing is corrected for hyperparameters that were free to differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from worker.core.hypergradient import HypergradientAuto
from worker.core.outer import OuterAuto
from worker.core.penalties import PerFeature
from worker.core.records import Step
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, Prepared, prepare
from worker.core.search.procedure import carry_out
from worker.core.selection import KFold
from worker.core.training import Ridge
from worker.core.verdict.baseline import worth


@pytest.fixture(scope="module")
def searched() -> tuple[Prepared, Step]:
    """A weak signal: the shared optimum is inside the box, and penalties would like to differ."""
    random = np.random.default_rng(0)
    X = random.normal(size=(60, 6))
    y = 0.3 * X.sum(axis=1) + random.normal(size=60)
    problem = Problem(X, y, tuple("abcdef"))
    prepared = prepare(problem, Plan(Ridge(penalty=PerFeature()), KFold(), HypergradientAuto(), OuterAuto()))
    *_, last = carry_out(prepared)
    return prepared, last


@pytest.mark.parametrize("spread", [0.0, 0.25, 0.5, 1.0])
def test_the_result_says_what_its_point_on_the_path_says(searched: tuple[Prepared, Step], spread: float) -> None:
    prepared, last = searched
    assert last.choice is not None
    chosen = worth(prepared, replace(last, choice=replace(last.choice, spread=spread)))
    (on_path,) = [point for point in last.choice.path if point.spread == spread]
    assert chosen.corrected == on_path.corrected
    if spread == 0.0:
        assert chosen.optimism == 0.0
