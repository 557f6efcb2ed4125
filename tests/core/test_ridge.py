from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import Ridge as SklearnRidge

from tests.core.conftest import regression
from tests.oracles import differences, pooled_error, ridge
from worker.core.hypergradient import CholeskyBackprop, Implicit
from worker.core.losses import Huber
from worker.core.objective.means import mean_of_ridge
from worker.core.penalties import PerFeature, PerGroup, Shared
from worker.core.rows.problem import Problem
from worker.core.selection import GivenFolds, Holdout, KFold, LeaveOneOut
from worker.core.training import Ridge
from worker.core.training.ridge import MIN_TRIALS_FOR_SPECTRAL, RidgeOfMoments

SELECTIONS = [KFold(folds=3), Holdout(fraction=0.3), GivenFolds(fold_of_row=tuple(i % 4 for i in range(40)))]
flags = pytest.mark.parametrize(("intercept", "standardize"), [(a, b) for a in (True, False) for b in (True, False)])
shapes = pytest.mark.parametrize("p", [6, 44], ids=["n>p", "p>n"])
solvers = pytest.mark.parametrize("dual", [False, True], ids=["primal", "dual"])


def build(problem, training, selection, method, *, dual):
    n = len(problem.y)
    partition = selection.partition(np.arange(n), n)
    systems = training.systems(problem, partition, dual=dual)
    return partition, mean_of_ridge(
        systems, training.hyperparameters(problem), method, eliminated=training.eliminates_intercept
    )


@pytest.mark.parametrize("selection", SELECTIONS, ids=lambda s: s.kind)
@flags
@shapes
@solvers
def test_value_and_derivatives(penalty_of, selection, intercept, standardize, p, dual):
    problem = regression(40, p)
    training = Ridge(intercept, standardize, penalty_of(problem))
    partition, objective = build(problem, training, selection, Implicit(), dual=dual)
    rho = np.random.default_rng(1).normal(size=len(objective.hyperparameters.names)) - 1.0
    at = objective.evaluate(rho)

    decay = training.penalty.matrices(problem.features)[1].at(np.exp(rho)).diagonal
    splits = [(partition.rows(train), partition.rows(val)) for train, val in partition.splits]
    expected = pooled_error(problem.X, problem.y, decay, splits, intercept=intercept, standardize=standardize)
    assert_allclose(at.value, expected, rtol=1e-11)

    scale = np.abs(at.gradient).max()
    assert_allclose(at.gradient, differences(objective.value, rho), atol=1e-8 * max(scale, 1e-3 * at.value))

    _, other = build(problem, training, selection, CholeskyBackprop(), dual=dual)
    # each is right to 1e-16 times the condition number of what is factored, up to 1e4 of the rows that are not centred
    assert_allclose(other.evaluate(rho).gradient, at.gradient, rtol=0, atol=1e-11 * max(scale, 1e-2 * at.value))

    hessian = objective.hessian(rho)
    numeric = differences(lambda r: objective.evaluate(r).gradient, rho)
    assert_allclose(hessian, numeric, atol=1e-6 * np.abs(hessian).max())
    assert (hessian == hessian.T).all()
    chosen = np.arange(0, len(rho), 2)
    assert_allclose(objective.hessian(rho, chosen), hessian[np.ix_(chosen, chosen)], atol=1e-12 * np.abs(hessian).max())


@flags
def test_primal_and_dual_are_the_same_numbers(penalty_of, intercept, standardize):
    problem = regression(25, 60)
    training = Ridge(intercept, standardize, penalty_of(problem))
    primal, dual = (build(problem, training, KFold(), Implicit(), dual=dual)[1] for dual in (False, True))
    rho = np.random.default_rng(3).normal(size=len(primal.hyperparameters.names))
    a, b = primal.evaluate(rho), dual.evaluate(rho)
    assert_allclose(a.value, b.value, rtol=1e-11)
    assert_allclose(a.gradient, b.gradient, rtol=0, atol=1e-11 * np.abs(a.gradient).max())
    assert_allclose(primal.hessian(rho), dual.hessian(rho), atol=1e-10 * np.abs(dual.hessian(rho)).max())


def test_auto_takes_the_cheaper_matrix():
    forms = Shared().matrices(tuple(f"x{j}" for j in range(500)))[1]
    assert not Ridge().prefers_dual(1000, forms)
    assert Ridge().prefers_dual(50, forms)
    wide = regression(20, 100)
    system = Ridge().systems(wide, KFold().partition(np.arange(20), 20))[0]
    assert system.solver == "dual"


@flags
@solvers
def test_refit_equals_scikit_learn(intercept, standardize, dual):
    problem = regression(30, 8)
    lam = 0.37
    rows = np.arange(5, 30)
    system = Ridge(intercept, standardize).refit(problem, rows, dual=dual)
    fit = system.fit(np.array([lam]))
    constant, slopes = system.coefficients(fit.theta)
    X, y = problem.X[rows], problem.y[rows]
    scale = X.std(axis=0) if standardize else np.ones(8)
    peer = SklearnRidge(alpha=lam * len(rows), fit_intercept=intercept, solver="svd").fit(X / scale, y)
    assert_allclose(slopes, peer.coef_ / scale, rtol=1e-10)
    assert_allclose(constant, peer.intercept_, rtol=1e-9, atol=1e-9)
    assert_allclose(
        (constant, *slopes),
        np.hstack(ridge(X, y, np.full(8, lam), intercept=intercept, standardize=standardize)),
        rtol=1e-9,
        atol=1e-10,
    )


@solvers
def test_nothing_leaks_from_validation_rows(dual):
    problem = regression(40, 5)
    partition = Holdout(validation_rows=tuple(range(30, 40))).partition(np.arange(40), 40)
    spoiled = problem.X.copy()
    spoiled[30:] = spoiled[30:] * 100 + 7
    other = dataclasses.replace(problem, X=spoiled, y=np.where(np.arange(40) < 30, problem.y, -5.0))
    slopes = []
    for table in (problem, other):
        system = Ridge(penalty=PerFeature()).systems(table, partition, dual=dual)[0]
        constant, theta = system.coefficients(system.fit(np.full(5, 0.1)).theta)
        slopes.append(np.append(constant, theta))
    assert_allclose(slopes[0], slopes[1], rtol=1e-9)


def test_order_of_rows_and_their_repetition_change_nothing():
    problem = regression(30, 4)
    order = np.random.default_rng(0).permutation(30)
    lam = np.full(4, 0.2)
    folds = GivenFolds(fold_of_row=tuple(i % 3 for i in range(30)))
    shuffled = Problem(problem.X[order], problem.y[order], problem.features)
    twice = Problem(np.repeat(problem.X, 2, 0), np.repeat(problem.y, 2), problem.features)
    tables = {
        "as given": (problem, folds),
        "shuffled": (shuffled, GivenFolds(fold_of_row=tuple(int(i) % 3 for i in order))),
        "each row twice": (twice, GivenFolds(fold_of_row=tuple((i // 2) % 3 for i in range(60)))),
    }
    values = {}
    for name, (table, selection) in tables.items():
        _, objective = build(table, Ridge(penalty=PerFeature()), selection, Implicit(), dual=False)
        values[name] = objective.value(np.log(lam))
    assert_allclose(list(values.values()), values["as given"], rtol=1e-11)


def test_scaling_a_column_shifts_its_hyperparameter():
    problem = regression(30, 4)
    scaled = Problem(problem.X * np.array([10.0, 1, 1, 1]), problem.y, problem.features)
    rho = np.array([0.3, -1.0, 0.5, 0.1])
    for standardize, shift in ((False, 2 * np.log(10.0)), (True, 0.0)):
        training = Ridge(standardize=standardize, penalty=PerFeature())
        _, plain = build(problem, training, KFold(), Implicit(), dual=False)
        _, other = build(scaled, training, KFold(), Implicit(), dual=False)
        moved = rho + np.array([shift, 0, 0, 0])
        assert_allclose(other.value(moved), plain.value(rho), rtol=1e-11)
        assert_allclose(other.evaluate(moved).gradient, plain.evaluate(rho).gradient, rtol=1e-9)


def test_groups_of_one_are_per_feature_and_one_group_is_shared():
    problem = regression(30, 3)
    rho = np.array([0.3, -1.0, 0.5])
    single = PerGroup(groups={name: (name,) for name in problem.features})
    a, b = (build(problem, Ridge(penalty=p), KFold(), Implicit(), dual=False)[1] for p in (PerFeature(), single))
    assert a.value(rho) == b.value(rho)
    assert_allclose(a.hessian(rho), b.hessian(rho), rtol=1e-12)
    whole = PerGroup(groups={"all": problem.features})
    a, b = (build(problem, Ridge(penalty=p), KFold(), Implicit(), dual=False)[1] for p in (Shared(), whole))
    assert a.value(rho[:1]) == b.value(rho[:1])


def test_adjoint_identity():
    # <u, B v> = <B^T u, v> for B = d2C/dtheta drho, and solve is the inverse of apply
    problem = regression(20, 30)
    rng = np.random.default_rng(0)
    for dual in (False, True):
        _, objective = build(problem, Ridge(penalty=PerFeature()), Holdout(), Implicit(), dual=dual)
        fit = objective.formula.fits.systems[0].fit(np.exp(rng.normal(size=30)))
        u, v = rng.normal(size=30), rng.normal(size=30)
        assert_allclose(u @ fit.apply(-fit.sensitivity(np.arange(30)) @ v), fit.contract(u) @ v, rtol=1e-9)
        assert_allclose(fit.apply(fit.solve(u)), u, rtol=1e-8, atol=1e-9)
        assert np.linalg.norm(fit.gradient()) < 1e-12 * np.linalg.norm(problem.y)


@pytest.mark.parametrize("dual", [False, True])
def test_constant_and_duplicate_columns(dual):
    problem = regression(30, 4)
    X = np.column_stack([problem.X, problem.X[:, 0], np.full(30, 7.0)])
    table = Problem(X, problem.y, (*problem.features, "twin", "constant"))
    _, objective = build(table, Ridge(penalty=PerFeature()), KFold(), Implicit(), dual=dual)
    at = objective.evaluate(np.zeros(6))
    assert np.isfinite(at.value)
    assert abs(at.gradient[5]) < 1e-10 * at.value
    assert_allclose(at.gradient[0], at.gradient[4], rtol=1e-9)


@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-3])
@pytest.mark.parametrize("intercept", [True, False])
def test_a_nearly_exact_fit_keeps_its_digits(noise, intercept):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 6)) + 2.0
    y = X @ rng.normal(size=6) + noise * rng.normal(size=200) + (5.0 if intercept else 0.0)
    problem = Problem(X, y, tuple("abcdef"))
    training = Ridge(intercept, penalty=PerFeature())
    partition, objective = build(problem, training, KFold(), Implicit(), dual=False)
    rho = np.log(np.full(6, 3e-6)) + 0.1 * np.arange(6)
    splits = [(partition.rows(train), partition.rows(val)) for train, val in partition.splits]
    expected = pooled_error(X, y, np.exp(rho), splits, intercept=intercept, standardize=True)
    at = objective.evaluate(rho)
    assert_allclose(at.value, expected, rtol=1e-7)
    assert_allclose(at.gradient, differences(objective.value, rho), atol=1e-6 * at.value)


@pytest.mark.parametrize("selection", [KFold(folds=3), LeaveOneOut(loss=Huber(1.0)), Holdout()], ids=lambda s: s.kind)
@flags
@shapes
def test_one_decomposition_gives_the_numbers_of_a_factorization_for_each_trial(selection, intercept, standardize, p):
    """Also where the fit is nearly exact, and the loss is taken about a reference."""
    for noise in (1.0, 1e-6):
        problem = regression(70, p)
        problem = dataclasses.replace(problem, y=problem.X @ np.ones(p) + noise * problem.y)
        training, rho = RidgeOfMoments(intercept, standardize), np.array([-3.0])
        partition = selection.partition(np.arange(70), 70)
        one, other = (
            selection.objective(problem, partition, training, Implicit(), trials)
            for trials in (1, MIN_TRIALS_FOR_SPECTRAL)
        )
        assert other.formula.fits.systems[0].solver == "spectral"
        a, b = one.evaluate(rho), other.evaluate(rho)
        assert_allclose(b.value, a.value, rtol=1e-7 if noise < 1 else 1e-11)
        assert_allclose(b.gradient, a.gradient, rtol=1e-6 if noise < 1 else 1e-9)
        assert_allclose(other.hessian(rho), one.hessian(rho), rtol=1e-5 if noise < 1 else 1e-8)
        models = [o.formula.fits.systems[0].coefficients(o.formula.fits.at(rho)[0].theta) for o in (one, other)]
        assert_allclose(models[1][1], models[0][1], rtol=1e-8, atol=1e-12)
        swept = selection.objective(problem, partition, training, CholeskyBackprop(), MIN_TRIALS_FOR_SPECTRAL).evaluate(
            rho
        )
        assert_allclose(swept.gradient, a.gradient, rtol=1e-6 if noise < 1 else 1e-9)
