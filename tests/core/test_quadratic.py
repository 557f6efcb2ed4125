"""Criteria that the caller brings: against plain algebra, differences, complex steps and ridge."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import sparse
from scipy.sparse import csr_array

from tests.core.conftest import regression
from tests.oracles import differences, unblocked_cholesky
from worker.core.hypergradient import CholeskyBackprop, HypergradientAuto, Implicit
from worker.core.inner.given.matrix_sum import SumSystem
from worker.core.linalg.assembled import Assembly, cheapest
from worker.core.objective.own_criterion import own_criterion
from worker.core.outer import Lbfgs, Newton
from worker.core.penalties import Banded, Difference, Identity, PerFeature, QuadraticForms
from worker.core.records import Outcome
from worker.core.rows.matrices import Criteria
from worker.core.rows.problem import Partition
from worker.core.search.plan import Plan, prepare
from worker.core.search.tune import tune
from worker.core.selection import Holdout, KFold, QuadraticSelection
from worker.core.training import Quadratic, Ridge
from worker.core.training.quadratic import Multiplier, empty_problem
from worker.core.verdict.conclude import conclude

P, K = 7, 3
ONES = (1.0,) * P
SHAPES = ("dense", "banded", "sparse")


def criteria_of(A, b, Q, e, constant=0.0) -> Criteria:
    return Criteria(tuple(csr_array(M) for M in A), np.column_stack(b).astype(float), csr_array(Q), e, constant)


def random_criteria(seed=0, p=P, density=1.0) -> Criteria:
    """A definite A_0, a semidefinite, an indefinite and a sparse A_j; b depends on two hyperparameters."""
    rng = np.random.default_rng(seed)

    def symmetric(scale):
        M = rng.normal(size=(p, p)) * (rng.uniform(size=(p, p)) < density)
        return scale * (M + M.T) / 2

    A0 = symmetric(0.3)
    A0 += np.eye(p) * (1.0 + np.abs(np.linalg.eigvalsh(A0)).max())
    low = rng.normal(size=(p, 2)) * (rng.uniform(size=(p, 1)) < density)
    A = [A0, low @ low.T, symmetric(0.05), np.diag((np.arange(p) % 2).astype(float))]
    b = [rng.normal(size=p), rng.normal(size=p), np.zeros(p), rng.normal(size=p)]
    Q = symmetric(1.0)
    return criteria_of(A, b, Q @ Q + 0.1 * np.eye(p), rng.normal(size=p), 2.5)


MIXED = Quadratic((Multiplier("a"), Multiplier("b", "linear", 0.2, -3.0, 3.0), Multiplier("c")))
RHO = np.array([-0.7, 0.4, 0.3])


def objective_of(criteria, training=MIXED, method=None, shape=None):
    problem = empty_problem(criteria)
    system = training.system(problem, shape=shape)
    return own_criterion(system, training.hyperparameters(problem), method or Implicit())


def naive(criteria, rho):
    """J by plain algebra, for complex rho too: no conjugation anywhere."""
    f = np.array([1.0, np.exp(rho[0]), rho[1], np.exp(rho[2])])
    H = sum(x * A.toarray() for x, A in zip(f, criteria.matrices, strict=True))
    L = unblocked_cholesky(H)
    v = np.zeros(len(H), H.dtype)
    b = criteria.vectors @ f
    for i in range(len(H)):
        v[i] = (b[i] - L[i, :i] @ v[:i]) / L[i, i]
    theta = np.zeros_like(v)
    for i in range(len(H) - 1, -1, -1):
        theta[i] = (v[i] - L[i + 1 :, i] @ theta[i + 1 :]) / L[i, i]
    return criteria.constant + criteria.e @ theta + theta @ (criteria.Q @ theta) / 2


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_value_gradient_and_hessian(shape, seed):
    criteria = random_criteria(seed)
    objective = objective_of(criteria, shape=shape)
    at = objective.evaluate(RHO)
    assert_allclose(at.value, naive(criteria, RHO), rtol=1e-12)
    assert_allclose(objective.value(RHO), at.value, rtol=1e-14)
    scale = np.abs(at.gradient).max()
    assert_allclose(at.gradient, differences(objective.value, RHO), atol=1e-7 * scale)
    steps = [naive(criteria, RHO + 1e-30j * e).imag / 1e-30 for e in np.eye(K)]
    assert_allclose(at.gradient, steps, atol=1e-12 * scale)
    hessian = objective.hessian(RHO)
    numeric = differences(lambda r: objective.evaluate(r).gradient, RHO)
    assert_allclose(hessian, numeric, atol=1e-8 * np.abs(hessian).max())
    chosen = np.array([0, 2])
    assert_allclose(objective.hessian(RHO, chosen), hessian[np.ix_(chosen, chosen)], atol=1e-13 * np.abs(hessian).max())


def test_both_routes_to_the_gradient_agree():
    criteria = random_criteria(4, p=200)
    one, other = (
        objective_of(criteria, method=m, shape="dense").evaluate(RHO) for m in (Implicit(), CholeskyBackprop())
    )
    assert_allclose(one.gradient, other.gradient, rtol=0, atol=1e-12 * np.abs(one.gradient).max())


def test_the_reverse_sweep_takes_a_dense_factor_where_a_band_would_cost_less():
    criteria = chain(60)
    problem, selection = empty_problem(criteria), QuadraticSelection()
    for method, shape in ((Implicit(), "banded"), (CholeskyBackprop(), "dense")):
        objective = selection.objective(problem, Partition.whole(np.empty(0, int), 0), Quadratic(), method)
        assert objective.formula.fits.systems[0].solver == shape


def chain(p, ends=False, seed=0) -> Criteria:
    """Smoothing of a series by second differences, its ends joined or not."""
    rng = np.random.default_rng(seed)
    D = sparse.diags_array([np.ones(p), -2 * np.ones(p - 1), np.ones(p - 1)], offsets=[0, 1, -1], shape=(p, p)).tolil()
    if ends:
        D[0, p - 1] = D[p - 1, 0] = 1.0
    y, held = rng.normal(size=p) + np.sin(np.arange(p) / 9), np.arange(p) % 3 == 0
    fit, score = np.diag(1.0 - held), np.diag(2.0 * held)
    b = [(1.0 - held) * y, np.zeros(p)]
    return criteria_of([fit + 1e-9 * np.eye(p), (D.T @ D).toarray()], b, score, -2.0 * held * y, float(held @ y**2))


@pytest.mark.parametrize("make", [chain, lambda p: chain(p, ends=True), lambda p: random_criteria(3, p, density=2 / p)])
def test_dense_banded_and_sparse_factors_give_the_same_numbers(make):
    criteria = make(150)
    training = Quadratic() if criteria.k == 1 else MIXED
    rho = RHO[: criteria.k]
    dense, *others = (objective_of(criteria, training, shape=shape) for shape in SHAPES)
    expected, hessian = dense.evaluate(rho), dense.hessian(rho)
    for objective in others:
        at = objective.evaluate(rho)
        assert_allclose(at.value, expected.value, rtol=1e-12)
        assert_allclose(at.gradient, expected.gradient, rtol=0, atol=1e-11 * np.abs(expected.gradient).max())
        assert_allclose(objective.hessian(rho), hessian, rtol=0, atol=1e-11 * np.abs(hessian).max())


@pytest.mark.parametrize("ends", [False, True])
def test_a_band_is_found_in_any_order(ends):
    criteria = chain(80, ends=ends)
    shuffled = np.random.default_rng(1).permutation(80)
    mixed = dataclasses.replace(
        criteria,
        matrices=tuple(csr_array(A[shuffled][:, shuffled]) for A in criteria.matrices),
        vectors=criteria.vectors[shuffled],
        Q=csr_array(criteria.Q[shuffled][:, shuffled]),
        e=criteria.e[shuffled],
    )
    one, other = (objective_of(c, Quadratic()) for c in (criteria, mixed))
    assert one.formula.fits.systems[0].solver == other.formula.fits.systems[0].solver == "banded"
    assert other.formula.fits.systems[0].assembly.width <= 6
    assert_allclose(other.evaluate(RHO[:1]).gradient, one.evaluate(RHO[:1]).gradient, rtol=1e-10)
    theta, again = (objective.formula.fits.at(RHO[:1])[0].theta for objective in (one, other))
    assert_allclose(again, theta[shuffled], rtol=1e-10)


def test_the_factorization_is_chosen_by_cost():
    assert cheapest(100, 99, 5050) == "dense"
    assert cheapest(1000, 20, 21_000) == "banded"
    assert cheapest(5000, 752, 10_000) == "sparse"
    tree = sparse.lil_array((3000, 3000))
    for i in range(1, 3000):  # every node hangs on an earlier one
        tree[i, np.random.default_rng(i).integers(i)] = -0.5
    A = csr_array(tree + tree.T)
    A = csr_array(A + sparse.diags_array(1.0 + np.abs(A).sum(axis=1)))
    assembly = Assembly.build((A,))
    assert assembly.shape == "sparse"
    factor = assembly.factor(np.ones(1))
    b = np.random.default_rng(0).normal(size=(3000, 2))
    assert_allclose(A @ factor.solve(b), b, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "H",
    [
        [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        [[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]],
        [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        [[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]],
        [[np.inf, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    ],
)
def test_what_is_not_positive_definite_has_no_factor(shape, H):
    assert Assembly.build((csr_array(np.array(H)),), shape).factor(np.ones(1)) is None


UNITS = {"initial": 1.0, "lower": 1e-6, "upper": 1e6}  # those of a matrix; of columns they would be their variances


@pytest.mark.parametrize(
    "penalty",
    [
        PerFeature(**UNITS, spread=None),
        QuadraticForms(
            forms=(Difference(name="line", order=2), Identity(name="all"), Banded(name="b", bands=((1.0,) * P,))),
            **UNITS,
            spread=None,
        ),
    ],
)
def test_ridge_written_as_matrices_is_ridge(penalty):
    problem = regression(50, P)
    rows = np.arange(50)
    selection, training = Holdout(fraction=0.3), Ridge(standardize=False, penalty=penalty)
    partition = selection.partition(rows, 50)
    ridge = selection.objective(problem, partition, training, Implicit())
    train, held = (partition.rows(blocks) for blocks in partition.splits[0])
    mean_x, mean_y = problem.X[train].mean(axis=0), problem.y[train].mean()
    X, y = problem.X[train] - mean_x, problem.y[train] - mean_y
    Z, t = problem.X[held] - mean_x, problem.y[held] - mean_y
    box, forms = penalty.matrices(problem.features)
    S = []
    for j in range(len(box.names)):
        one = np.zeros((P, P))
        forms.at(np.eye(len(box.names))[j]).add_to(one)
        S.append(one)
    zero = np.zeros(P)
    m = len(held)
    criteria = criteria_of(
        [X.T @ X / len(train), *S], [X.T @ y / len(train), *([zero] * len(S))],
        2.0 * Z.T @ Z / m, -2.0 * Z.T @ t / m, float(t @ t / m),
    )  # fmt: skip
    quadratic = objective_of(criteria, Quadratic())
    rho = np.random.default_rng(2).normal(size=len(S)) - 1.0
    one, other = ridge.evaluate(rho), quadratic.evaluate(rho)
    assert_allclose(other.value, one.value, rtol=1e-12)
    assert_allclose(other.gradient, one.gradient, rtol=0, atol=1e-12 * one.value)
    assert_allclose(quadratic.hessian(rho), ridge.hessian(rho), rtol=0, atol=1e-12 * one.value)
    plans = (
        (problem, Plan(training, selection, HypergradientAuto(), Newton(tolerance=1e-10))),
        (
            empty_problem(criteria),
            Plan(Quadratic(), QuadraticSelection(), HypergradientAuto(), Newton(tolerance=1e-10)),
        ),
    )
    (_, first), (_, second) = (run(*each) for each in plans)
    assert_allclose(second.best.best.value, first.best.best.value, rtol=1e-11)
    assert second.ended is first.ended


def plan(outer=None, training=None, method=None):
    return Plan(training or Quadratic(), QuadraticSelection(), method or HypergradientAuto(), outer or Newton())


def run(problem, the_plan, resume=None):
    prepared = prepare(problem, the_plan)
    *_, last = tune(prepared, resume)
    return prepared, last


@pytest.mark.unchecked
@pytest.mark.parametrize("outer", [Newton(starts=3), Lbfgs(starts=3, max_iterations=200)])
@pytest.mark.parametrize("method", [HypergradientAuto(), CholeskyBackprop()])
def test_tuning_with_certificates_and_resumed_anywhere(outer, method):
    problem = empty_problem(random_criteria(5))
    the_plan = plan(outer, MIXED, method)
    prepared = prepare(problem, the_plan)
    steps = list(tune(prepared))
    best = steps[-1].best
    assert steps[-1].ended in {Outcome.CONVERGED, Outcome.AT_BOUNDS}
    conclusion = conclude(prepared, best)
    assert conclusion.certificates.finite_difference_error < 1e-7
    assert conclusion.certificates.adjoint_residual < 1e-12
    assert conclusion.certificates.inner_gradient_norm < 1e-12
    assert conclusion.curvature.point in {"minimum", "flat"}
    assert conclusion.intervals is None
    theta = conclusion.model.coefficients
    f = np.append(1.0, prepared.objective.natural(best.best.rho))
    H = sum(x * A.toarray() for x, A in zip(f, problem.criteria.matrices, strict=True))
    assert_allclose(theta, np.linalg.solve(H, problem.criteria.vectors @ f), rtol=1e-10)
    for i in [i for i, step in enumerate(steps) if step.state is not None][::6]:
        rest = list(tune(prepare(problem, the_plan), steps[i].state))
        assert rest[-1].best.best.rho.tobytes() == best.best.rho.tobytes()
        assert [s.refused for s in rest[-1].starts] == [s.refused for s in steps[-1].starts]


def indefinite() -> Criteria:
    """`H = 1 + h`, and E falls towards h = -1, where theta is infinite, until it rises again just before."""
    return criteria_of([np.eye(2), np.eye(2)], [np.ones(2), np.zeros(2)], np.eye(2) * 0.01, -np.ones(2))


@pytest.mark.parametrize("outer", [Newton(), Lbfgs()])
def test_points_without_a_minimizer_are_turned_back_from(outer):
    """E is least at theta = 100, h = -0.99; from 1 the search oversteps h = -1, behind which H is negative."""
    training = Quadratic((Multiplier("h", "linear", 1.0, -5.0, 5.0),))
    prepared, last = run(empty_problem(indefinite()), plan(outer, training))
    assert last.best.refused > 0
    assert_allclose(prepared.objective.natural(last.best.best.rho), [-0.99], atol=1e-5)
    assert_allclose(last.best.best.value, -100.0, rtol=1e-6)
    assert last.ended is Outcome.CONVERGED


def test_a_start_without_a_minimizer_is_an_outcome():
    training = Quadratic((Multiplier("h", "linear", -2.0, -5.0, 5.0),))
    _, last = run(empty_problem(indefinite()), plan(training=training))
    assert last.ended is Outcome.INDEFINITE
    assert last.ended.is_failure


def test_a_perfect_fit_is_a_minimum_like_any_other():
    """E falls to zero inside the box: what it is measured by must not vanish with it."""
    target = 2.0 / 3.0
    criteria = criteria_of(
        [np.eye(1), np.eye(1)], [np.ones(1), np.zeros(1)], np.array([[2.0]]), np.array([-2.0 * target]), target**2
    )
    prepared, last = run(
        empty_problem(criteria), Plan(Quadratic(), QuadraticSelection(), HypergradientAuto(), Newton())
    )
    assert last.ended in {Outcome.CONVERGED, Outcome.STALLED}
    assert_allclose(prepared.objective.natural(last.best.best.rho), [0.5], rtol=1e-6)


def test_criteria_that_do_not_belong_together_are_refused():
    problem, table = empty_problem(random_criteria()), regression(20, 2)
    with pytest.raises(ValueError, match="needs what ridge does not have"):
        prepare(problem, Plan(Ridge(), QuadraticSelection(), HypergradientAuto(), Newton()))
    with pytest.raises(ValueError, match="scores no rows"):
        prepare(table, Plan(Ridge(), QuadraticSelection(), HypergradientAuto(), Newton()))
    with pytest.raises(ValueError, match="5 folds"):
        prepare(problem, Plan(Quadratic(), KFold(), HypergradientAuto(), Newton()))
    with pytest.raises(ValueError, match="2 multipliers for 3"):
        Quadratic(MIXED.multipliers[:2]).system(problem)
    with pytest.raises(ValueError, match="the name 'a'"):
        Quadratic((MIXED.multipliers[0],) * 3).system(problem)
    with pytest.raises(ValueError, match="must be positive on the scale log"):
        Multiplier("a", lower=0.0)


def test_products_of_many_matrices():
    criteria = random_criteria(9)
    system = SumSystem.build(criteria, np.ones(K, bool))
    V = np.random.default_rng(0).normal(size=(P, 2))
    for j, A in enumerate(criteria.matrices):
        assert_allclose(system.products(V)[j], A @ V)
        assert_allclose(system.contract_matrix(V @ V.T)[j], np.vdot(V @ V.T, A.toarray()))
