"""Influences of rows against differences: J and losses of rows are computed again with other weights of rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_array

from tests.core.conftest import grouped, regression
from tests.core.smooth.problems import PENALTIES, TRAINING, table
from tests.oracles import differences
from worker.core.hypergradient import HypergradientAuto
from worker.core.losses import Huber, SmoothedAuc
from worker.core.objective import least_squares_influences, stacked_splits
from worker.core.objective.influence import Chosen, variance_of_pairs
from worker.core.objective.smooth_influences import InfluencesOfSmooth
from worker.core.outer import OuterAuto
from worker.core.penalties import PerClass, PerFeature, Shared
from worker.core.penalties.splines import Spline
from worker.core.rows import design
from worker.core.rows.problem import Imputation
from worker.core.search.plan import Plan, prepare
from worker.core.selection import GroupKFold, Holdout, KFold, WalkForward
from worker.core.training import Ridge
from worker.core.training.ridge import MIN_TRIALS_FOR_SPECTRAL
from worker.core.weights import PerSource, SigmoidTime

pytestmark = pytest.mark.unchecked
FEW = 9  # clusters


def prepared(training, problem, selection=None, **settings):
    training = replace(training, standardize=False)
    return prepare(problem, Plan(training, selection or KFold(folds=3), HypergradientAuto(), OuterAuto(**settings)))


def numbers(n=45, p=4, **roles):
    """Weights of training and of scoring differ. Rows of a cluster follow each other."""
    problem, rng = regression(n, p), np.random.default_rng(4)
    weights = {"weights": rng.uniform(0.5, 2.0, n), "scoring": rng.uniform(0.5, 2.0, n)}
    weights["scoring"][::7] = 0.0
    weights["weights"][3::11] = 0.0
    return replace(problem, time=np.arange(n) + 0.0, groups=np.arange(n) * FEW // n, **weights | roles)


def of_classes(kind, **roles):
    problem = table(kind, 45)
    return replace(problem, groups=np.arange(45) * FEW // 45, **roles)


def sparse(problem):
    kept = np.random.default_rng(5).random(problem.X.shape) < 0.5
    return replace(problem, X=csr_array(np.where(kept, problem.X, 0.0)))


def with_missing_values(problem):
    X = problem.X.copy()
    X[::5, 1] = X[1::7, 2] = np.nan
    return replace(problem, X=X, imputation=Imputation(np.array([1, 2]), ("constant", "constant"), np.ones(2)))


RIDGE, LONG = Ridge(penalty=PerFeature(spread=None)), {"starts": MIN_TRIALS_FOR_SPECTRAL}
WALK = WalkForward(initial=15, horizon=5)
SOURCES = np.arange(45) % 3
JOBS = {
    "ridge, k-fold": lambda: prepared(RIDGE, numbers()),
    "ridge, group folds": lambda: prepared(RIDGE, numbers(), GroupKFold(folds=3)),
    "ridge, hold-out": lambda: prepared(RIDGE, numbers(), Holdout(fraction=0.4)),
    "ridge, walk-forward": lambda: prepared(RIDGE, numbers(), WALK),
    "ridge, weighted splits": lambda: prepared(RIDGE, numbers(), KFold(folds=3, split_weights=(0.5, 2.0, 0.0))),
    "ridge, groups of features": lambda: prepared(Ridge(penalty=grouped(numbers())), numbers()),
    "ridge, no intercept": lambda: prepared(replace(RIDGE, intercept=False), numbers()),
    "ridge, spectral": lambda: prepared(Ridge(penalty=Shared()), numbers(), **LONG),
    "ridge, dual": lambda: prepared(Ridge(penalty=grouped(numbers(27, 40))), numbers(27, 40)),
    "ridge, splines": lambda: prepared(Ridge(splines=(Spline(feature="x1", basis=5),)), numbers()),
    "ridge, sparse": lambda: prepared(RIDGE, sparse(numbers())),
    "ridge, missing values": lambda: prepared(RIDGE, with_missing_values(numbers())),
    "ridge, huber": lambda: prepared(RIDGE, numbers(), KFold(folds=3, loss=Huber(delta=50.0))),
    "ridge, tuned weights": lambda: prepared(Ridge(weights=SigmoidTime()), numbers(), WALK),
    "ridge, weights of sources": lambda: prepared(
        Ridge(intercept=False, weights=PerSource()), numbers(source=SOURCES, source_names=("a", "b", "c"))
    ),
    "logistic, k-fold": lambda: prepared(
        TRAINING["logistic"](penalty=PENALTIES["per_feature"]), of_classes("logistic")
    ),
    "logistic, walk-forward": lambda: prepared(TRAINING["logistic"](), of_classes("logistic"), WALK),
    "logistic, hold-out": lambda: prepared(
        TRAINING["logistic"](penalty=PENALTIES["per_group"], intercept=False), of_classes("logistic"), Holdout()
    ),
    "logistic, conjugate gradients": lambda: prepared(TRAINING["logistic"](solver="newton_cg"), of_classes("logistic")),
    "logistic, tuned weights": lambda: prepared(TRAINING["logistic"](weights=SigmoidTime()), of_classes("logistic")),
    "poisson": lambda: prepared(TRAINING["poisson"](penalty=PENALTIES["quadratic_forms"]), of_classes("poisson")),
    "gamma": lambda: prepared(TRAINING["gamma"](), of_classes("gamma"), GroupKFold(folds=3)),
    "multinomial": lambda: prepared(TRAINING["multinomial"](penalty=PerClass(spread=None)), of_classes("multinomial")),
}  # fmt: skip


def point(job):
    """Where nothing is symmetric, nor at a minimum."""
    box = job.objective.hyperparameters
    return np.clip(box.initial + 0.4 * np.random.default_rng(3).normal(size=len(box.names)), box.lower, box.upper)


def heavier(job, chosen, factor, *, trained=True, scored=True):
    """The objective with other weights of some rows, on the same splits."""
    problem = job.problem
    changes = {}
    for name, moved in (("weights", trained), ("scoring", scored)):
        old = problem.base_weights(np.arange(len(problem.y)))
        if name == "scoring":
            old = problem.score_weights(np.arange(len(problem.y)))
        changes[name] = np.where(chosen, factor * old, old) if moved else old
    problem = replace(problem, **changes)
    plan = job.plan
    return problem, plan.selection.objective(problem, job.partition, plan.training, job.hypergradient, 100)


def sums_of(job, rho, numbers_=None):
    numbers_ = np.arange(len(rho)) if numbers_ is None else numbers_
    together = np.random.default_rng(8).normal(size=(len(numbers_), 2))
    chosen = Chosen(numbers_, together)
    found = job.objective.influences.gradients(job.problem, job.partition, rho, chosen, job.problem.groups)
    assert found is not None
    return found, chosen


@pytest.mark.parametrize("name", JOBS)
def test_influences_are_derivatives_of_the_gradient_in_weights_of_rows(name):
    job = JOBS[name]()
    rho = point(job)
    sums, chosen = sums_of(job, rho)
    assert_allclose(sums.scored.sum(axis=0), sums.mean, rtol=1e-8)
    assert_allclose(sums.mean, job.objective.evaluate(rho).gradient @ chosen.together, rtol=1e-8)
    assert_allclose(sums.trained.sum(axis=0), 0.0, atol=1e-9 * np.abs(sums.trained).max())
    for label in np.unique(job.problem.groups)[::2]:
        rows = job.problem.groups == label

        def gradient(t, rows=rows):
            return heavier(job, rows, np.exp(t[0]))[1].evaluate(rho).gradient @ chosen.together

        expected = differences(gradient, np.zeros(1), 0.05)[0]
        assert_allclose(sums.parts[label], expected, atol=1e-6 * np.abs(sums.trained).max())


def effects(job, rho):
    """Those of clusters in training on the losses of the others."""
    found, labels = job.objective.influences, job.problem.groups
    if isinstance(found, InfluencesOfSmooth):
        return sum(split.effects_on_losses(labels, FEW) for split in found.splits(rho))
    times = np.ones(len(job.partition.splits))
    return found.effects_on_losses(job.problem, job.partition, rho, labels, FEW, times)[0]


@pytest.mark.parametrize("name", ["ridge, k-fold", "ridge, walk-forward", "ridge, no intercept", "ridge, spectral",
    "ridge, dual", "ridge, sparse", "ridge, tuned weights", "logistic, k-fold", "poisson", "multinomial"])  # fmt: skip
def test_effects_on_losses_are_derivatives_in_weights_of_training_rows(name):
    job = JOBS[name]()
    rho, labels = point(job), job.problem.groups
    C = effects(job, rho)
    for label in range(0, FEW, 2):
        rows = labels == label

        def losses(t, rows=rows):
            problem, objective = heavier(job, rows, np.exp(t[0]), scored=False)
            scores = objective.row_scores(problem, job.partition, rho)
            return np.bincount(labels[scores.rows], scores.weights * scores.losses, FEW)

        assert_allclose(C[label], differences(losses, np.zeros(1), 0.05)[0], atol=1e-6 * np.abs(C).max())


def test_pairs_of_groups_that_train_models_of_each_other():
    """In loops; a part that is the same for all others does not count, nor one that goes one way."""
    rng, w = np.random.default_rng(2), np.array([0.1, 0.2, 0.3, 0.4])
    C = rng.normal(size=(4, 4))
    C += C.T

    def centred(a, b):
        others = [c for c in range(4) if c != a]
        return C[a, b] - w[b] * sum(C[a, c] for c in others) / sum(w[c] for c in others)

    expected = sum(centred(a, b) * centred(b, a) for a in range(4) for b in range(4) if a != b)
    assert expected > 0
    assert_allclose(variance_of_pairs(C, w), expected, rtol=1e-12)
    assert_allclose(variance_of_pairs(C + np.outer(rng.normal(size=4), w), w), expected, rtol=1e-9)
    assert variance_of_pairs(np.triu(np.ones((2, 2)) - np.eye(2)), np.ones(2) / 2) == 0.0
    assert variance_of_pairs(C - 2 * np.triu(C), w) == 0.0


def test_the_variance_of_pairs_is_that_of_the_removal_of_rows():
    """Rows with twenty columns are removed one by one from training, and J is computed again."""
    problem, n = regression(100, 20), 100
    job = prepared(Ridge(penalty=Shared(initial=0.01)), problem, KFold(folds=10))
    rho, clusters = job.objective.hyperparameters.initial, np.arange(n)
    whole, C = job.objective.row_scores(problem, job.partition, rho), np.zeros((n, n))
    losses = np.empty(n)
    losses[whole.rows] = whole.losses
    for row in range(n):
        part = replace(job.partition, block_of_row=np.where(clusters == row, -1, job.partition.block_of_row))
        objective = job.plan.selection.objective(problem, part, job.plan.training, job.hypergradient, 1)
        scores = objective.row_scores(problem, part, rho)
        C[row, scores.rows] = (losses[scores.rows] - scores.losses) / n
    expected = variance_of_pairs(C, np.full(n, 1 / n))
    found = job.objective.influences.variance_of_pairs(problem, job.partition, rho, clusters)
    error = whole.standard_error(clusters)
    assert expected > 0.2 * error**2
    assert_allclose(found, expected, rtol=0.3)
    at = whole, problem, job.partition, rho, clusters
    assert_allclose(job.objective.standard_error(*at), np.sqrt(error**2 + found), rtol=1e-12)


@pytest.mark.parametrize(("selection", "expected"), [
    (KFold(folds=3), 1.0), (Holdout(fraction=0.4), 0.0), (WalkForward(initial=30, horizon=10), 2 / 3),
    (WalkForward(initial=30, horizon=10, split_weights=(1, 1, 0)), 0.5),
])  # fmt: skip
def test_the_share_of_rows_that_train_and_are_scored(selection, expected):
    job = prepared(RIDGE, regression(60, 3), selection)
    found = job.objective.influences.gradients(
        job.problem, job.partition, point(job), Chosen(np.arange(3), np.eye(3)), np.arange(60)
    )
    assert_allclose(found.overlap, expected, atol=1e-12)
    m = found.clusters
    assert_allclose(found.covariance(), found.parts.T @ found.parts * (m / (m - 1) * (1 - expected / 2)), rtol=1e-12)


def test_of_a_large_table_a_sample_of_clusters_stands_for_all(monkeypatch):
    job = prepared(RIDGE, regression(3000, 3))
    rho, chosen, clusters = point(job), Chosen(np.arange(3), np.eye(3)), np.arange(3000) // 2
    at = job.problem, job.partition, rho, chosen, clusters
    whole = job.objective.influences.gradients(*at)
    monkeypatch.setattr(least_squares_influences, "MOST_TERMS", 4e4)
    few = job.objective.influences.gradients(*at)
    assert 128 <= few.clusters < 500
    assert whole.clusters == 1500
    assert_allclose(few.mean, whole.mean, rtol=1e-9)
    used = few.weights > 0
    assert_allclose(few.parts[used], whole.parts[used], rtol=1e-9, atol=1e-15)
    assert_allclose(np.diag(few.covariance()), np.diag(whole.covariance()), rtol=0.5)


def test_chunks_of_rows_do_not_matter(monkeypatch):
    for name in ("ridge, walk-forward", "ridge, tuned weights", "poisson"):
        job = JOBS[name]()
        rho, labels = point(job), job.problem.groups
        parts = sums_of(job, rho)[0].parts
        C = effects(job, rho)
        with monkeypatch.context() as patch:
            patch.setattr(stacked_splits, "MOST_VALUES", 500)
            patch.setattr(design, "HELD_PREDICTORS", 1)
            patch.setattr(design, "CHUNK_VALUES", 50)
            assert_allclose(sums_of(job, rho)[0].parts, parts, rtol=1e-9, atol=1e-12 * np.abs(parts).max())
            assert_allclose(effects(job, rho), C, rtol=1e-9, atol=1e-12 * np.abs(C).max())
        assert len(np.unique(labels)) == FEW


def test_scores_of_all_rows_together_have_no_influences():
    problem = replace(of_classes("logistic"), offset=None)
    job = prepared(TRAINING["logistic"](), problem, KFold(folds=3, loss=SmoothedAuc()))
    rho = point(job)
    chosen = Chosen(np.arange(len(rho)), np.eye(len(rho)))
    assert job.objective.gradient_sums(problem, job.partition, rho, chosen, problem.groups) is None
