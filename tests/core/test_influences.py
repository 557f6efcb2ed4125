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
from worker.core.objective import linear_influences as module
from worker.core.objective.influence import Chosen, effects_on_losses, variance_of_pairs
from worker.core.objective.mean_of_splits import factors_of
from worker.core.outer import OuterAuto
from worker.core.penalties import PerClass, PerFeature, Shared
from worker.core.penalties.splines import Spline
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
    "logistic, k-fold": lambda: prepared(TRAINING["logistic"](penalty=PENALTIES["per_feature"]), of_classes("logistic")),
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
    assert_allclose(sums.mean, job.objective.evaluate(rho).gradient @ chosen.together, rtol=1e-8)
    assert_allclose(sums.trained.sum(axis=0), 0.0, atol=1e-9 * np.abs(sums.trained).max())
    for label in np.unique(job.problem.groups)[::2]:
        rows = job.problem.groups == label

        def gradient(t, rows=rows):
            return heavier(job, rows, np.exp(t[0]))[1].evaluate(rho).gradient @ chosen.together

        expected = differences(gradient, np.zeros(1), 0.05)[0]
        found = sums.scored[label] - sums.weights[label] * sums.mean + sums.trained[label]
        assert_allclose(found, expected, atol=1e-6 * np.abs(sums.trained).max())


@pytest.mark.parametrize("name", ["ridge, k-fold", "ridge, walk-forward", "ridge, no intercept", "ridge, spectral",
    "ridge, dual", "ridge, sparse", "ridge, tuned weights", "logistic, k-fold", "poisson", "multinomial"])  # fmt: skip
def test_effects_on_losses_are_derivatives_in_weights_of_training_rows(name):
    job = JOBS[name]()
    rho, labels = point(job), job.problem.groups
    influences = job.objective.influences
    factors = factors_of(influences.fits, influences.split_weights)
    splits = influences.source.splits(job.problem, job.partition, rho, factors, None)
    C = sum(effects_on_losses(split, labels, FEW) for split in splits)
    for label in range(0, FEW, 2):
        rows = labels == label

        def losses(t, rows=rows):
            problem, objective = heavier(job, rows, np.exp(t[0]), scored=False)
            scores = objective.row_scores(problem, job.partition, rho)
            return np.bincount(labels[scores.rows], scores.weights * scores.losses, FEW)

        assert_allclose(C[label], differences(losses, np.zeros(1), 0.05)[0], atol=1e-6 * np.abs(C).max())
