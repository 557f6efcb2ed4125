"""Scales, corners and offsets far from one: what training makes of them, and what the caller is told."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.core.smooth.problems import TRAINING, table
from worker.core.hypergradient import Implicit
from worker.core.outer import Newton, OuterAuto
from worker.core.penalties import PerFeature, Shared
from worker.core.records import Outcome
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, prepare
from worker.core.search.tune import tune
from worker.core.selection import GivenFolds, Holdout, KFold
from worker.core.training import HuberRegression, MultinomialRegression, SquaredHinge
from worker.core.verdict.conclude import conclude
from worker.core.verdict.curvature import curvature

pytestmark = pytest.mark.unchecked


def ended(problem, training, selection=None):
    prepared = prepare(problem, Plan(training, selection or KFold(folds=3), Implicit(), OuterAuto()))
    *_, last = tune(prepared)
    return last, conclude(prepared, last.best)


@pytest.mark.parametrize("scale", [[1e14, 1, 1, 1, 1], [1, 1e-18, 1, 1e18, 1], [1e40] * 5, [1e-40] * 5], ids=str)
@pytest.mark.parametrize("kind", TRAINING)
def test_scales_of_columns_change_nothing(kind, scale):
    problem = table(kind)
    objectives = [
        prepare(
            p, Plan(TRAINING[kind](penalty=PerFeature(spread=None)), KFold(folds=3), Implicit(), Newton())
        ).objective
        for p in (problem, dataclasses.replace(problem, X=problem.X * np.array(scale, float)))
    ]
    rho = np.log([0.1, 0.01, 0.3, 0.05, 0.02])
    one, other = (objective.evaluate(rho) for objective in objectives)
    assert_allclose(other.value, one.value, rtol=1e-10)
    assert_allclose(other.gradient, one.gradient, rtol=1e-7, atol=1e-10)
    assert objectives[1].residuals(rho).inner_gradient_norm < 1e-11


@pytest.mark.parametrize("unit", [1e-60, 1e-3, 1e3, 1e60])
def test_huber_does_not_depend_on_the_unit_of_the_target(unit):
    problem = table("huber")
    scaled = dataclasses.replace(problem, y=problem.y * unit, offset=problem.offset * unit)
    one = ended(problem, HuberRegression(delta=0.5))[0].best.best
    other = ended(scaled, HuberRegression(delta=0.5 * unit))[0].best.best
    assert_allclose(other.value / unit**2, one.value, rtol=1e-9)


def noisy(n: int = 200, seed: int = 1) -> Problem:
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, 4))
    y = 100.0 * (X @ [1.0, -0.7, 0.2, 0.0] + 0.5 * random.standard_t(2, size=n))
    return Problem(X, y, ("a", "b", "c", "d"))


def test_a_huber_loss_with_corners_everywhere_is_trained_and_told():
    last, conclusion = ended(noisy(), HuberRegression(delta=1.0))
    assert not last.ended.is_failure
    assert last.best.best.value < 0.6 * last.starts[0].initial.value
    assert conclusion.model is not None
    assert any("delta = 1 of the Huber loss" in message for message in conclusion.messages)
    wide = ended(noisy(), HuberRegression(delta=60.0))[1]
    assert not any("delta" in message for message in wide.messages)


def test_an_intercept_that_no_row_bends_is_in_the_middle_of_its_interval():
    X, y = np.array([[1.0], [-1.0], [2.0], [-2.0], [0.5], [-0.5]]), np.array([9.0, -9.0, 14.0, -12.0, 8.0, -8.0])
    training = HuberRegression(delta=0.1, standardize=False)
    objective = prepare(
        Problem(X, y, ("a",)), Plan(training, Holdout(validation_rows=(4, 5)), Implicit(), Newton())
    ).objective
    (system,) = objective.formula.fits.systems
    fits = [system.fit(np.exp([rho]), np.array([0.5, 0.1])) for rho in (-1e-4, 0.0, 1e-4)]
    assert not any(fit.at.rows.curvatures().any() for fit in fits)
    for fit in fits:  # 9 and -9 are the first residuals to come within delta, at the slope of 3 units
        b, slope = fit.theta
        assert b == pytest.approx(((9.0 - slope - 0.1) + (-9.0 + slope + 0.1)) / 2, abs=1e-12)
        assert fit.inner_gradient_norm() < 1e-12
    values, gradients = zip(*(system.loss.value_and_gradient(fit.theta) for fit in fits), strict=True)
    slope = -fits[1].contract(fits[1].solve(gradients[1]))[0]
    assert_allclose(slope, (values[2] - values[0]) / 2e-4, rtol=1e-6)
    tangent = fits[1].sensitivity(np.array([0]))[:, 0]
    assert_allclose(tangent, (fits[2].theta - fits[0].theta) / 2e-4, rtol=1e-6, atol=1e-9)


def test_a_minimum_in_a_corner_is_not_called_a_saddle():
    random = np.random.default_rng(5)
    told = set()
    for _ in range(12):
        X = random.normal(size=(60, 3))
        y = (X[:, 0] + random.normal(size=60) > 0).astype(float)
        problem = Problem(X, y, ("a", "b", "c"), classes=("no", "yes"))
        prepared = prepare(problem, Plan(SquaredHinge(penalty=Shared()), KFold(), Implicit(), Newton()))
        *_, last = tune(prepared)
        rho, value = last.best.best.rho, last.best.best.value
        shape = curvature(prepared.objective, last.best.best)
        told.add(shape and shape.point)
        if shape is not None and shape.point == "saddle":
            assert min(prepared.objective.value(rho + step) for step in (-0.003, 0.003)) < value
    assert "minimum" in told


@pytest.mark.parametrize("intercept", [True, False])
def test_a_minimizer_of_zero_is_no_sign_of_a_singular_criterion(intercept):
    X, y = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]] * 6), np.array([1.0, 0.0, 0.0, 1.0] * 6)
    problem = Problem(X * [1.0, 1.0 / 3.0], y, ("a", "b"), classes=("no", "yes"))
    folds = tuple(i // 4 % 3 for i in range(24))
    training = TRAINING["logistic"](intercept=intercept)
    last, conclusion = ended(problem, training, GivenFolds(fold_of_row=folds))
    assert_allclose(conclusion.model.coefficients, 0.0, atol=1e-12)
    assert conclusion.certificates.inner_gradient_norm < 1e-12
    assert not any("close to singular" in message for message in conclusion.messages)
    assert last.ended in {Outcome.CONVERGED, Outcome.AT_BOUNDS}


@pytest.mark.parametrize("level", [-1000.0, 300.0, 1000.0])
@pytest.mark.parametrize("kind", ["logistic", "poisson", "gamma", "huber"])
def test_a_level_of_all_offsets_is_taken_by_the_intercept(kind, level):
    problem = table(kind)
    moved = dataclasses.replace(problem, offset=problem.offset + level)
    (one, first), (other, second) = (ended(p, TRAINING[kind]()) for p in (problem, moved))
    assert one.ended is other.ended is Outcome.CONVERGED
    assert_allclose(other.best.best.value, one.best.best.value, rtol=1e-9)
    assert_allclose(second.model.coefficients, first.model.coefficients, rtol=1e-4, atol=1e-6)
    assert_allclose(second.model.intercept + level, first.model.intercept, rtol=1e-4, atol=1e-6)


def test_intercepts_of_classes_sum_to_zero_in_original_units():
    problem = table("multinomial")
    model = ended(problem, MultinomialRegression())[1].model
    assert abs(model.intercept.sum()) < 1e-12
