"""What keeps digits: means of two doubles, moments of sections, factored rows, fits without a row, 32 digits."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_array

from tests.core.conftest import regression
from tests.oracles import differences
from worker.core.hypergradient import CholeskyBackprop, Implicit
from worker.core.linalg.double_double import DoubleDouble, product_of_columns, solve_positive
from worker.core.objective.leave_one_out import LeaveOneOutFormula, RefittedRows
from worker.core.outer import Newton
from worker.core.penalties import PerFeature
from worker.core.rows import moments as statistics
from worker.core.rows.centre import Centre
from worker.core.rows.moments import block_moments, split_moments
from worker.core.rows.problem import Partition, Problem
from worker.core.rows.tables import centred, mean_and_variance
from worker.core.search.plan import Plan, prepare
from worker.core.search.tune import tune
from worker.core.selection import Evidence, GeneralizedCV, Holdout, KFold, LeaveOneOut, Reml
from worker.core.selection.evidence_settings import NoiseVariance
from worker.core.training import LogisticRegression, Ridge
from worker.core.training.ridge import RidgeOfMoments
from worker.core.verdict.arithmetic import arithmetic_error
from worker.core.verdict.conclude import conclude
from worker.core.weights import SigmoidTime


class RidgeOfRows(Ridge):
    """Ridge that factors rows at any cost."""

    __slots__ = ()
    arithmetic = "rows"


def exact(values: DoubleDouble) -> list[Fraction]:
    return [
        Fraction(float(h)) + Fraction(float(e))
        for h, e in zip(np.ravel(values.high), np.ravel(values.low), strict=True)
    ]


def test_a_centre_moves_by_less_than_its_own_rounding():
    centre = Centre.at(np.array([1.7e9, 1.0, 0.0]))
    for step in (1e-9, 1 / 3, -1e-7):
        centre = centre.moved(np.full(3, step))
    moved = sum(map(Fraction, (1e-9, 1 / 3, -1e-7)))
    for start, got in zip((1.7e9, 1.0, 0.0), exact(DoubleDouble(centre.high, centre.low)), strict=True):
        assert abs(got - Fraction(start) - moved) < Fraction(1, 10**16)  # of the steps


def test_double_doubles_have_thirty_digits():
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(40, 3)) + 1e8, rng.normal(size=(40, 2)) * 1e-5
    rows = [[Fraction(float(v)) for v in row] for row in A], [[Fraction(float(v)) for v in row] for row in B]
    true = [sum(a[i] * b[j] for a, b in zip(*rows, strict=True)) for i in range(3) for j in range(2)]
    sizes = [sum(abs(a[i] * b[j]) for a, b in zip(*rows, strict=True)) for i in range(3) for j in range(2)]
    for got, want, size in zip(exact(product_of_columns(*map(DoubleDouble.of, (A, B)))), true, sizes, strict=True):
        assert abs(got - want) <= size / 10**29
    M = product_of_columns(DoubleDouble.of(A), DoubleDouble.of(A))
    kept = DoubleDouble(M.high.copy(), M.low.copy())
    solved = solve_positive(M, DoubleDouble.of(np.eye(3)))  # a condition of 1e17
    assert solved is not None
    product = product_of_columns(kept, solved[0])
    assert_allclose(product.rounded(), np.eye(3), atol=1e-10)
    assert solve_positive(DoubleDouble.of(-np.eye(2)), DoubleDouble.of(np.eye(2))) is None


@pytest.mark.parametrize("sparse", [False, True])
def test_an_outlier_touches_the_moments_of_its_own_block_only(sparse):
    problem = regression(60, 3)
    partition = KFold(folds=4, shuffle=False).partition(np.arange(60), 60)
    spoiled = problem.X.copy()
    spoiled[2, 1] = 2147483647.0
    tables = [csr_array(X) if sparse else X for X in (problem.X, spoiled)]
    one, other = (block_moments(replace(problem, X=X), partition) for X in tables)
    for before, after in zip(one[1:], other[1:], strict=True):
        assert (before.S == after.S).all()
        assert (before.mean.high == after.mean.high).all()
    assert one[0].S[1, 1] < 1e-12 * other[0].S[1, 1]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_moments_do_not_depend_on_how_rows_are_read(monkeypatch, weighted, sparse):
    """Epoch seconds in sections of a few rows: merged in any number, they have the moments of the whole."""
    rng = np.random.default_rng(0)
    X = np.column_stack([1.7e9 + 1e-3 * rng.integers(0, 100, 90), rng.normal(size=90), np.full(90, 0.1)])
    problem = Problem(csr_array(X) if sparse else X, rng.normal(size=90) + 1e7, ("a", "b", "c"))
    weights = rng.uniform(0.5, 2.0, 90) if weighted else None
    partition = Holdout(fraction=0.4, seed=1).partition(np.arange(90), 90)
    found = []
    for values in (10**6, 30, 5):
        monkeypatch.setattr(statistics, "CHUNK_VALUES", values)
        monkeypatch.setattr(statistics, "SECTION_CHUNKS", 2)
        found.append(list(split_moments(block_moments(problem, partition, weights), partition)))
    scale = np.sqrt(np.diag(found[0][0][0].S) + (np.arange(4) == 2))
    for other in found[1:]:
        for (one, _), (two, _) in zip(found[0], other, strict=True):
            assert_allclose(two.S / np.outer(scale, scale), one.S / np.outer(scale, scale), atol=1e-13)
            assert two.variance()[2] == 0
            assert_allclose(two.mean.minus(one.mean), 0.0, atol=1e-15 * 1e3)
    a = [Fraction(float(v)) for v in X[partition.rows((0,)), 0]]
    mean = sum(a) / len(a)
    if not weighted:
        variance = float(sum((v - mean) ** 2 for v in a) / len(a))
        assert_allclose(found[0][0][0].variance()[0], variance, rtol=1e-13)


@pytest.mark.parametrize("sparse", [False, True])
def test_means_and_centred_rows_keep_the_digits_of_the_spread(sparse):
    rng = np.random.default_rng(0)
    X = np.column_stack([1.7e9 + 1e-3 * rng.integers(0, 100, 50), rng.normal(size=50)])
    table, rows = csr_array(X) if sparse else X, np.arange(50)
    mean, variance = mean_and_variance(table, rows, np.ones(50))
    a = [Fraction(float(v)) for v in X[:, 0]]
    true = sum(a) / 50
    assert_allclose(variance[0], float(sum((v - true) ** 2 for v in a) / 50), rtol=1e-13)
    Z = centred(table, rows, mean).dense()
    assert_allclose(Z[:, 0], [float(v - true) for v in a], atol=1e-15)


IMPLICIT = Implicit()
SELECTIONS = [KFold(folds=3), LeaveOneOut(), GeneralizedCV(), Evidence(), Reml(), Evidence(NoiseVariance())]


def objective(problem, training, selection, method=IMPLICIT):
    n = len(problem.y)
    return selection.objective(problem, selection.partition(np.arange(n), n), training, method)


@pytest.mark.parametrize("selection", SELECTIONS, ids=repr)
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(("n", "p"), [(24, 4), (12, 20)])
def test_factored_rows_give_the_numbers_of_moments(selection, intercept, n, p):
    weights = np.where(np.arange(n) % 5 == 2, 0.0, 1.0 + np.arange(n) % 3)
    problem = replace(regression(n, p), weights=weights)
    rho = np.random.default_rng(1).normal(size=p) + np.zeros(p)
    rho = np.append(rho, 0.3) if "NoiseVariance" in repr(selection) and selection.noise_variance else rho
    moments, rows, swept = (
        objective(problem, kind(intercept, penalty=PerFeature()), selection, method)
        for kind, method in ((RidgeOfMoments, Implicit()), (RidgeOfRows, Implicit()), (RidgeOfRows, CholeskyBackprop()))
    )
    at, other, third = (each.evaluate(rho) for each in (moments, rows, swept))
    unit = np.abs(at.gradient).max()
    assert_allclose([other.value, third.value], at.value, rtol=1e-11)
    assert_allclose(other.gradient, at.gradient, atol=1e-9 * unit)
    assert_allclose(third.gradient, at.gradient, atol=1e-9 * unit)
    assert_allclose(rows.hessian(rho), moments.hessian(rho), atol=1e-8 * unit)


@pytest.mark.parametrize("intercept", [True, False])
def test_tuned_weights_of_rows_far_from_zero(intercept):
    n, weights = 30, SigmoidTime()
    problem = replace(regression(n, 2), time=np.arange(n) / 10.0)
    moments, rows = (
        objective(problem, k(intercept, weights=weights), KFold(folds=3)) for k in (RidgeOfMoments, RidgeOfRows)
    )
    assert (moments.solver, rows.solver) == ("primal", "orthogonal")
    rho = moments.hyperparameters.start(0, 0) + 0.1
    at, other = moments.evaluate(rho), rows.evaluate(rho)
    assert_allclose(other.value, at.value, rtol=1e-11)
    assert_allclose(other.gradient, at.gradient, atol=1e-9 * np.abs(at.gradient).max())
    far = replace(problem, X=problem.X + 1e7)  # a spread of one, and nothing that stands for an intercept
    assert objective(far, Ridge(intercept, weights=weights), KFold(folds=3)).solver == (
        "primal" if intercept else "orthogonal"
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_leave_one_out_of_a_row_with_all_of_a_column_refits(weighted):
    """One minus the leverage of the outlier goes down to the penalty: there the closed form divides by rounding."""
    problem = regression(14, 2)
    X = problem.X.copy()
    X[3, 1] = 2147483647.0
    weights = 1.0 + np.arange(14) % 3 if weighted else None
    problem = replace(problem, X=X, weights=weights)
    training = Ridge(penalty=PerFeature(lower=1e-12, spread=None))
    found = objective(problem, training, LeaveOneOut())
    assert isinstance(found.formula, RefittedRows)
    rho = np.array([-2.0, -25.0])
    at = found.evaluate(rho)
    w = np.ones(14) if weights is None else weights
    shares, expected = w / w.sum(), 0.0
    mean = shares @ X
    scale2 = shares @ (X - mean) ** 2
    for i in range(14):
        rest = np.arange(14) != i
        v = w[rest] / w[rest].sum()
        Z, m = X[rest] - v @ X[rest], v @ X[rest]
        P = np.sqrt(np.exp(rho) * scale2 * w.sum() / w[rest].sum())
        units = np.linalg.norm(np.vstack([np.sqrt(v)[:, None] * Z, np.diag(P)]), axis=0)
        A = np.vstack([np.sqrt(v)[:, None] * Z, np.diag(P)]) / units
        b = np.append(np.sqrt(v) * (problem.y[rest] - v @ problem.y[rest]), np.zeros(2))
        theta = np.linalg.lstsq(A, b)[0] / units
        expected += w[i] * (problem.y[i] - v @ problem.y[rest] - (X[i] - m) @ theta) ** 2 / w.sum()
    assert_allclose(at.value, expected, rtol=1e-9)
    assert_allclose(at.gradient, differences(found.value, rho), atol=1e-8 * at.value)
    H = found.hessian(rho)
    for j in range(2):
        assert_allclose(H[j], differences(lambda r, j=j: found.evaluate(r).gradient[j], rho), atol=1e-7 * at.value)
    plan = Plan(training, LeaveOneOut(), Implicit(), Newton())
    prepared = prepare(problem, plan)
    *_, last = tune(prepared)
    conclusion = conclude(prepared, last.best)
    assert conclusion.certificates.arithmetic_error < 1e-9
    assert conclusion.standard_error is not None
    assert len(last.best.best.per_split) == 1
    assert isinstance(objective(regression(14, 2), training, LeaveOneOut()).formula, LeaveOneOutFormula)


def test_lost_digits_are_told():
    """No intercept, and columns and target far from zero: the coefficients themselves have too few digits."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(40, 2))
    X = np.column_stack([1e13 + np.round(1e3 * x[:, 0]), 1e12 + np.round(1e3 * x[:, 1])])
    problem = Problem(X, 1e11 + x @ [1.0, 2.0], ("a", "b"))
    prepared = prepare(problem, Plan(Ridge(intercept=False), KFold(folds=4), Implicit(), Newton()))
    *_, last = tune(prepared)
    conclusion = conclude(prepared, last.best)
    assert conclusion.certificates.arithmetic_error > 1e-9
    assert any(message.startswith("Rounding leaves about") for message in conclusion.messages)
    benign = prepare(regression(2000, 4), Plan(Ridge(), KFold(folds=4), Implicit(), Newton()))
    assert arithmetic_error(benign, benign.objective.evaluate(np.zeros(1))) < 1e-12


def test_the_arithmetic_of_many_rows_is_checked_on_some():
    problem = regression(3000, 3)
    X = problem.X + np.array([0.0, 0.0, 1.0]) * 1e-7 * problem.X[:, :1]  # nothing is lost, but more than SMALLEST_KEPT
    X[:, 2] = X[:, 0] + 1e-5 * X[:, 2]
    prepared = prepare(replace(problem, X=X), Plan(Ridge(), KFold(folds=4), Implicit(), Newton()))
    at = prepared.objective.evaluate(np.log([1e-6]))
    assert prepared.objective.arithmetic.kept(at.rho) < 1e-3
    assert 0 <= arithmetic_error(prepared, at) < 1e-9


def test_sparse_columns_far_from_zero_are_centred_in_iterative_training():
    rng = np.random.default_rng(0)
    z = rng.normal(size=60)
    X = np.zeros((60, 6))
    X[:, 0] = np.round(1.7e9 + 1e4 * z)
    X[np.arange(60), 1 + np.arange(60) % 5] = 1.0
    y = (z + 0.5 * rng.normal(size=60) > 0).astype(float)
    problem = Problem(csr_array(X), y, tuple("abcdef"), classes=("0", "1"))
    moved = replace(problem, X=X - np.array([1.7e9, 0, 0, 0, 0, 0]))
    training = LogisticRegression()
    sparse, dense = (objective(p, training, KFold(folds=3)).evaluate(np.array([-4.0])) for p in (problem, moved))
    assert_allclose(sparse.value, dense.value, rtol=1e-10)
    assert_allclose(sparse.gradient, dense.gradient, rtol=1e-7)


def test_every_split_trains_on_all_blocks_but_those_left_out():
    """Folds, expanding and rolling windows: each union of blocks is that of its rows."""
    problem = regression(50, 2)
    blocks = np.arange(50) // 10
    splits = [
        tuple((tuple(b for b in range(5) if b != i), (i,)) for i in range(5)),
        tuple((tuple(range(i)), (i,)) for i in range(1, 5)),
        tuple((tuple(range(max(0, i - 2), i)), (i,)) for i in range(1, 5)),
        (((3, 1), (0,)), ((1, 2), (4, 0)), ((0, 1, 2), (3,))),
    ]
    for each in splits:
        partition = Partition(blocks, each)
        for (train, scored), (a, b) in zip(
            split_moments(block_moments(problem, partition), partition), each, strict=True
        ):
            for part, chosen in ((train, a), (scored, b)):
                rows = np.isin(blocks, chosen)
                Z = np.column_stack([problem.X[rows], problem.y[rows]])
                assert_allclose(part.S, (Z - Z.mean(axis=0)).T @ (Z - Z.mean(axis=0)), rtol=1e-10, atol=1e-10)
                assert part.weight == rows.sum()
