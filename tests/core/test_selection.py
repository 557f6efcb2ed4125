from __future__ import annotations

from dataclasses import replace

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.core.conftest import grouped, regression
from tests.oracles import differences, pooled_error, ridge
from worker.core.hypergradient import CholeskyBackprop, Implicit
from worker.core.outer import Newton
from worker.core.penalties import PerFeature, PerGroup, Shared
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, prepare, split_rows
from worker.core.search.tune import tune
from worker.core.selection import Evidence, GeneralizedCV, GroupKFold, KFold, LeaveOneOut, Reml, WalkForward
from worker.core.selection.evidence_settings import NoiseVariance
from worker.core.training import Ridge
from worker.core.training.ridge import RidgeOfMoments

flags = pytest.mark.parametrize(("intercept", "standardize"), [(a, b) for a in (True, False) for b in (True, False)])
shapes = pytest.mark.parametrize(("n", "p"), [(30, 5), (20, 30)], ids=["n>p", "p>n"])


def build(problem, selection, training, method):
    n = len(problem.y)
    return selection.objective(problem, selection.partition(np.arange(n), n), training, method)


def decay_of(problem, training, rho):
    """Penalty of each original column."""
    scale2 = problem.X.var(axis=0) if training.standardize else 1.0
    return training.penalty.matrices(problem.features)[1].at(np.exp(rho)).diagonal * scale2


@pytest.mark.parametrize("selection", [LeaveOneOut(), GeneralizedCV()], ids=lambda s: s.kind)
@flags
@shapes
def test_closed_forms_and_their_derivatives(penalty_of, selection, intercept, standardize, n, p):
    problem = regression(n, p)
    training = Ridge(intercept, standardize, penalty_of(problem))
    objective = build(problem, selection, training, Implicit())
    rho = np.random.default_rng(1).normal(size=len(objective.hyperparameters.names)) - 0.5
    at = objective.evaluate(rho)
    decay = decay_of(problem, training, rho)
    X, y, everyone = problem.X, problem.y, np.arange(n)
    if selection.kind == "leave_one_out":
        errors = []
        for i in everyone:
            rest = everyone != i  # one row fewer: the total penalty n lam is kept
            constant, theta = ridge(X[rest], y[rest], decay * n / (n - 1), intercept=intercept, standardize=False)
            errors.append((y[i] - constant - X[i] @ theta) ** 2)
        assert_allclose(at.value, np.mean(errors), rtol=1e-10)
        assert_allclose(objective.row_scores(problem, selection.partition(everyone, n), rho).losses, errors, rtol=1e-8)
    else:
        columns = []
        for e in np.eye(n):
            constant, theta = ridge(X, e, decay, intercept=intercept, standardize=False)
            columns.append(constant + X @ theta)
        A = np.array(columns).T
        rss = np.sum((y - A @ y) ** 2)
        assert_allclose(at.value, (rss / n) / (1 - np.trace(A) / n) ** 2, rtol=1e-10)
    scale = np.abs(at.gradient).max()
    assert_allclose(at.gradient, differences(objective.value, rho), atol=1e-7 * max(scale, 1e-3 * at.value))
    other = build(problem, selection, training, CholeskyBackprop())
    assert_allclose(other.evaluate(rho).gradient, at.gradient, atol=1e-12 * max(scale, 1e-2 * at.value))
    hessian = objective.hessian(rho)
    assert_allclose(
        hessian, differences(lambda r: objective.evaluate(r).gradient, rho), atol=1e-6 * np.abs(hessian).max()
    )
    chosen = np.arange(0, len(rho), 2)
    assert_allclose(objective.hessian(rho, chosen), hessian[np.ix_(chosen, chosen)], atol=1e-12 * np.abs(hessian).max())


def test_leave_one_out_is_n_fold_cross_validation_up_to_the_total_penalty():
    problem = regression(30, 4)
    training = Ridge(standardize=False, penalty=PerFeature())
    rho = np.full(4, -1.0)
    closed = build(problem, LeaveOneOut(), training, Implicit()).value(rho)
    folds = build(problem, KFold(folds=30), training, Implicit()).value(rho + np.log(30 / 29))
    assert_allclose(closed, folds, rtol=1e-10)


@pytest.mark.parametrize("selection", [LeaveOneOut(), GeneralizedCV()], ids=lambda s: s.kind)
def test_closed_forms_are_tuned_to_a_stationary_point(selection):
    problem = regression(60, 6)
    prepared = prepare(problem, Plan(Ridge(penalty=grouped(problem)), selection, Implicit(), Newton(tolerance=1e-9)))
    *_, last = tune(prepared)
    assert last.best.gradient_norm <= 1e-9
    assert last.best.best.value < last.starts[0].initial.value


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize(
    "selection",
    [
        WalkForward(initial=12),
        WalkForward(initial=10, horizon=4),
        WalkForward(initial=10, horizon=5, step=2, gap=1),
        WalkForward(initial=15, horizon=3, window=9),
        WalkForward(initial=20, horizon=2, step=5, gap=3, window=8),
    ],
)
def test_walk_forward_is_a_loop_of_refits(selection, standardize):
    n = 40
    problem = regression(n, 3)
    rho = np.array([-1.0, 0.5, -2.0])
    splits = []
    for origin in range(selection.initial, n - selection.gap, selection.step or selection.horizon):
        begin = 0 if selection.window is None else max(0, origin - selection.window)
        first = origin + selection.gap
        splits.append((np.arange(begin, origin), np.arange(first, min(first + selection.horizon, n))))
    objective = build(problem, selection, Ridge(True, standardize, PerFeature()), Implicit())
    expected = pooled_error(problem.X, problem.y, np.exp(rho), splits, intercept=True, standardize=standardize)
    assert_allclose(objective.value(rho), expected, rtol=1e-10)
    assert_allclose(objective.evaluate(rho).gradient, differences(objective.value, rho), atol=1e-8 * expected)


def test_the_test_part_of_a_series_is_its_end():
    plan = Plan(Ridge(), WalkForward(initial=5), Implicit(), Newton(), test_fraction=0.25)
    rows, test = split_rows(20, plan)
    assert (rows == np.arange(15)).all()
    assert (test == np.arange(15, 20)).all()


def test_groups_stay_together_and_folds_are_balanced():
    groups = tuple(int(g) for g in np.repeat(np.arange(9), [30, 5, 5, 5, 5, 5, 5, 20, 10]))
    rows = np.arange(len(groups))
    partition = GroupKFold(group_of_row=groups, folds=3).partition(rows, len(groups))
    for group in set(groups):
        assert len(set(partition.block_of_row[np.array(groups) == group])) == 1
    assert sorted(np.bincount(partition.block_of_row)) == [30, 30, 30]
    with pytest.raises(ValueError, match="10 folds need at least 10 groups"):
        GroupKFold(group_of_row=groups, folds=10).partition(rows, len(groups))
    with pytest.raises(ValueError, match="entries"):
        GroupKFold(group_of_row=(0, 1)).partition(rows, len(groups))


def test_walk_forward_that_scores_nothing_is_refused():
    with pytest.raises(ValueError, match="leave none of the 10 rows"):
        WalkForward(initial=9, gap=1).partition(np.arange(10), 10)


def test_one_penalty_by_each_criterion_is_near_the_others():
    problem = regression(300, 5)
    found = {}
    for selection in (KFold(), LeaveOneOut(), GeneralizedCV()):
        *_, last = tune(prepare(problem, Plan(Ridge(penalty=Shared()), selection, Implicit(), Newton())))
        found[selection.kind] = last.best.best.value
    assert_allclose(list(found.values()), found["leave_one_out"], rtol=0.05)


def overlapping(features):
    return PerGroup(groups={"a": features[:40], "b": features[20:], "c": features})


@pytest.mark.parametrize(
    "selection", [LeaveOneOut(), GeneralizedCV(), Evidence(), Reml(), Evidence(NoiseVariance())], ids=repr
)
@pytest.mark.parametrize("weighted", [False, True])
@flags
def test_criteria_by_the_matrix_of_rows_are_those_by_that_of_columns(selection, weighted, intercept, standardize):
    problem = regression(15, 60)
    if weighted:
        problem = replace(problem, weights=np.where(np.arange(15) % 7 == 3, 0.0, 1.0 + np.arange(15) % 4))
    for penalty in (Shared(), PerFeature(), overlapping(problem.features)):  # few hyperparameters, and many
        training = RidgeOfMoments(intercept, standardize, penalty)
        dual = build(problem, selection, training, Implicit())
        primal = build(problem, selection, training, CholeskyBackprop())
        assert (dual.solver, primal.solver) == ("dual", "primal")
        rho = np.random.default_rng(0).normal(size=len(dual.hyperparameters.names))
        a, b = dual.evaluate(rho), primal.evaluate(rho)
        assert_allclose(a.value, b.value, rtol=1e-12)
        assert_allclose(a.gradient, b.gradient, atol=1e-11 * np.abs(a.gradient).max())
        assert_allclose(dual.hessian(rho), primal.hessian(rho), atol=1e-10 * np.abs(dual.hessian(rho)).max())
        assert max(dual.residuals(rho).inner_gradient_norm, dual.residuals(rho).adjoint_residual) < 1e-12


def test_leave_one_out_keeps_its_digits_where_the_fit_is_nearly_exact():
    rng = np.random.default_rng(0)
    n, p = 12, 40
    X = rng.normal(size=(n, p))
    y = X[:, :5].sum(axis=1) + rng.normal(size=n)
    problem = Problem(X, y + 1e6, tuple(f"x{j}" for j in range(p)))
    training = RidgeOfMoments(standardize=False, penalty=Shared(lower=1e-14))
    objective = build(problem, LeaveOneOut(), training, Implicit())
    assert objective.solver == "dual"
    Z = X - X.mean(axis=0)
    for lam in (1.0, 1e-6, 1e-10):
        with mpmath.workdps(50):
            inverse = (mpmath.matrix((Z @ Z.T).tolist()) + n * lam * mpmath.eye(n)) ** -1
            sums = inverse * mpmath.ones(n, 1)
            P = inverse - sums * sums.T / mpmath.fsum(sums)
            theta = P * mpmath.matrix((y + 1e6).tolist())
            expected = float(mpmath.fsum((theta[i] / P[i, i]) ** 2 for i in range(n)) / n)
        at = objective.evaluate(np.log([lam]))
        assert_allclose(at.value, expected, rtol=1e-8)
        slope = differences(objective.value, at.rho, 0.1)
        assert_allclose(at.gradient, slope, rtol=1e-4, atol=1e-9 * expected)


def test_leave_one_out_does_not_see_rows_of_weight_zero():
    rng = np.random.default_rng(0)
    n, p = 14, 40
    X, y, weights = rng.normal(size=(n, p)), rng.normal(size=n), np.ones(n)
    weights[[3, 9]] = 0.0
    kept, names = weights > 0, tuple(f"x{j}" for j in range(p))
    training = RidgeOfMoments(standardize=False, penalty=Shared(lower=1e-14))
    with_them = build(Problem(X, y, names, weights=weights), LeaveOneOut(), training, Implicit())
    without = build(Problem(X[kept], y[kept], names), LeaveOneOut(), training, Implicit())
    assert with_them.solver == without.solver == "dual"
    for lam in (1.0, 1e-6, 1e-12):
        assert_allclose(with_them.value(np.log([lam])), without.value(np.log([lam])), rtol=1e-10)
    at = np.log([1e-3])
    assert_allclose(with_them.evaluate(at).gradient, without.evaluate(at).gradient, rtol=1e-10)


def test_a_ratio_of_two_numbers_near_zero_is_told():
    rng = np.random.default_rng(0)
    problem = Problem(rng.normal(size=(20, 60)), rng.normal(size=20), tuple(f"x{j}" for j in range(60)))
    objective = build(problem, GeneralizedCV(), Ridge(penalty=Shared(lower=1e-12)), Implicit())
    assert objective.remarks(np.log([1e-8]))
    assert not objective.remarks(np.log([1.0]))


def test_evidence_that_has_no_bound_is_told():
    rng = np.random.default_rng(0)
    problem = Problem(rng.normal(size=(20, 60)), rng.normal(size=20), tuple(f"x{j}" for j in range(60)))
    training = Ridge(penalty=Shared(lower=1e-30))
    objective = build(problem, Evidence(), training, Implicit())
    falls = np.diff([objective.value(np.log([lam])) for lam in (1e-20, 1e-22, 1e-24)])
    assert_allclose(falls, -np.log(100.0) / 2, rtol=1e-3)  # of n rows only n - 1 are interpolated
    assert objective.remarks(np.log([1e-10]))
    assert not objective.remarks(np.log([1.0]))
    assert not build(problem, Reml(), training, Implicit()).remarks(np.log([1e-10]))
