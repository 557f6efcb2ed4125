"""Row tangents against the gradient of J, which is their sum, and against differences of predictors."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_array

from tests.core.conftest import grouped, regression
from tests.core.smooth.problems import CLASS_PENALTIES, PENALTIES, TRAINING, table
from tests.oracles import differences
from worker.core.hypergradient import HypergradientAuto
from worker.core.kernels import (
    Linear,
    Matern,
    Periodic,
    Polynomial,
    Product,
    RationalQuadratic,
    Rbf,
    Sum,
    WidthPerFeature,
    WidthPerGroup,
)
from worker.core.losses import Huber, PlattLogLoss, SmoothedAuc
from worker.core.objective import row_tangents as module
from worker.core.objective.leave_one_out import RefittedRows
from worker.core.outer import OuterAuto
from worker.core.penalties import PerCoefficient, PerFeature, PerGroup, Shared
from worker.core.penalties.splines import Spline
from worker.core.records import Outcome
from worker.core.rows.problem import Imputation, Problem
from worker.core.search.plan import Plan, prepare
from worker.core.selection import ApproximateLeaveOneOut, Holdout, KFold, LeaveOneOut
from worker.core.training import KernelLogistic, KernelRidge, KernelSvm, LogisticRegression, Ridge
from worker.core.training.kernel_machines import KernelPenalty, Landmarks
from worker.core.training.ridge import MIN_TRIALS_FOR_SPECTRAL, RidgeOfMoments
from worker.core.weights import SigmoidTime


def prepared(training, problem, selection=None, **settings):
    plan = Plan(training, selection or KFold(folds=3), HypergradientAuto(), OuterAuto(**settings))
    return prepare(problem, plan)


def point(job):
    """A point near the initial one, where nothing is symmetric."""
    box = job.objective.hyperparameters
    rho = box.initial + 0.4 * np.random.default_rng(3).normal(size=len(box.names))
    return np.clip(rho, box.lower + 0.1, box.upper - 0.1)


def rows_of(job, rho, chosen=None):
    found = job.objective.row_tangents(job.problem, job.partition, rho, chosen)
    assert found is not None
    return list(found)


def joined(chunks, name):
    return np.concatenate([getattr(chunk, name) for chunk in chunks])


def assert_tangents(job, h=1e-2, rtol=1e-7, counted=None):
    """Each identity that row tangents have; the score need not be smooth beyond the first derivative."""
    rho, objective = point(job), job.objective
    at, chunks = objective.evaluate(rho), rows_of(job, rho)
    assert at.failure is None
    weights, D = joined(chunks, "weights"), joined(chunks, "D")
    losses = np.concatenate([chunk.losses(chunk.eta) for chunk in chunks])
    slopes = np.concatenate([chunk.slopes(chunk.eta) for chunk in chunks])
    scores = objective.row_scores(job.problem, job.partition, rho)
    assert_allclose(weights, scores.weights)
    assert_allclose(weights.sum(), 1.0)
    assert_allclose(losses, scores.losses, rtol=1e-9, atol=1e-12 * np.abs(losses).max())
    assert_allclose(weights @ losses, at.value, rtol=1e-10)
    terms = weights[:, None, None] * slopes[:, :, None] * D
    size = np.abs(terms).sum(axis=(0, 1)).max()
    assert_allclose(terms.sum(axis=(0, 1)), at.gradient, atol=1e-10 * size)
    assert (joined(chunks, "y") == job.problem.y[joined(chunks, "rows")]).all()
    expected = [row for _, blocks in job.partition.splits for row in job.partition.rows(blocks)]
    assert joined(chunks, "rows").tolist() == (expected if counted is None else counted.tolist())

    direction = np.random.default_rng(6).normal(size=len(rho))
    direction /= np.linalg.norm(direction)

    def eta(t):
        return joined(rows_of(job, rho + t[0] * direction, np.empty(0, int)), "eta")

    assert_allclose(D @ direction, differences(eta, np.zeros(1), h)[0], atol=rtol * np.abs(D).max())
    curvatures = np.concatenate([chunk.curvatures(chunk.eta) for chunk in chunks])
    step = 1e-6 * max(np.abs(joined(chunks, "eta")).max(), 1.0)
    for a in range(D.shape[1]):
        e = step * np.eye(D.shape[1])[a]
        bent = [(chunk.slopes(chunk.eta + e) - chunk.slopes(chunk.eta - e)) / (2 * step) for chunk in chunks]
        assert_allclose(curvatures[:, :, a], np.concatenate(bent), atol=1e-4 * np.abs(curvatures).max())


def assert_chunks_do_not_matter(job, monkeypatch):
    rho = point(job)
    chosen = np.arange(len(rho))[::2]
    whole = rows_of(job, rho)
    monkeypatch.setattr(module, "MOST_VALUES", 5 * len(chosen))
    parts = rows_of(job, rho, chosen)
    assert len(parts) > len(whole)
    assert max(part.D.size for part in parts) <= 5 * len(chosen)
    for name in ("rows", "y", "weights"):
        assert (joined(parts, name) == joined(whole, name)).all()
    assert_allclose(joined(parts, "eta"), joined(whole, "eta"), rtol=1e-11, atol=1e-12)
    D = joined(whole, "D")[:, :, chosen]
    assert_allclose(joined(parts, "D"), D, atol=1e-11 * np.abs(D).max())


def mostly_slow(*factors):
    """All combinations, of which each entry of the largest factor is in one that is not slow."""
    longest = max(map(len, factors))
    quick = {tuple(list(factor)[i % len(factor)] for factor in factors) for i in range(longest)}
    return [
        pytest.param(*combination, marks=() if combination in quick else pytest.mark.slow)
        for combination in itertools.product(*factors)
    ]


@pytest.mark.parametrize(("kind", "penalty"), mostly_slow(TRAINING, PENALTIES))
def test_every_generalized_linear_model_with_every_penalty(kind, penalty):
    problem = table(kind, 40, sparse=penalty == "per_group")
    job = prepared(TRAINING[kind](penalty=PENALTIES[penalty]), problem)
    if kind in ("huber", "squared_hinge"):  # their curvature jumps: a short step crosses no jump here
        assert_tangents(job, h=1e-4, rtol=1e-6)
    else:
        assert_tangents(job)


@pytest.mark.parametrize("penalty", CLASS_PENALTIES)
def test_penalties_of_classes(penalty):
    assert_tangents(prepared(TRAINING["multinomial"](penalty=CLASS_PENALTIES[penalty]), table("multinomial", 40)))


@pytest.mark.parametrize("solver", ["newton_cholesky", "newton_cg"])
@pytest.mark.parametrize("kind", ["logistic", "multinomial"])
def test_tuned_weights_of_classes(kind, solver):
    training = TRAINING[kind](weights=SigmoidTime(), solver=solver, standardize=False)
    assert_tangents(prepared(training, table(kind, 40)), rtol=1e-6)


KERNELS = {
    "matern, groups": Matern(nu="3/2", widths=WidthPerGroup(groups={"low": ("a", "c"), "high": ("b", "d")})),
    "sum": Sum(
        terms=(
            RationalQuadratic(widths=WidthPerFeature()),
            Linear(),
            Product(factors=(Polynomial(features=("a",)), Periodic(features=("d",))), name="both"),
        )
    ),
}
MACHINES = {
    "ridge": KernelRidge,
    "svm": KernelSvm,
    "huberized": lambda **settings: KernelSvm(hinge="huberized", **settings),
    "logistic": KernelLogistic,
}

HOW = ("exact", "landmarks without intercept", "without intercept", "landmarks")


def machine(training, kernel, selection=None, **settings):
    made = MACHINES[training](kernel=KERNELS[kernel], penalty=KernelPenalty(initial=0.05), **settings)
    return prepared(made, KernelRidge.example() if training == "ridge" else KernelSvm.example(), selection)


@pytest.mark.parametrize(("training", "how", "kernel"), mostly_slow(MACHINES, HOW, KERNELS))
def test_every_machine(training, how, kernel):
    landmarks = Landmarks(count=10, nugget=1e-3) if "landmarks" in how else None
    job = machine(training, kernel, landmarks=landmarks, intercept="without" not in how)
    assert_tangents(job, h=1e-4, rtol=1e-6)


@pytest.mark.parametrize("landmarks", [None, Landmarks(count=6)], ids=["exact", "landmarks"])
def test_a_machine_without_a_curved_row(landmarks):
    """A large penalty: every row is on the straight part of the hinge, and the intercept follows two of them."""
    y = np.array([0.0, 1, 0, 1, 0, 1, 0, 1])
    problem = Problem(np.random.default_rng(0).normal(size=(8, 2)), y, ("a", "b"), classes=("0", "1"))
    training = KernelSvm(
        kernel=Rbf(widths=WidthPerFeature()),
        hinge="huberized",
        penalty=KernelPenalty(initial=400.0, upper=1e4),
        landmarks=landmarks,
    )
    job = prepared(training, problem, Holdout(validation_rows=(0, 1)))
    (fit,) = job.objective.formula.fits.each(point(job))
    assert not fit.minimum.D.any()
    assert fit.minimum.held.any()
    assert_tangents(job, h=1e-4, rtol=1e-6)


@pytest.mark.parametrize("landmarks", [None, Landmarks(count=10)], ids=["exact", "landmarks"])
def test_chunks_of_machines(landmarks, monkeypatch):
    assert_chunks_do_not_matter(machine("svm", "sum", landmarks=landmarks), monkeypatch)


class RidgeOfRows(Ridge):
    """Ridge that factors rows at any cost."""

    __slots__ = ()
    arithmetic = "rows"


def numbers(n=40, p=4, **roles):
    problem = regression(n, p)
    return replace(problem, time=np.arange(n) + 0.0, weights=np.random.default_rng(4).uniform(0.5, 2.0, n), **roles)


def with_missing_values(problem):
    X = problem.X.copy()
    X[::5, 1] = X[1::7, 2] = np.nan
    return replace(problem, X=X, imputation=Imputation(np.array([1, 2]), ("mean", "median"), np.zeros(2)))


def sparse(problem):
    kept = np.random.default_rng(5).random(problem.X.shape) < 0.5
    return replace(problem, X=csr_array(np.where(kept, problem.X, 0.0)))


LONG = {"starts": MIN_TRIALS_FOR_SPECTRAL}
RIDGE = {
    "primal": lambda: prepared(Ridge(penalty=PerFeature()), numbers()),
    "orthogonal": lambda: prepared(RidgeOfRows(penalty=PerFeature()), numbers()),
    "spectral": lambda: prepared(Ridge(penalty=Shared()), numbers(), **LONG),
    "dual": lambda: prepared(Ridge(penalty=grouped(numbers(20, 40))), numbers(20, 40)),
    "primal, of many rows": lambda: prepared(Ridge(penalty=PerFeature()), numbers(2000, 8)),
    "without intercept": lambda: prepared(Ridge(intercept=False, standardize=False), numbers()),
    "weights": lambda: prepared(Ridge(weights=SigmoidTime()), numbers()),
    "weights, no intercept": lambda: prepared(Ridge(intercept=False, weights=SigmoidTime()), numbers()),
    "missing values": lambda: prepared(Ridge(penalty=PerFeature()), with_missing_values(numbers())),
    "splines": lambda: prepared(Ridge(splines=(Spline(feature="x1", basis=6),)), with_missing_values(numbers())),
    "sparse": lambda: prepared(Ridge(penalty=PerFeature()), sparse(numbers())),
    "sparse, dual": lambda: prepared(Ridge(penalty=PerFeature()), sparse(numbers(20, 40))),
    "huber": lambda: prepared(Ridge(), numbers(), Holdout(fraction=0.4, loss=Huber(delta=5.0))),
    "weighted splits": lambda: prepared(Ridge(), numbers(), KFold(folds=3, split_weights=(0.5, 2.0, 0.0))),
}


@pytest.mark.parametrize("name", RIDGE)
def test_ridge_by_every_solver(name):
    job = RIDGE[name]()
    if name in ("primal", "orthogonal", "spectral", "dual"):
        assert job.objective.solver == name
    assert_tangents(job)


@pytest.mark.parametrize("name", ["primal", "sparse", "missing values"])
def test_chunks_of_least_squares(name, monkeypatch):
    assert_chunks_do_not_matter(RIDGE[name](), monkeypatch)


@pytest.mark.parametrize("kind", ["multinomial", "poisson"])
def test_chunks_of_iterative_training(kind, monkeypatch):
    job = prepared(TRAINING[kind](penalty=PerFeature()), table(kind, 40, sparse=kind == "poisson"))
    assert_chunks_do_not_matter(job, monkeypatch)


SCORING = np.arange(40) % 3 + 0.0
LEFT_OUT = {
    "primal": lambda: prepared(Ridge(penalty=PerFeature()), numbers(scoring=SCORING), LeaveOneOut()),
    "dual": lambda: prepared(Ridge(penalty=grouped(numbers(20, 40))), numbers(20, 40), LeaveOneOut()),
    "without intercept": lambda: prepared(Ridge(intercept=False), with_missing_values(numbers()), LeaveOneOut()),
    "weights": lambda: prepared(Ridge(weights=SigmoidTime()), numbers(), LeaveOneOut(loss=Huber(delta=5.0))),
    "kernel": lambda: machine("ridge", "sum", selection=LeaveOneOut()),
    "kernel without intercept": lambda: machine("ridge", "matern, groups", selection=LeaveOneOut(), intercept=False),
    "classes": lambda: left_out("multinomial", PerCoefficient()),
    "classes, more columns": lambda: left_out("multinomial", PerFeature(), more=40),
    "logistic, more columns": lambda: left_out("logistic", PENALTIES["per_group"], more=40),
    "weights of counts": lambda: left_out("poisson", PENALTIES["quadratic_forms"], weights=SigmoidTime()),
    "weights of classes": lambda: left_out("multinomial", PerFeature(), weights=SigmoidTime()),
}


def left_out(kind, penalty, more=0, **settings):
    problem = table(kind, 40)
    if more:
        X = np.hstack([problem.X, np.random.default_rng(7).normal(size=(40, more))])
        problem = replace(problem, X=X, features=(*problem.features, *(f"x{j}" for j in range(more))))
        if isinstance(penalty, PerGroup):
            penalty = PerGroup(groups={**penalty.groups, "more": problem.features[-more:]})
    return prepared(TRAINING[kind](penalty=penalty, **settings), problem, ApproximateLeaveOneOut())


@pytest.mark.parametrize("name", LEFT_OUT)
def test_predictors_without_the_row(name):
    assert_tangents(LEFT_OUT[name](), h=3e-3, rtol=1e-6)


def test_refits_without_each_row():
    """A column far from zero without an intercept: the closed form would lose digits, and rows are left out one by one.

    Rows of weight zero are not among the scores.
    """
    problem = numbers(14, scoring=np.arange(14) % 3 + 0.0)
    X = problem.X + np.array([0.0, 1e5, 0.0, 0.0])
    job = prepared(Ridge(intercept=False, standardize=False), replace(problem, X=X), LeaveOneOut())
    assert isinstance(job.objective.formula, RefittedRows)
    assert_tangents(job, rtol=1e-5, counted=np.flatnonzero(problem.scoring))


@pytest.mark.parametrize("name", ["primal", "kernel", "classes"])
def test_chunks_of_closed_forms(name, monkeypatch):
    assert_chunks_do_not_matter(LEFT_OUT[name](), monkeypatch)


@pytest.mark.parametrize("loss", [SmoothedAuc(), PlattLogLoss()], ids=lambda loss: loss.kind)
def test_scores_of_all_rows_together_have_none(loss):
    problem = replace(table("squared_hinge", 40), offset=None)
    job = prepared(KernelSvm(kernel=Rbf()), problem, KFold(folds=3, loss=loss))
    assert job.objective.row_tangents(job.problem, job.partition, point(job)) is None


def test_singular_training_has_none():
    problem = numbers()
    X = np.hstack([problem.X, problem.X])
    problem = replace(problem, X=X, features=tuple(f"x{j}" for j in range(X.shape[1])))
    job = prepared(RidgeOfMoments(penalty=PerFeature(lower=1e-40)), problem)
    rho = job.objective.hyperparameters.lower
    assert job.objective.evaluate(rho).failure is Outcome.SINGULAR
    assert job.objective.row_tangents(job.problem, job.partition, rho) is None


def test_the_next_fits_do_not_depend_on_them():
    """The tangents of a search at an anchor predict its next fits; those of rows leave the anchor alone."""
    job = prepared(LogisticRegression(penalty=PerFeature()), table("logistic", 40))
    rho = point(job)
    job.objective.evaluate(rho)
    before = job.objective.memory()
    rows_of(job, rho)
    after = job.objective.memory()
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)
