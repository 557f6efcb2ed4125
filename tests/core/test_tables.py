"""Tables in other forms than an array give the numbers of the array: sparse, memory-mapped, with missing values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_array

from tests.core.conftest import regression
from worker.core.hypergradient import CholeskyBackprop, HypergradientAuto
from worker.core.outer import Newton
from worker.core.penalties import PerFeature, PerGroup, Shared
from worker.core.rows import filled as imputation
from worker.core.rows import moments as statistics
from worker.core.rows import tables
from worker.core.rows.column_remarks import observations
from worker.core.rows.filled import split_problems
from worker.core.rows.problem import Imputation, Problem
from worker.core.rows.tables import mean_and_variance
from worker.core.search.plan import Plan, prepare, split_rows
from worker.core.search.tune import tune
from worker.core.selection import GivenFolds, GroupKFold, Holdout, KFold, LeaveOneOut, WalkForward
from worker.core.training import Ridge
from worker.core.verdict.conclude import conclude


def sparse_problem(n: int, p: int, seed: int = 0) -> Problem:
    """Counts, mostly zero, one column constant and one empty."""
    rng = np.random.default_rng(seed)
    X = rng.poisson(0.3, (n, p)).astype(float)
    X[:, 1], X[:, 2] = 2.0, 0.0
    y = X @ rng.normal(size=p) + rng.normal(size=n)
    return Problem(X, y, tuple(f"x{j}" for j in range(p)))


def evaluated(problem: Problem, plan: Plan, seed: int = 0):
    """J, gradient and Hessian at a point, and what is concluded after a short search."""
    prepared = prepare(problem, plan)
    rho = np.random.default_rng(seed).normal(size=len(prepared.objective.hyperparameters.names))
    at = prepared.objective.evaluate(rho)
    *_, last = tune(prepared)
    conclusion = conclude(prepared, last.best)
    return at, prepared.objective.hessian(rho), last.best.best, conclusion


def assert_equal(one, other, rtol: float) -> None:
    """To rtol where both are asked at one point; after a search rounding has been amplified by the conditioning."""
    for a, b, share in ((one[0], other[0], rtol), (one[2], other[2], 1e3 * rtol)):
        assert_allclose(a.value, b.value, rtol=share)
        assert_allclose(a.per_split, b.per_split, rtol=share)
        assert_allclose(a.gradient, b.gradient, rtol=share, atol=share * abs(a.value))
    assert_allclose(one[1], other[1], rtol=1e3 * rtol, atol=10 * rtol * np.abs(one[1]).max())
    a, b = one[3], other[3]
    rtol *= 1e4
    assert_allclose(a.model.coefficients, b.model.coefficients, rtol=rtol, atol=rtol)
    assert_allclose([a.model.intercept, a.standard_error], [b.model.intercept, b.standard_error], rtol=rtol)
    assert_allclose(a.test_value or 0.0, b.test_value or 0.0, rtol=rtol)
    assert a.messages == b.messages


@pytest.mark.parametrize("values", [100, 1_000_000])
@pytest.mark.parametrize(("n", "p"), [(60, 6), (12, 40)])
@pytest.mark.parametrize("training", [Ridge(), Ridge(intercept=False, standardize=False)])
@pytest.mark.parametrize("selection", [KFold(folds=3), Holdout(fraction=0.3), LeaveOneOut()])
def test_sparse_equals_dense(n, p, training, selection, values, monkeypatch):
    for module in (statistics, imputation):
        monkeypatch.setattr(module, "CHUNK_VALUES", values)
    problem = sparse_problem(n, p)
    outer = Newton(max_iterations=4)
    plan = Plan(replace(training, penalty=Shared()), selection, HypergradientAuto(), outer, test_fraction=0.1)
    assert_equal(evaluated(problem, plan), evaluated(replace(problem, X=csr_array(problem.X)), plan), 1e-12)


@pytest.mark.parametrize("values", [20, 1_000_000])
def test_moments_of_sparse_columns_are_those_of_dense_ones(values, monkeypatch):
    monkeypatch.setattr(tables, "SPARSE_CHUNK_VALUES", values)
    X, weights = sparse_problem(40, 8).X, np.arange(40.0)
    X[1:, 3], X[0, 3] = 5.0, 7.0  # differs in a row without weight alone
    X[:20, 4], X[20:, 4] = 0.0, 3.0
    rows = np.flatnonzero(np.arange(40) % 7)
    rows = np.append(0, rows)
    (mean, variance), (sparse_mean, sparse_variance) = (
        mean_and_variance(table, rows, weights[rows]) for table in (X, csr_array(X))
    )
    assert_allclose(sparse_mean.minus(mean), 0.0, atol=1e-15)
    assert_allclose(sparse_variance, variance, rtol=1e-12, atol=1e-15)
    assert (mean_and_variance(csr_array(X), rows, weights[rows])[1][1:4] == 0).all()


def test_sparse_rows_pass_through_the_reverse_sweep():
    problem = sparse_problem(15, 40)
    plan = Plan(Ridge(penalty=PerFeature(spread=None)), KFold(folds=3), CholeskyBackprop(), Newton(max_iterations=2))
    dense, sparse = (prepare(p, plan).objective for p in (problem, replace(problem, X=csr_array(problem.X))))
    rho = np.random.default_rng(0).normal(size=40)
    assert sparse.formula.fits.systems[0].solver == "dual"
    assert_allclose(sparse.evaluate(rho).gradient, dense.evaluate(rho).gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("values", [300, 1_000_000])
def test_memory_maps_give_the_same_bits(order, values, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(statistics, "CHUNK_VALUES", values)
    problem = regression(200, 5)
    mapped = np.memmap(tmp_path / "x", np.float64, "w+", shape=(200, 5), order=order)
    mapped[:] = problem.X
    plan = Plan(
        Ridge(penalty=PerFeature(spread=None)),
        KFold(),
        HypergradientAuto(),
        Newton(max_iterations=3),
        test_fraction=0.1,
    )
    one, other = evaluated(problem, plan), evaluated(replace(problem, X=mapped), plan)
    assert one[2].value == other[2].value
    assert (one[2].gradient == other[2].gradient).all()
    assert (one[1] == other[1]).all()


def with_missing(n: int, p: int) -> tuple[Problem, np.ndarray]:
    problem = regression(n, p)
    X = problem.X.copy()
    rng = np.random.default_rng(5)
    columns = np.array([0, 2, 3])
    for j, share in zip(columns, (0.1, 0.3, 0.6), strict=True):
        X[rng.random(n) < share, j] = np.nan
    rules = Imputation(columns, ("mean", "median", "constant"), np.array([0.0, 0.0, -1.5]))
    return replace(problem, X=X, imputation=rules), X


def by_hand(X: np.ndarray, train: np.ndarray) -> np.ndarray:
    fills = {0: np.nanmean(X[train, 0]), 2: np.nanmedian(X[train, 2]), 3: -1.5}
    filled = X.copy()
    for j, value in fills.items():
        filled[np.isnan(X[:, j]), j] = value
    return filled


@pytest.mark.parametrize("values", [60, 1_000_000])
@pytest.mark.parametrize(("n", "p"), [(50, 5), (14, 40)])
@pytest.mark.parametrize("selection", [KFold(folds=4), WalkForward(initial=7, horizon=3), LeaveOneOut()])
def test_missing_values_are_filled_from_the_training_rows_of_each_split(n, p, selection, values, monkeypatch):
    for module in (statistics, imputation):
        monkeypatch.setattr(module, "CHUNK_VALUES", values)
    problem, X = with_missing(n, p)
    training = Ridge(penalty=PerFeature(spread=None))
    plan = Plan(training, selection, HypergradientAuto(), Newton(max_iterations=2))
    prepared = prepare(problem, plan)
    rho = np.random.default_rng(1).normal(size=p)
    at = prepared.objective.evaluate(rho)
    errors, gradient, rows = [], np.zeros(p), 0
    for train, validation in prepared.partition.splits:
        train_rows, scored = prepared.partition.rows(train), prepared.partition.rows(validation)
        filled = replace(problem, X=by_hand(X, train_rows), imputation=None)
        if selection.closed_form:
            alone = prepare(filled, plan).objective
        else:
            used = np.isin(np.arange(n), np.append(train_rows, scored))
            one = Problem(filled.X[used], filled.y[used], filled.features)
            held_out = tuple(int(i) for i in np.searchsorted(np.flatnonzero(used), scored))
            alone = prepare(one, replace(plan, selection=Holdout(validation_rows=held_out))).objective
        split = alone.evaluate(rho)
        errors.append(split.value)
        gradient += split.gradient * len(scored)
        rows += len(scored)
    assert_allclose(at.per_split, errors, rtol=1e-9)
    assert_allclose(at.gradient, gradient / rows, rtol=1e-8, atol=1e-10 * at.value)
    losses = prepared.objective.row_scores(problem, prepared.partition, rho).losses
    assert_allclose(losses.mean(), at.value, rtol=1e-9)


def test_the_refit_says_what_it_filled():
    problem, X = with_missing(50, 5)
    plan = Plan(
        Ridge(penalty=PerFeature(spread=None)),
        KFold(),
        HypergradientAuto(),
        Newton(max_iterations=2),
        test_fraction=0.2,
    )
    prepared = prepare(problem, plan)
    *_, last = tune(prepared)
    conclusion = conclude(prepared, last.best)
    rows = prepared.rows
    assert_allclose(conclusion.fills, [np.nanmean(X[rows, 0]), np.nanmedian(X[rows, 2]), -1.5], rtol=1e-13)
    filled = by_hand(X, rows)
    error = problem.y - conclusion.model.intercept - filled @ conclusion.model.coefficients
    assert_allclose(conclusion.test_value, np.mean(error[prepared.test_rows] ** 2), rtol=1e-10)


def test_a_column_without_a_value_in_the_training_rows_is_filled_with_zero():
    problem, X = with_missing(20, 5)
    X[:10, 0] = X[:10, 2] = np.nan
    plan = Plan(Ridge(), Holdout(validation_rows=tuple(range(10, 20))), HypergradientAuto(), Newton())
    (split,) = split_problems(problem, prepare(problem, plan).partition)
    assert (split.X[np.arange(5)][:, [0, 2]] == 0).all()


def test_roles_decide_the_order_and_the_folds():
    problem = regression(30, 2)
    rng = np.random.default_rng(0)
    time, groups, fold = rng.permutation(30) + 0.5, rng.integers(0, 9, 30), np.arange(30) % 4
    problem = replace(problem, time=time, groups=groups, fold=fold)
    everyone = np.arange(30)

    order = np.argsort(time)
    partition = WalkForward(initial=20, horizon=5).partition(everyone, 30, problem)
    assert [set(partition.rows(v)) for _, v in partition.splits] == [set(order[20:25]), set(order[25:])]
    assert set(partition.rows(partition.splits[0][0])) == set(order[:20])
    plan = Plan(Ridge(), WalkForward(initial=9), HypergradientAuto(), Newton(), test_fraction=0.2)
    assert set(split_rows(30, plan, time)[1]) == set(order[24:])

    listed = GroupKFold(group_of_row=tuple(groups.tolist()), folds=3).partition(everyone, 30)
    assert (GroupKFold(folds=3).partition(everyone, 30, problem).block_of_row == listed.block_of_row).all()
    assert (GivenFolds().partition(everyone, 30, problem).block_of_row == fold).all()
    with pytest.raises(ValueError, match="name a column in the field groups"):
        GroupKFold().partition(everyone, 30)
    with pytest.raises(ValueError, match="leave one of them out"):
        GivenFolds(fold_of_row=(0, 1) * 15).partition(everyone, 30, problem)


def test_many_equal_columns_are_told_in_few_sentences(monkeypatch):
    monkeypatch.setattr("worker.core.rows.column_remarks.CHUNK_VALUES", 100)
    X = np.random.default_rng(0).integers(0, 2, (40, 3)).astype(float)
    X = np.hstack([X, X[:, :1], np.ones((40, 25)), X[:, 1:2]])
    X[39, -1] = 1 - X[39, -1]  # differs in the last chunk alone
    names = tuple(f"x{j}" for j in range(X.shape[1]))
    for table in (X, csr_array(X)):
        told = observations(Problem(table, np.arange(40.0), names), np.arange(40))
        assert told[:1] == ("Feature 'x4' is constant on the rows used; its penalty has no effect.",)
        assert told[-2:] == (
            "5 more features are constant as well.",
            "Feature 'x3' equals 'x0': the data determine the sum of their coefficients alone.",
        )
        assert len(told) == 22


@pytest.mark.parametrize("form", [np.asarray, csr_array])
def test_a_constant_column_without_an_intercept_is_one(form):
    X = np.column_stack([np.ones(5), np.zeros(5), np.arange(5.0)])
    problem = Problem(form(X), np.arange(5.0), ("a", "b", "c"))
    assert [told[:11] for told in observations(problem, np.arange(5), intercept=False)] == ["Feature 'b'"]
    assert [told[:11] for told in observations(problem, np.arange(5))] == ["Feature 'a'", "Feature 'b'"]


def test_per_group_without_groups_is_a_group_for_each_column():
    box, forms = PerGroup().matrices(("a", "b"))
    assert box.names == ("penalty[a]", "penalty[b]")
    assert forms.at(np.array([2.0, 3.0])).diagonal.tolist() == [2.0, 3.0]
