"""Standard errors by clusters of rows that depend on each other: of J, of test rows, of outer folds, of differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.core.conftest import regression
from tests.core.smooth.problems import table
from worker import checkpoint
from worker.core.hypergradient import HypergradientAuto
from worker.core.objective import clustered
from worker.core.objective.clustered import (
    deviations_in_interval,
    error_of_mean,
    error_of_sums,
    paired,
    sums_by_cluster,
)
from worker.core.outer import Lbfgs, Newton
from worker.core.penalties import PerFeature, Shared
from worker.core.rows.problem import Partition, Problem
from worker.core.search.descents import Descents
from worker.core.search.nested import Nested
from worker.core.search.plan import Plan, prepare
from worker.core.search.procedure import carry_out
from worker.core.selection import (
    ApproximateLeaveOneOut,
    GroupKFold,
    Holdout,
    KFold,
    LeaveOneOut,
    StratifiedGroupKFold,
    WalkForward,
)
from worker.core.selection.clusters import by_block, clusters_of
from worker.core.training import (
    KernelRidge,
    LogisticRegression,
    PoissonRegression,
    Ridge,
)
from worker.core.verdict.conclude import conclude
from worker.core.verdict.remarks import ONE_CLUSTER

pytestmark = pytest.mark.unchecked


def naive_error(losses, weights, labels):
    """In loops, of a weighted mean."""
    w = np.asarray(weights, float)
    mean, used = float(w @ losses / w.sum()), sorted({label for label, one in zip(labels, w, strict=True) if one})
    parts = [sum(w[i] * (losses[i] - mean) for i in range(len(losses)) if labels[i] == label) for label in used]
    m = len(parts)
    return np.sqrt(sum(part**2 for part in parts) * m / (m - 1)) / w.sum()


def plan(training, selection, outer=None, **settings):
    return Plan(training, selection, HypergradientAuto(), outer or Lbfgs(), **settings)


def end_of(prepared):
    *_, last = carry_out(prepared)
    return last


def pinned(**settings):
    """Ridge whose penalty can hardly move, so that every tuning ends at the same one."""
    return Ridge(penalty=Shared(initial=1.0, lower=1 - 1e-9, upper=1 + 1e-9), **settings)


def ridge_losses(problem, train, scored, lam=1.0):
    X, y = problem.X[train], problem.y[train]
    centred, scale = X - X.mean(0), X.var(0)
    slopes = np.linalg.solve(centred.T @ centred / len(X) + lam * np.diag(scale), centred.T @ (y - y.mean()) / len(X))
    return (problem.y[scored] - y.mean() - (problem.X[scored] - X.mean(0)) @ slopes) ** 2


def test_the_error_of_a_mean_is_that_of_independent_clusters():
    rng = np.random.default_rng(0)
    losses, weights, labels = rng.exponential(size=200), rng.integers(0, 4, size=200), rng.integers(0, 17, size=200)
    shares = weights / weights.sum()
    expected = naive_error(losses, weights, labels)
    assert_allclose(error_of_mean(losses.copy(), shares, labels), expected, rtol=1e-12)
    assert_allclose(error_of_sums(sums_by_cluster(losses, weights, labels, 17)), expected, rtol=1e-12)
    halves = [sums_by_cluster(losses[part], weights[part], labels[part], 17) for part in (slice(90), slice(90, 200))]
    assert_allclose(error_of_sums(sum(halves)), expected, rtol=1e-12)
    alone = naive_error(losses, weights, np.arange(200))
    assert_allclose(error_of_mean(losses, shares, np.arange(200)), alone, rtol=1e-12)
    assert error_of_mean(losses, shares, np.zeros(200, int)) is None
    assert error_of_sums(sums_by_cluster(losses, weights, np.zeros(200, int), 1)) is None


def test_the_difference_of_two_models_is_judged_row_by_row():
    rng = np.random.default_rng(1)
    common, labels = 5.0 * rng.exponential(size=400), np.arange(400) // 4
    first, second = common + 0.1 * rng.normal(size=400), common + 0.1 * rng.normal(size=400) + 0.05
    weights = rng.uniform(1.0, 2.0, size=400)
    difference, error = paired(first, second, weights, labels)
    assert_allclose(difference, weights @ (first - second) / weights.sum(), rtol=1e-12)
    assert_allclose(error, naive_error(first - second, weights, labels), rtol=1e-12)
    assert error < 0.1 * naive_error(first, weights, labels)


def test_many_clusters_share_places_without_bias(monkeypatch):
    rng = np.random.default_rng(2)
    losses, weights = rng.normal(size=6000), np.ones(6000)
    exact = error_of_sums(sums_by_cluster(losses, weights, np.arange(6000) // 2, 3000))
    monkeypatch.setattr(clustered, "MOST_CLUSTERS", 500)
    few = sums_by_cluster(losses, weights, np.arange(6000) // 2, 3000)
    assert few.shape == (2, 500)
    assert_allclose(error_of_sums(few), exact, rtol=0.15)


def test_few_clusters_make_wide_intervals():
    assert_allclose(deviations_in_interval(10**6), 1.96, atol=1e-3)
    assert_allclose([deviations_in_interval(2), deviations_in_interval(5)], [12.706, 2.776], atol=1e-3)


def test_an_error_by_groups_is_the_spread_over_new_groups():
    """Each group has an effect of its own, so that the rows of a group are wrong together."""
    values, clustered_errors, alone = [], [], []
    for seed in range(80):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(30), 10)
        X = rng.normal(size=(300, 2))
        y = X @ [1.0, -1.0] + rng.normal(size=30)[groups] + 0.5 * rng.normal(size=300)
        problem = Problem(X, y, ("a", "b"), groups=groups)
        prepared = prepare(problem, plan(pinned(), GroupKFold()))
        scores = prepared.objective.row_scores(problem, prepared.partition, prepared.objective.hyperparameters.initial)
        values.append(scores.weights @ scores.losses)
        clusters = prepared.plan.selection.clusters(problem, prepared.partition)
        clustered_errors.append(scores.standard_error(clusters))
        alone.append(scores.standard_error(np.arange(300)))
    real = np.std(values)
    assert 0.75 < np.sqrt(np.mean(np.square(clustered_errors))) / real < 1.3
    assert np.sqrt(np.mean(np.square(alone))) < 0.6 * real


GROUPS = np.random.default_rng(5).integers(10, 19, size=90)


@pytest.mark.parametrize(("training", "selection"), [
    (Ridge(penalty=PerFeature()), KFold(folds=3)),
    (Ridge(penalty=PerFeature()), Holdout(fraction=0.4)),
    (Ridge(penalty=PerFeature()), GroupKFold(folds=3)),
    (Ridge(penalty=PerFeature()), LeaveOneOut()),
    (KernelRidge(), LeaveOneOut()),
    (KernelRidge(), KFold(folds=3)),
    (PoissonRegression(), ApproximateLeaveOneOut()),
    (LogisticRegression(), StratifiedGroupKFold(folds=3)),
], ids=lambda one: one.kind)  # fmt: skip
def test_every_criterion_takes_the_groups_of_the_data(training, selection):
    problem = replace(
        table(training.kind if training.kind in {"poisson", "logistic"} else "ridge", n=90), groups=GROUPS
    )
    problem = replace(problem, offset=None)
    prepared = prepare(problem, plan(training, selection))
    last = end_of(prepared)
    scores = prepared.objective.row_scores(prepared.problem, prepared.partition, last.best.best.rho)
    expected = naive_error(scores.losses, scores.weights, GROUPS[scores.rows])
    concluded = conclude(prepared, last.best, Descents(prepared).of(last.best, last.starts))
    influences, pairs = prepared.objective.influences, 0.0
    if influences is not None:  # which other tests compare with differences
        at = prepared.problem, prepared.partition, last.best.best.rho, np.unique(GROUPS, return_inverse=True)[1]
        pairs = influences.variance_of_pairs(*at)
        assert pairs == 0.0 or selection.kind != "holdout"
    assert_allclose(concluded.standard_error, np.sqrt(expected**2 + pairs), rtol=1e-9)
    assert abs(expected / naive_error(scores.losses, scores.weights, scores.rows) - 1) > 0.01
    assert_allclose(scores.weights @ scores.losses, last.best.best.selection, rtol=1e-9)


@pytest.mark.parametrize("training", [Ridge(), KernelRidge(), Ridge(intercept=False)])
@pytest.mark.parametrize("selection", [KFold(folds=3), LeaveOneOut()], ids=lambda one: one.kind)
def test_scores_know_their_rows(training, selection):
    """Also where rows do not train, or closed forms leave them out."""
    problem = replace(table("ridge", n=40), offset=None)
    problem.weights[::7] = 0.0
    scoring = np.ones(40)
    scoring[::7] = 0.0
    problem = replace(problem, scoring=scoring)
    prepared = prepare(problem, plan(training, selection))
    scores = prepared.objective.row_scores(
        prepared.problem, prepared.partition, prepared.objective.hyperparameters.initial
    )
    marked = replace(prepared.problem, scoring=1.0 + np.arange(len(prepared.problem.y)))
    again = prepare(marked, plan(training, selection))
    heavy = again.objective.row_scores(marked, again.partition, again.objective.hyperparameters.initial)
    assert_allclose(heavy.weights / heavy.weights.sum(), (1 + heavy.rows) / (1 + heavy.rows).sum())
    assert_allclose(heavy.losses, scores.losses, rtol=1e-9)
    assert (heavy.rows == scores.rows).all()


def test_listed_groups_are_clusters_too():
    selection = GroupKFold(group_of_row=tuple(int(one) for one in GROUPS), folds=3)
    problem = regression(90, 3)
    prepared = prepare(problem, plan(Ridge(), selection))
    labels = clusters_of(selection, problem, prepared.partition, np.arange(90))
    assert len(np.unique(labels)) == len(np.unique(GROUPS)) == len(np.unique(labels * 100 + GROUPS))


def blocks_of(selection, problem):
    partition = selection.partition(np.arange(len(problem.y)), len(problem.y), problem)
    return selection.clusters(problem, partition), partition


def test_a_block_is_what_a_split_of_walk_forward_scores():
    problem = regression(60, 2)
    labels, partition = blocks_of(WalkForward(initial=20, horizon=8), problem)
    for _, validation in partition.splits:
        rows = partition.rows(validation)
        assert len(np.unique(labels[rows])) == 1
        assert not np.isin(labels[np.setdiff1d(np.arange(60), rows)], labels[rows]).any()
    assert (np.diff(labels) >= 0).all()
    # rows before the first split are cut in the same way
    assert np.bincount(labels).tolist() == [8, 12, 8, 8, 8, 8, 8]


def test_blocks_do_not_overlap_where_splits_do():
    """With a step of 2 and a horizon of 8, a row is scored by four splits: the blocks are eight rows long, not one."""
    labels, partition = blocks_of(WalkForward(initial=20, horizon=8, step=2), regression(60, 2))
    assert len(partition.splits) > 15
    assert np.bincount(labels)[1:].min() >= 8


def test_rows_of_the_test_part_follow_in_blocks():
    problem = regression(60, 2)
    prepared = prepare(problem, plan(Ridge(), WalkForward(initial=20, horizon=5), test_fraction=0.25))
    labels = clusters_of(prepared.plan.selection, problem, prepared.partition, prepared.test_rows)
    assert np.unique(labels, return_counts=True)[1].tolist() == [5, 5, 5]


def test_rows_of_equal_time_are_in_one_block():
    rng = np.random.default_rng(0)
    time = rng.integers(0, 25, size=80) + 0.0
    labels, partition = blocks_of(WalkForward(initial=30, horizon=6), replace(regression(80, 2), time=time))
    for moment in np.unique(time):
        assert len(np.unique(labels[time == moment])) == 1
    assert (np.diff(labels[np.argsort(time, kind="stable")]) >= 0).all()
    assert labels.max() >= 6
    shuffled = rng.permutation(80)
    moved = by_block(Partition(partition.block_of_row[shuffled], partition.splits), time[shuffled])
    assert (moved == labels[shuffled]).all()


@pytest.mark.slow
def test_an_error_by_blocks_is_the_spread_over_new_series():
    """The level drifts slowly, so that the rows of a block are wrong together."""
    values, blocked, alone = [], [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        level = np.zeros(400)
        for i in range(1, 400):
            level[i] = 0.8 * level[i - 1] + rng.normal()
        X = rng.normal(size=(400, 2))
        problem = Problem(X, X @ [1.0, -1.0] + level, ("a", "b"))
        prepared = prepare(problem, plan(pinned(), WalkForward(initial=40, horizon=20)))
        scores = prepared.objective.row_scores(problem, prepared.partition, prepared.objective.hyperparameters.initial)
        values.append(scores.weights @ scores.losses)
        blocked.append(scores.standard_error(prepared.plan.selection.clusters(problem, prepared.partition)))
        alone.append(scores.standard_error(np.arange(400)))
    real = np.std(values)
    assert np.sqrt(np.mean(np.square(alone))) < 0.65 * real
    assert 0.75 < np.sqrt(np.mean(np.square(blocked))) / real < 1.25


def test_a_single_cluster_has_no_error_and_says_so():
    problem = replace(regression(40, 2), groups=np.zeros(40, int))
    prepared = prepare(problem, plan(Ridge(), KFold(folds=4), Newton()))
    conclusion = conclude(prepared, end_of(prepared).best)
    assert conclusion.standard_error is None
    assert conclusion.intervals is None
    assert ONE_CLUSTER in conclusion.messages
    few = replace(problem, groups=np.arange(40) // 10)
    prepared = prepare(few, plan(Ridge(), KFold(folds=4), Newton()))
    messages = conclude(prepared, end_of(prepared).best).messages
    assert any(message.startswith("The standard errors rest on 4 groups") for message in messages)


@pytest.mark.parametrize("training", [Ridge(), KernelRidge()], ids=lambda one: one.kind)
def test_the_test_score_has_an_error_by_groups(training):
    problem = replace(regression(90, 3), groups=GROUPS)
    prepared = prepare(problem, plan(training, KFold(folds=3), test_fraction=0.4, seed=3))
    conclusion = conclude(prepared, end_of(prepared).best)
    rows = prepared.test_rows
    losses = (problem.y[rows] - conclusion.model.predict(problem.X[rows])) ** 2
    assert_allclose(conclusion.test_value, losses.mean(), rtol=1e-9)
    assert_allclose(conclusion.test_error, naive_error(losses, np.ones(len(rows)), GROUPS[rows]), rtol=1e-9)


@pytest.mark.parametrize(
    "selection", [KFold(folds=3), GroupKFold(folds=3), WalkForward(initial=9, horizon=5)], ids=lambda one: one.kind
)
def test_the_nested_score_has_an_error_over_all_outer_folds(selection):
    """Groups that outer folds tear apart are one cluster all the same."""
    problem = replace(regression(90, 3), groups=GROUPS)
    nested = Nested(folds=4)
    prepared = prepare(problem, plan(pinned(), selection, nested=nested))
    steps = list(carry_out(prepared))
    folds = steps[-1].folds
    parts = nested.splits(selection, prepared.rows, problem)
    rows = np.concatenate([scored for _, scored in parts])
    losses = np.concatenate([ridge_losses(problem, train, scored) for train, scored in parts])
    assert_allclose(sum(fold.value * fold.weight for fold in folds) / len(rows), losses.mean(), rtol=1e-7)
    labels = clusters_of(selection, problem, prepared.partition, rows)
    if selection.kind != "walk_forward":
        assert len(np.unique(labels)) == len(np.unique(GROUPS))
    error = error_of_sums(sum(fold.clusters for fold in folds))
    assert_allclose(error, naive_error(losses, np.ones(len(rows)), labels), rtol=1e-6)
    for step in steps:  # it survives a checkpoint
        if step.state is not None and step.state.folds:
            state = checkpoint.unpack(checkpoint.pack(step.state))
            *_, last = carry_out(prepared, state)
            again = [fold.clusters for fold in last.folds]
            assert all((a == b.clusters).all() for a, b in zip(again, folds, strict=True))
