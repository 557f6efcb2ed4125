"""A hyper-prior so narrow that nothing can differ is judged like one shared value: no optimism hides in the prior."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from worker.core.hypergradient import HypergradientAuto
from worker.core.outer import OuterAuto
from worker.core.penalties import PerFeature
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, prepare
from worker.core.search.procedure import carry_out
from worker.core.selection import KFold, LeaveOneOut
from worker.core.training import LogisticRegression, Ridge

pytestmark = pytest.mark.unchecked

NARROW = 1e-3


@pytest.mark.parametrize("strength", [0.3, 0.6], ids=["weak", "strong"])
@pytest.mark.parametrize("seed", [0, 2])
@pytest.mark.parametrize(
    ("training", "selection"),
    [(Ridge, KFold(folds=3)), (Ridge, LeaveOneOut()), (LogisticRegression, KFold(folds=3))],
    ids=["ridge", "leave one out", "logistic"],
)
def test_the_corrected_value_of_a_narrow_prior_is_that_of_the_shared_value(
    training: Any, selection: Any, seed: int, strength: float
) -> None:
    """Also where the floor of the prior holds its centre, and where J is nearly flat."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(40, 4))
    y = strength * X.sum(axis=1) + random.normal(size=40)
    problem = Problem(X, y, tuple("abcd"))
    if training.classifies:
        problem = Problem(X, (y > 0).astype(float), tuple("abcd"), classes=("no", "yes"))
    penalty = PerFeature(spread=NARROW)
    *_, last = carry_out(prepare(problem, Plan(training(penalty=penalty), selection, HypergradientAuto(), OuterAuto())))
    assert last.choice is not None
    shared, narrow = last.choice.path
    assert shared.corrected is not None
    assert narrow.corrected is not None
    assert shared.corrected > shared.value
    assert narrow.corrected - narrow.value == pytest.approx(shared.corrected - shared.value, rel=1e-3)
