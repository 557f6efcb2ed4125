"""A search at whose end every hyperparameter is at a bound: nothing can move, and the choice of a spread holds."""

from __future__ import annotations

import numpy as np
import pytest

from worker.core.hypergradient import HypergradientAuto
from worker.core.outer import OuterAuto
from worker.core.penalties import PerFeature
from worker.core.search.left_out import left_out
from worker.core.search.plan import Plan, prepare
from worker.core.search.tune import tune
from worker.core.selection import KFold
from worker.core.training import (
    GammaRegression,
    HuberRegression,
    LogisticRegression,
    MultinomialRegression,
    PoissonRegression,
    Ridge,
)

TRAININGS = (Ridge, LogisticRegression, MultinomialRegression, PoissonRegression, GammaRegression, HuberRegression)


@pytest.mark.parametrize("training", [Ridge, LogisticRegression])
def test_search_ends_with_all_at_bounds(training):
    penalty = PerFeature(initial=1e5, lower=9e4, upper=1.1e5)  # J falls or rises in all of the box
    plan = Plan(training(penalty=penalty), KFold(folds=3), HypergradientAuto(), OuterAuto())
    prepared = prepare(training.example(), plan)
    *_, last = tune(prepared)
    assert all(prepared.objective.hyperparameters.at_bound(last.best.best.rho))
    assert last.choice.by == "jackknife"
    assert all(np.isfinite(point.corrected) for point in last.choice.path)


@pytest.mark.parametrize("training", TRAININGS)
def test_no_hyperparameter_that_moves_leaves_the_losses_as_they_are(training):
    prepared = prepare(
        training.example(), Plan(training(penalty=PerFeature()), KFold(folds=3), HypergradientAuto(), OuterAuto())
    )
    box = prepared.objective.hyperparameters
    assert prepared.objective.hessian(box.upper, np.empty(0, int)).shape == (0, 0)
    for rho in (box.lower, box.upper):
        judged = left_out(prepared, rho, None, 0.1, np.ones(len(rho), int))
        assert judged.corrected == pytest.approx(prepared.objective.value(rho), rel=1e-6)
