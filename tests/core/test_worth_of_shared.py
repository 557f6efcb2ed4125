"""Where one shared value was chosen, it is judged as one hyperparameter, and not as many that are free to differ."""

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


def test_the_result_says_what_its_point_on_the_path_says(searched: tuple[Prepared, Step]) -> None:
    prepared, last = searched
    assert last.choice is not None
    optimism = {}
    for point in last.choice.path:
        chosen = worth(prepared, replace(last, choice=replace(last.choice, spread=point.spread)))
        assert chosen.corrected == point.corrected
        optimism[point.spread] = chosen.optimism
    shared, *several = optimism.values()
    assert shared is not None
    assert all(one is not None and one > shared for one in several)
