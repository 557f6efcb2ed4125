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
from worker.core.objective.sandwich import GradientSums
from worker.core.outer import Hoag, Inexact, Lbfgs, Newton
from worker.core.penalties import PerFeature, Shared
from worker.core.penalties.splines import Spline
from worker.core.records import Outcome
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


@pytest.mark.parametrize(("training", "selection"), [
    (Ridge(penalty=PerFeature()), KFold(folds=3)),
    (Ridge(penalty=PerFeature()), WalkForward(initial=30, horizon=10)),
    (LogisticRegression(penalty=PerFeature()), KFold(folds=3)),
    (MultinomialRegression(), KFold(folds=2)),
], ids=lambda one: one.kind)  # fmt: skip
def test_an_interval_is_how_the_minimizer_moves_with_the_weights_of_rows(training, selection):
    """Infinitesimal jackknife: the minimizer after one cluster of rows has a little more weight, tuned again."""
    problem = replace(table(training.kind, n=80, seed=1), weights=None)
    problem = replace(problem, offset=None, scoring=np.ones(80), groups=np.arange(80) // 4)
    box = {"lower": 1e-9, "upper": 1e9, "initial": 0.1}
    training = replace(training, penalty=replace(training.penalty, **box))
    prepared = prepare(problem, plan(training, selection, Newton(tolerance=1e-12)))
    last = end_of(prepared)
    conclusion = conclude(prepared, last.best)
    rho, free = last.best.best.rho, conclusion.curvature.free
    clusters = selection.clusters(problem, prepared.partition)
    scored = np.unique(np.concatenate([prepared.partition.rows(rows) for _, rows in prepared.partition.splits]))
    moves, labels = [], np.unique(clusters[scored])
    for label in labels:
        changed = np.ones(80)
        changed[clusters == label] += 1e-4
        objective = prepare(replace(problem, scoring=changed), plan(training, selection, Newton())).objective
        here = rho.copy()
        for _ in range(4):
            here[free] -= np.linalg.solve(objective.hessian(here, free), objective.evaluate(here).gradient[free])
        moves.append((here - rho)[free] / 1e-4)
    m = len(labels)
    expected = np.sqrt(np.sum(np.square(moves), axis=0) * m / (m - 1)) * deviations_in_interval(m)
    low, high = (np.log(end) for end in conclusion.intervals)
    inside = np.isfinite(low) & (low > np.log(1e-8)) & (high < np.log(1e8))
    assert inside.any()
    widths = np.full(len(rho), np.nan)
    widths[free] = expected
    assert_allclose(((high - low) / 2)[inside], widths[inside], rtol=1e-2)


def searches():
    """Ten jobs that differ in training, selection and optimizer, each with a start far from its minimum."""
    far = {"initial": 1e-4, "lower": 1e-8, "upper": 1e4}
    linear, kernels = regression(60, 4), regression(50, 2)
    counts, classes, three = (
        replace(table(kind, n=80), offset=None) for kind in ("poisson", "logistic", "multinomial")
    )
    return [
        (linear, Ridge(penalty=PerFeature(**far)), KFold(), Newton()),
        (linear, Ridge(penalty=PerFeature(**far)), LeaveOneOut(), Lbfgs()),
        (linear, Ridge(penalty=Shared(**far)), GeneralizedCV(), Newton()),
        (linear, Ridge(penalty=PerFeature(**far)), Evidence(), Newton()),
        (linear, Ridge(penalty=Shared(**far)), WalkForward(initial=20, horizon=5), Lbfgs()),
        (linear, Ridge(penalty=Shared(**far), splines=(Spline(feature="x1"),)), KFold(), Newton()),
        (counts, PoissonRegression(penalty=PerFeature(**far)), KFold(), Inexact()),
        (classes, LogisticRegression(penalty=PerFeature(**far)), LaplaceEvidence(), Lbfgs()),
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
    prepared = prepare(problem, plan(Ridge(penalty=PerFeature()), KFold(), Newton()))
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


def test_kernel_svm_at_a_corner_is_judged_by_all_gradients_around_it():
    problem = KernelSvm.example()
    prepared = prepare(problem, plan(KernelSvm(), KFold(folds=3), Lbfgs()))
    *_, last = tune(prepared)
    assert last.ended in {Outcome.CONVERGED, Outcome.AT_BOUNDS}
    assert last.best.gradient_norm <= prepared.outer.tolerance
    conclude(prepared, last.best)
