"""Hypergradients and hyper-Hessians of each training criterion, penalty, weight, score and solver, by differences."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.core.smooth.problems import CLASS_PENALTIES, PENALTIES, TRAINING, table
from tests.oracles import differences
from worker.core.hypergradient import Implicit
from worker.core.losses import SquaredError, scores_of
from worker.core.outer import Lbfgs
from worker.core.rows import design
from worker.core.rows.design import Design
from worker.core.search.plan import Plan, prepare
from worker.core.selection import (
    ApproximateLeaveOneOut,
    Holdout,
    KFold,
    LaplaceEvidence,
    LeaveOneOut,
    StratifiedKFold,
    WalkForward,
)
from worker.core.training import HuberRegression, Ridge
from worker.core.verdict.curvature import curvature
from worker.core.weights import ExponentialTime, SigmoidTime

SMOOTH = {"logistic", "multinomial", "poisson", "gamma"}
SELECTIONS = {
    "holdout": Holdout(fraction=0.3),
    "k_fold": KFold(folds=3),
    "walk_forward": WalkForward(initial=40, horizon=15),
    "approximate_leave_one_out": ApproximateLeaveOneOut(),
    "laplace_evidence": LaplaceEvidence(),
}


def objective_of(problem, training, selection):
    return prepare(problem, Plan(training, selection, Implicit(), Lbfgs())).objective


def point_of(objective, seed=1):
    """Somewhere inside the box."""
    box = objective.hyperparameters
    random = np.random.default_rng(seed)
    return np.where(box.log, random.uniform(-4.0, 0.0, len(box.names)), random.uniform(0.0, 0.5, len(box.names)))


def assert_derivatives(objective, rho, h=1e-2, *, gradient=1e-7, hessian=1e-6):
    """Along two random directions that mix all hyperparameters."""
    at = objective.evaluate(rho)
    assert at.failure is None
    unit = objective.unit(at.value)
    V = np.linalg.qr(np.random.default_rng(len(rho)).normal(size=(len(rho), min(2, len(rho)))))[0].T
    nowhere = np.zeros(len(V))
    slopes = differences(lambda t: objective.value(rho + t @ V), nowhere, h)
    assert_allclose(slopes, V @ at.gradient, rtol=gradient, atol=gradient * unit)
    if objective.has_hessian:
        measured = differences(lambda t: objective.evaluate(rho + t @ V).gradient, nowhere, h)
        assert_allclose(measured, V @ objective.hessian(rho), rtol=hessian, atol=hessian * unit)


def _covering():
    """Every combination, of which a quarter, every pair of penalty and selection among them, runs by default."""
    for number, (kind, (p, penalty), (s, selection)) in enumerate(
        itertools.product(TRAINING, enumerate(PENALTIES), enumerate(SELECTIONS))
    ):
        if (kind, selection) == ("squared_hinge", "laplace_evidence"):
            continue  # no likelihood: refused
        quick = (number // (len(PENALTIES) * len(SELECTIONS)) + p + s) % 4 == 0
        yield pytest.param(kind, penalty, selection, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("kind", "penalty", "selection"), list(_covering()))
def test_each_training_penalty_and_selection(kind, penalty, selection):
    training = TRAINING[kind](penalty=PENALTIES[penalty])
    problem = table(kind)
    objective = objective_of(problem, training, SELECTIONS[selection])
    # a loss with kinks in its slope: the step must not carry a row over one
    assert_derivatives(objective, point_of(objective), 1e-2 if kind in SMOOTH else 2e-5, hessian=1e-5)


@pytest.mark.unchecked
@pytest.mark.parametrize("solver", ["newton_cholesky", "newton_cg"])
def test_a_row_without_weight_trains_nothing_even_where_its_loss_overflows(solver):
    problem = dataclasses.replace(table("poisson"), scoring=np.ones(70))
    idle = np.arange(0, 70, 7)
    weights, X, clipped = problem.weights.copy(), problem.X.copy(), problem.X.copy()
    weights[idle], problem.scoring[idle] = 0.0, 0.0
    X[idle] = 1e4 * (-1.0) ** np.arange(10)[:, None]  # e^eta is infinite at one of two
    clipped[idle] = 0.0
    training = TRAINING["poisson"](penalty=PENALTIES["per_feature"], standardize=False, solver=solver)
    far, near = (
        objective_of(dataclasses.replace(problem, X=table, weights=weights), training, KFold(folds=3))
        for table in (X, clipped)
    )
    rho = point_of(near)
    expected = near.evaluate(rho)
    with np.errstate(over="ignore"):
        at = far.evaluate(rho)
    assert_allclose(at.value, expected.value, rtol=1e-12)
    assert_allclose(at.gradient, expected.gradient, rtol=1e-9)


@pytest.mark.parametrize("weights", [SigmoidTime(), ExponentialTime()])
@pytest.mark.parametrize("selection", ["walk_forward", "k_fold", "approximate_leave_one_out"])
@pytest.mark.parametrize("kind", ["logistic", "multinomial", "poisson"])
def test_example_weights_are_tuned_with_the_penalties(kind, selection, weights):
    training = TRAINING[kind](penalty=PENALTIES["per_feature"], weights=weights)
    objective = objective_of(table(kind), training, SELECTIONS[selection])
    assert_derivatives(objective, point_of(objective))


@pytest.mark.unchecked
@pytest.mark.parametrize("penalty", CLASS_PENALTIES)
@pytest.mark.parametrize("selection", ["k_fold", "approximate_leave_one_out", "laplace_evidence"])
def test_penalties_of_classes(penalty, selection):
    training = TRAINING["multinomial"](penalty=CLASS_PENALTIES[penalty])
    objective = objective_of(table("multinomial"), training, SELECTIONS[selection])
    assert_derivatives(objective, point_of(objective))


@pytest.mark.unchecked
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(
    ("kind", "score"), [(kind, score) for kind in TRAINING for score in scores_of(TRAINING[kind].predicts)]
)
def test_each_score(kind, score, intercept):
    problem, training = table(kind), TRAINING[kind](penalty=PENALTIES["per_feature"], intercept=intercept)
    folds = StratifiedKFold if problem.classes else KFold
    objective = objective_of(problem, training, folds(folds=2, loss=score()))
    assert_derivatives(objective, point_of(objective), 1e-2 if kind in SMOOTH else 2e-5, hessian=1e-5)


@pytest.mark.parametrize("selection", ["k_fold", "approximate_leave_one_out"])
def test_a_curvature_by_differences_is_that_of_the_hessian(selection):
    training = TRAINING["logistic"](penalty=PENALTIES["per_group"])
    objective = objective_of(table("logistic"), training, SELECTIONS[selection])
    rho = point_of(objective)
    at = objective.evaluate(rho)
    if objective.has_hessian:
        H = objective.hessian(rho)
    else:
        H = differences(lambda t: objective.evaluate(rho + t).gradient, np.zeros(2), 1e-2)
    objective = replace(objective, second=None)
    found = curvature(objective, at, 4)
    assert_allclose(found.smallest, np.linalg.eigvalsh(H / at.value)[0], rtol=1e-5, atol=1e-7)
    assert curvature(objective, at, 3) is None


@pytest.mark.unchecked
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("kind", ["logistic", "multinomial"])
def test_a_hessian_in_pieces_is_the_same(kind, sparse, monkeypatch):
    training = TRAINING[kind](penalty=PENALTIES["per_feature"])
    objective = objective_of(table(kind, sparse=sparse), training, KFold(folds=3))
    rho = point_of(objective)
    objective.evaluate(rho)
    whole = objective.hessian(rho)
    taken, along = [], Design.along
    monkeypatch.setattr(design, "HELD_PREDICTORS", 40)
    monkeypatch.setattr(Design, "along", lambda self, D: taken.append(D.shape[1]) or along(self, D))
    pieces = [
        V.size
        for _, V in objective.formula.fits.systems[0].design.pieces(
            np.ones((len(objective.formula.fits.at(rho)[0].theta), 5))
        )
    ]
    assert len(pieces) > 1
    assert max(pieces) <= 40
    assert_allclose(objective.hessian(rho), whole, rtol=1e-10, atol=1e-12 * np.abs(whole).max())
    assert max(taken) < len(rho)


@pytest.mark.unchecked
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("kind", TRAINING)
def test_conjugate_gradients_give_what_factors_give(kind, sparse):
    problem = table(kind, sparse=sparse)
    values = []
    for solver in ("newton_cholesky", "newton_cg"):
        training = TRAINING[kind](penalty=PENALTIES["per_group"], solver=solver)
        objective = objective_of(problem, training, KFold(folds=3))
        assert {system.solver for system in objective.formula.fits.systems} == {solver}
        rho = point_of(objective)
        at = objective.evaluate(rho)
        values.append((at.value, at.gradient, objective.hessian(rho)))
    for one, other in zip(*values, strict=True):
        assert_allclose(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("kind", TRAINING)
def test_sparse_rows_give_what_dense_rows_give(kind, copied, monkeypatch):
    monkeypatch.setattr("worker.core.rows.held.MAX_COPIED_BYTES", 10**9 if copied else 0)
    sparse = table(kind, sparse=True)
    dense = dataclasses.replace(sparse, X=sparse.X.toarray())
    training = TRAINING[kind](penalty=PENALTIES["per_feature"])
    one, other = (objective_of(problem, training, KFold(folds=3)) for problem in (sparse, dense))
    rho = point_of(one)
    a, b = one.evaluate(rho), other.evaluate(rho)
    assert_allclose(a.value, b.value, rtol=1e-11)
    assert_allclose(a.gradient, b.gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", TRAINING)
def test_rows_read_in_chunks_give_what_rows_in_memory_give(kind, monkeypatch):
    problem, training = table(kind), TRAINING[kind](penalty=PENALTIES["per_feature"])
    held = objective_of(problem, training, KFold(folds=3))
    monkeypatch.setattr("worker.core.training.generalized_linear.MAX_HELD_VALUES", 0)
    monkeypatch.setattr("worker.core.rows.design.CHUNK_VALUES", 70)
    read = objective_of(problem, training, KFold(folds=3))
    rho = point_of(held)
    a, b = held.evaluate(rho), read.evaluate(rho)
    assert_allclose(a.value, b.value, rtol=1e-12)
    assert_allclose(a.gradient, b.gradient, rtol=1e-10, atol=1e-13)


def test_approximate_leave_one_out_is_exact_for_squared_loss():
    problem = dataclasses.replace(table("huber"), offset=None)
    approximate = objective_of(
        problem,
        HuberRegression(penalty=PENALTIES["per_feature"], delta=1e6),
        ApproximateLeaveOneOut(loss=SquaredError()),
    )
    exact = objective_of(problem, Ridge(penalty=PENALTIES["per_feature"]), LeaveOneOut())
    rho = point_of(exact)
    a, b = approximate.evaluate(rho), exact.evaluate(rho)
    assert_allclose(a.value, b.value, rtol=1e-12)
    assert_allclose(a.gradient, b.gradient, rtol=1e-10, atol=1e-13)


@pytest.mark.unchecked
@pytest.mark.parametrize("kind", sorted(SMOOTH))
def test_approximate_leave_one_out_is_near_n_refits(kind):
    problem, training = table(kind, n=60), TRAINING[kind](penalty=PENALTIES["shared"], standardize=False)
    objective = objective_of(problem, training, ApproximateLeaveOneOut())
    rho = np.array([-2.0])
    total = problem.weights.sum()
    losses = []
    for i in range(60):
        rest = np.setdiff1d(np.arange(60), i)
        system = training.refit(problem, rest)
        # the mean loss of the others: the same total penalty
        fit = system.fit(np.exp(rho) * total / problem.weights[rest].sum())
        intercept, slopes = system.coefficients(fit.theta)
        eta = (intercept + problem.X[[i]] @ slopes.T + problem.offset[i]).reshape(1, -1)
        losses.append(training.selection_loss(problem, None, rest).at(problem.y[[i]], eta, np.ones(1)).value)
    exact = problem.weights @ losses / total
    at = objective.evaluate(rho)
    training_loss = (
        problem.weights
        @ training.selection_loss(problem, None, np.arange(60))
        .at(problem.y, objective.formula.fits.at(rho)[0].at.eta, np.ones(60))
        .losses
        / total
    )
    assert abs(at.value - exact) < 0.1 * (exact - training_loss)


def test_laplace_evidence_is_its_definition():
    problem = dataclasses.replace(table("logistic", n=40), offset=None)
    training = TRAINING["logistic"](penalty=PENALTIES["per_feature"], standardize=False)
    objective = objective_of(problem, training, LaplaceEvidence())
    rho = point_of(objective)
    theta = objective.formula.fits.at(rho)[0].theta
    lam, n = np.exp(rho), problem.weights.sum()
    Z = np.column_stack([np.ones(40), problem.X - problem.weights @ problem.X / n])
    eta = Z @ theta
    mu = 1 / (1 + np.exp(-eta))
    posterior = problem.weights @ (np.logaddexp(0, eta) - problem.y * eta) + n * (lam @ theta[1:] ** 2) / 2
    H = (Z.T * (problem.weights * mu * (1 - mu))) @ Z + n * np.diag(np.append(0.0, lam))
    expected = posterior - np.log(n * lam).sum() / 2 + np.linalg.slogdet(H)[1] / 2
    expected -= np.log(2.0 * np.pi) / 2  # of the flat prior of the intercept
    assert_allclose(objective.value(rho), expected, rtol=1e-12)
