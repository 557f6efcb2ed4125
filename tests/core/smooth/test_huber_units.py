"""The Huber loss in natural units: the unit of the target changes nothing, and its intercept is always determined."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.oracles import differences
from worker.core.hypergradient import Implicit
from worker.core.losses import Huber
from worker.core.losses.relative import RelativeDelta, spread
from worker.core.outer import Newton
from worker.core.penalties import PerFeature
from worker.core.rows.problem import Problem
from worker.core.search.nested import Nested
from worker.core.search.plan import Plan, Prepared, prepare
from worker.core.search.procedure import carry_out
from worker.core.selection import ApproximateLeaveOneOut, GivenFolds, Holdout, KFold, LeaveOneOut
from worker.core.training import HuberRegression, KernelRidge, Ridge
from worker.core.verdict.conclude import conclude


def table(seed: int = 0, n: int = 40, **roles: np.ndarray) -> Problem:
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, 3)) * [1.0, 30.0, 0.2]
    return Problem(X, 3.0 + X @ [1.0, 0.05, 4.0] + random.standard_t(2, size=n), ("a", "b", "c"), **roles)


def prepared(problem: Problem, training: object, selection: object, **settings: object) -> Prepared:
    return prepare(problem, Plan(training, selection, Implicit(), Newton(max_iterations=6), **settings))


HUBER = HuberRegression(penalty=PerFeature(spread=None))
PAIRS = [
    (HUBER, KFold(folds=3, loss=Huber())), (HUBER, ApproximateLeaveOneOut()),
    (HUBER, GivenFolds(fold_of_row=(0, 1) * 20, loss=Huber(RelativeDelta(0.5)))),
    (Ridge(), KFold(folds=3, loss=Huber())), (Ridge(), LeaveOneOut(loss=Huber())),
    (KernelRidge(), KFold(folds=3, loss=Huber())), (KernelRidge(), LeaveOneOut(loss=Huber())),
]  # fmt: skip


@pytest.mark.parametrize("u", [1e-6, 1e5])
@pytest.mark.parametrize(("training", "selection"), PAIRS, ids=lambda one: one.kind)
def test_the_unit_of_the_target_changes_nothing(training, selection, u):
    problem = table(weights=np.random.default_rng(1).uniform(0.2, 2.0, 40))
    one, other = (prepared(replace(problem, y=problem.y * unit), training, selection).objective for unit in (1.0, u))
    rho = one.hyperparameters.start(0, 0)
    at, scaled = one.evaluate(rho), other.evaluate(rho)
    assert_allclose(scaled.value, at.value * u**2, rtol=1e-9)
    assert_allclose(scaled.gradient, at.gradient * u**2, rtol=1e-7, atol=1e-9 * abs(at.value) * u**2)


def test_each_split_has_the_delta_of_its_training_rows_and_the_selection_that_of_all():
    problem = replace(table(), y=np.append(table().y[:30], 500.0 * table().y[30:]))
    job = prepared(problem, HuberRegression(delta=RelativeDelta(2.0)), Holdout(validation_rows=tuple(range(30, 40))))
    (system,) = job.objective.formula.fits.systems
    ones = np.ones(40)
    assert system.row_loss.delta == pytest.approx(2.0 * spread(problem.y[:30], ones[:30]), rel=1e-14)
    assert job.objective.loss.delta == pytest.approx(2.0 * spread(problem.y, ones), rel=1e-14)
    fixed = prepared(problem, HuberRegression(delta=2.0), Holdout(validation_rows=(1, 2)))
    assert fixed.objective.formula.fits.systems[0].row_loss.delta == fixed.objective.loss.delta == 2.0


def test_offsets_count_like_a_shifted_target():
    offset = 50.0 * np.random.default_rng(3).normal(size=40)
    problem = table()
    values = [
        prepared(one, HuberRegression(), KFold(folds=3)).objective.evaluate(np.zeros(1)).value
        for one in (problem, replace(problem, y=problem.y + offset, offset=offset))
    ]
    assert values[1] == pytest.approx(values[0], rel=1e-9)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_the_spread_with_weights_is_that_of_repeated_rows(n):
    random = np.random.default_rng(n)
    y, counts = random.normal(size=n), random.integers(1, 4, n)
    repeated = np.repeat(y, counts)
    wanted = 1.4826 * np.median(np.abs(repeated - np.median(repeated)))
    assert spread(y, counts * 0.3) == pytest.approx(wanted, rel=1e-12, abs=1e-15)


def test_a_target_without_spread_takes_the_standard_deviation_and_says_so():
    y = np.zeros(40)
    y[:12] = np.arange(12) + 1.0
    job = prepared(replace(table(), y=y), HuberRegression(), GivenFolds(fold_of_row=(0, 1) * 20))
    assert job.objective.loss.delta == pytest.approx(1.35 * y.std(), rel=1e-12)
    *_, last = carry_out(job)
    assert any("delta is relative to the standard deviation" in one for one in conclude(job, last.best).messages)
    normal = prepared(table(), HuberRegression(), KFold(folds=2))
    *_, last = carry_out(normal)
    assert not any("standard deviation" in one for one in conclude(normal, last.best).messages)


def test_an_outer_fold_has_a_delta_of_its_own():
    problem = table()
    job = prepared(problem, HuberRegression(), KFold(folds=2), nested=Nested(2))
    *_, last = carry_out(job)
    splits = job.plan.nested.splits(job.plan.selection, job.rows, job.problem)
    for fold, (rows, scored) in zip(last.folds, splits, strict=True):
        restricted = replace(problem, X=problem.X[rows], y=problem.y[rows])
        objective = prepared(restricted, HuberRegression(), KFold(folds=2)).objective
        assert objective.loss.delta != job.objective.loss.delta
        assert np.isfinite(fold.value)
        assert fold.rows == len(scored)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("solver", ["newton_cholesky", "newton_cg"])
def test_an_intercept_that_no_row_bends_moves_with_the_ends_of_its_interval(seed, solver):
    """An even number of rows of equal weight and a delta far below the noise: half of them pull to each side."""
    problem = table(seed, 16)
    training = HuberRegression(delta=1e-5, penalty=PerFeature(spread=None), solver=solver)
    objective = prepared(problem, training, GivenFolds(fold_of_row=(0, 1) * 8)).objective
    rho = np.array([3.0, 2.0, 3.0])
    fits = objective.formula.fits.at(rho)
    assert any(fit.ties is not None for fit in fits)

    def value(at: np.ndarray) -> float:
        objective.forget()
        return objective.evaluate(at).value

    def gradient(at: np.ndarray) -> np.ndarray:
        objective.forget()
        return objective.evaluate(at).gradient

    scale = abs(value(rho))
    assert_allclose(gradient(rho), differences(value, rho, 1e-3), rtol=1e-6, atol=1e-10 * scale)
    objective.forget()
    assert_allclose(objective.hessian(rho), differences(gradient, rho, 1e-3), rtol=1e-5, atol=1e-10 * scale)
    residuals = objective.residuals(rho)
    assert max(residuals.inner_gradient_norm, residuals.adjoint_residual) < 1e-9


def test_the_start_of_a_fit_does_not_choose_its_intercept():
    problem = table(2, 16)
    (system, _) = prepared(
        problem, HuberRegression(delta=1e-4), GivenFolds(fold_of_row=(0, 1) * 8)
    ).objective.formula.fits.systems
    starts = [None, *np.random.default_rng(0).normal(size=(5, 4)) * 10]
    thetas = [system.fit(np.array([2.0]), start).theta for start in starts]
    for theta in thetas[1:]:
        assert_allclose(theta, thetas[0], rtol=1e-9, atol=1e-9)


def test_leave_one_out_knows_that_a_free_intercept_follows():
    problem = table(1, 16)
    objective = prepared(problem, HuberRegression(delta=1e-5), ApproximateLeaveOneOut()).objective
    rho = np.array([2.0])
    at = objective.evaluate(rho)
    assert objective.formula.fits.at(rho)[0].ties is not None

    def value(at: np.ndarray) -> float:
        objective.forget()
        return objective.value(at)

    assert_allclose(at.gradient, differences(value, rho, 1e-3), rtol=1e-6, atol=1e-12 * abs(at.value))
