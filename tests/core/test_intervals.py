"""Intervals by the sandwich, and what is said of points that are not stationary."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.core.conftest import regression
from tests.core.smooth.problems import table
from worker.core.hypergradient import HypergradientAuto
from worker.core.objective import sandwich
from worker.core.objective.clustered import (
    deviations_in_interval,
)
from worker.core.objective.prior import with_prior
from worker.core.objective.sandwich import GradientSums
from worker.core.objective.tied import tied
from worker.core.outer import Hoag, Inexact, Lbfgs, Newton
from worker.core.penalties import PerClass, PerFeature, Shared
from worker.core.penalties.splines import Spline
from worker.core.records import Outcome
from worker.core.rows.problem import Problem
from worker.core.search.descents import Descents
from worker.core.search.plan import Plan, prepare
from worker.core.search.tune import tune
from worker.core.selection import (
    ApproximateLeaveOneOut,
    Evidence,
    GeneralizedCV,
    KFold,
    LaplaceEvidence,
    LeaveOneOut,
    WalkForward,
)
from worker.core.training import (
    KernelRidge,
    KernelSvm,
    LogisticRegression,
    MultinomialRegression,
    PoissonRegression,
    Ridge,
)
from worker.core.verdict.conclude import conclude

pytestmark = pytest.mark.unchecked


def plan(training, selection, outer=None, **settings):
    return Plan(training, selection, HypergradientAuto(), outer or Lbfgs(), **settings)


def end_of(prepared):
    *_, last = tune(prepared)
    return last


def test_the_covariance_of_gradients_is_that_of_independent_clusters(monkeypatch):
    rng = np.random.default_rng(3)
    g, labels, w = rng.normal(size=(50, 3)), rng.integers(0, 8, size=50), rng.integers(0, 3, size=50) / 50.0
    w /= w.sum()
    sums = GradientSums(8, 3)
    for part in np.array_split(np.arange(50), 4):
        sums.add(g[part], w[part], labels[part])
    mean = w @ g
    assert_allclose(sums.mean, mean, rtol=1e-12)
    V = np.zeros((3, 3))
    for label in range(8):
        part = sum(w[i] * (g[i] - mean) for i in range(50) if labels[i] == label)
        V += np.outer(part, part) * 8 / 7
    assert sums.clusters == 8
    assert_allclose(sums.covariance(), V, rtol=1e-12)
    H = np.diag([1.0, 2.0, 3.0]) + 0.3
    inverse = np.linalg.inv(H)
    assert_allclose(sandwich.standard_deviations(inverse, V), np.sqrt(np.diag(inverse @ V @ inverse)), rtol=1e-12)


@pytest.mark.parametrize(("training", "selection", "spread"), [
    (Ridge(penalty=PerFeature()), KFold(folds=3), None),
    (Ridge(penalty=PerFeature()), KFold(folds=3, seed=1), 0.5),
    (Ridge(penalty=PerFeature()), KFold(folds=3), 0.0),
    (Ridge(penalty=PerFeature()), WalkForward(initial=30, horizon=10), None),
    (LogisticRegression(penalty=Shared()), KFold(folds=2), None),
    (MultinomialRegression(penalty=PerClass()), KFold(folds=2), 0.5),
], ids=lambda one: getattr(one, "kind", str(one)))  # fmt: skip
def test_an_interval_is_how_the_minimizer_moves_with_the_weights_of_rows(training, selection, spread):
    """Infinitesimal jackknife: the minimizer after one cluster of rows has a little more weight, tuned again.

    It has more where it trains and where it is scored. Of rows that do both, pairs would count twice. Of J itself, of J
    with a hyper-prior, which more weight does not move, and with one value for all (zero).
    """
    problem = replace(table(training.kind, n=80, seed=1), weights=None)
    problem = replace(problem, offset=None, scoring=np.ones(80), groups=np.arange(80) // 4)
    box = {"lower": 1e-9, "upper": 1e9, "initial": 0.1, "spread": spread or (None if spread is None else 0.5)}
    if training.penalty.kind == "shared":
        del box["spread"]
    training = replace(training, standardize=False, penalty=replace(training.penalty, **box))
    prepared = prepare(problem, plan(training, selection, Newton(tolerance=1e-10, max_iterations=500)))
    last = end_of(prepared)
    best = last.best if spread != 0.0 else last.starts[0]
    assert best.spread == spread
    descent = Descents(prepared).of(best, last.starts)
    conclusion = conclude(prepared, best, descent)
    rho, free = descent.descended(best.best).rho, conclusion.curvature.free
    moves, clusters = [], prepared.clusters
    scored = np.unique(np.concatenate([prepared.partition.rows(rows) for _, rows in prepared.partition.splits]))
    trained = np.unique(np.concatenate([prepared.partition.rows(rows) for rows, _ in prepared.partition.splits]))
    for label in np.unique(clusters[prepared.partition.used]):
        weights = np.ones(80)
        weights[clusters == label] += 1e-4
        objective = prepare(replace(problem, weights=weights, scoring=weights), prepared.plan).objective
        if descent.prior is not None:
            objective = with_prior(objective, descent.prior)
        if descent.tie is not None:
            objective = tied(objective, descent.tie)
        here = rho.copy()
        for _ in range(3):
            here[free] -= np.linalg.solve(objective.hessian(here, free), objective.evaluate(here).gradient[free])
        moves.append((here - rho)[free] / 1e-4)
    m, overlap = len(np.unique(clusters[scored])), np.isin(scored, trained).mean()
    squares = np.sum(np.square(moves), axis=0) * m / (m - 1) * (1 - overlap / 2)
    expected = np.sqrt(squares) * deviations_in_interval(m)
    widths = np.full(len(rho), np.nan)
    widths[free] = expected
    low, high = (np.log(end) for end in conclusion.intervals)
    inside = np.isfinite(low) & (low > np.log(1e-8)) & (high < np.log(1e8))
    assert inside.any()
    widths = widths if descent.tie is None else widths[descent.tie.to]
    assert_allclose(((high - low) / 2)[inside], widths[inside], rtol=1e-2)


def searches():
    """Ten jobs that differ in training, selection and optimizer, each with a start far from its minimum."""
    far = {"initial": 1e-4, "lower": 1e-8, "upper": 1e4}
    each = far | {"spread": None}
    linear, kernels = regression(60, 4), regression(50, 2)
    counts, classes, three = (
        replace(table(kind, n=80), offset=None) for kind in ("poisson", "logistic", "multinomial")
    )
    return [
        (linear, Ridge(penalty=PerFeature(**each)), KFold(), Newton()),
        (linear, Ridge(penalty=PerFeature(**each)), LeaveOneOut(), Lbfgs()),
        (linear, Ridge(penalty=Shared(**far)), GeneralizedCV(), Newton()),
        (linear, Ridge(penalty=PerFeature(**each)), Evidence(), Newton()),
        (linear, Ridge(penalty=Shared(**far)), WalkForward(initial=20, horizon=5), Lbfgs()),
        (linear, Ridge(penalty=Shared(**far), splines=(Spline(feature="x1"),)), KFold(), Newton()),
        (counts, PoissonRegression(penalty=Shared(**far)), KFold(folds=2), Inexact()),
        (classes, LogisticRegression(penalty=PerFeature(**each)), LaplaceEvidence(), Lbfgs()),
        (three, MultinomialRegression(penalty=Shared(**far)), KFold(), Hoag()),
        (kernels, KernelRidge(), KFold(), Lbfgs()),
    ]


@pytest.mark.parametrize("job", range(10))
def test_a_search_that_was_stopped_early_has_no_minimum(job):
    problem, training, selection, outer = searches()[job]
    short = prepare(problem, plan(training, selection, replace(outer, max_iterations=1)))
    stopped = end_of(short)
    assert stopped.ended is Outcome.MAX_ITERATIONS
    early = conclude(short, stopped.best)
    assert early.curvature is None
    assert early.intervals is None
    whole = prepare(problem, plan(training, selection, replace(outer, max_iterations=2000)))
    last = end_of(whole)
    assert last.ended in {Outcome.CONVERGED, Outcome.AT_BOUNDS}
    assert conclude(whole, last.best).curvature.point in {"minimum", "flat"}


@pytest.mark.parametrize("outer", [Newton(), Lbfgs()], ids=lambda one: one.kind)
def test_no_point_of_a_path_is_a_minimum_unless_its_own_descent_has_ended(outer):
    """With a hyper-prior the gradient of J does not vanish: that of what was descended does."""
    problem, training = regression(60, 4), Ridge(penalty=PerFeature(initial=1e-4, lower=1e-8, upper=1e4))
    for limit in (1, 2000):
        prepared = prepare(problem, plan(training, KFold(), replace(outer, max_iterations=limit)))
        last = end_of(prepared)
        assert len({start.spread for start in last.starts}) == 3
        shapes = [
            conclude(prepared, start, Descents(prepared).of(start, last.starts)).curvature for start in last.starts
        ]
        stopped = [start.outcome is Outcome.MAX_ITERATIONS for start in last.starts]
        assert stopped[0] == (limit == 1)
        for shape, early in zip(shapes, stopped, strict=True):
            assert (shape is None) if early else shape.point in {"minimum", "flat"}


def test_a_stationary_point_is_one_whatever_ended_the_search():
    """The target value is met at the minimum itself: the gradient says so, the stop reason does not."""
    problem = regression(60, 4)
    first = end_of(prepare(problem, plan(Ridge(), KFold(), Newton())))
    prepared = prepare(problem, plan(Ridge(), KFold(), Newton(), target_value=first.best.best.value))
    last = end_of(prepared)
    assert last.ended is Outcome.TARGET_VALUE
    assert conclude(prepared, last.best).curvature.point == "minimum"
    loose = prepare(problem, plan(Ridge(), KFold(), Newton(), target_value=1.001 * first.best.best.value))
    assert conclude(loose, end_of(loose).best).curvature is None


def test_hyperparameters_that_do_nothing_have_no_interval():
    problem = regression(60, 3)
    problem = replace(problem, X=problem.X * [1.0, 1.0, 0.0])
    prepared = prepare(problem, plan(Ridge(penalty=PerFeature(spread=None)), KFold(), Newton()))
    conclusion = conclude(prepared, end_of(prepared).best)
    assert conclusion.curvature.point == "flat"
    assert np.isnan([end[2] for end in conclusion.intervals]).all()
    assert np.isfinite([end[1] for end in conclusion.intervals]).all()


@pytest.mark.parametrize(("training", "selection", "kind"), [
    (Ridge(), LeaveOneOut(), "ridge"),
    (Ridge(), GeneralizedCV(), "ridge"),
    (PoissonRegression(), ApproximateLeaveOneOut(), "poisson"),
], ids=["leave_one_out", "generalized_cv", "approximate"])  # fmt: skip
def test_without_gradients_of_rows_there_is_no_interval_of_another_kind(training, selection, kind):
    """Nor one by the rise of J, which is many times too wide."""
    prepared = prepare(replace(table(kind), offset=None), plan(training, selection, Lbfgs()))
    last = end_of(prepared)
    conclusion = conclude(prepared, last.best)
    without = prepared.objective.row_tangents(prepared.problem, prepared.partition, last.best.best.rho) is None
    assert (conclusion.intervals is None) == without


@pytest.mark.slow
def test_kernel_svm_at_a_corner_is_judged_by_all_gradients_around_it():
    problem = KernelSvm.example()
    prepared = prepare(problem, plan(KernelSvm(), KFold(folds=3), Lbfgs()))
    *_, last = tune(prepared)
    assert last.ended in {Outcome.CONVERGED, Outcome.AT_BOUNDS}
    assert last.best.gradient_norm <= prepared.outer.tolerance
    conclude(prepared, last.best)


def test_a_minimum_at_the_floor_of_the_prior_has_intervals():
    """The second derivative of the prior jumps where its centre leaves the floor, which values of J nearby show."""
    rng = np.random.default_rng(16)
    X = rng.normal(size=(100, 6))
    y = X @ (rng.normal(size=6) * (rng.random(6) < 0.4)) + rng.normal(size=100)
    problem = Problem(X, y, tuple("abcdef"))
    job = prepare(problem, plan(Ridge(penalty=PerFeature(spread=0.5)), KFold(seed=16), Newton()))
    *_, last = tune(job)
    descent = Descents(job).of(last.best, last.starts)
    ((_, held),) = (one.deviations(last.best.best.rho) for one in descent.prior.families)
    assert held
    concluded = conclude(job, last.best, descent)
    assert concluded.curvature.point == "minimum"
    assert np.isfinite(concluded.intervals).all()
