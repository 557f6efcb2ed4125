"""Scores of all rows together: each split judged without its part in the tuning, beside tuning again without it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from worker.core.hypergradient import HypergradientAuto
from worker.core.losses import LogLoss, SmoothedAuc, SmoothedF
from worker.core.outer import Newton
from worker.core.penalties import PerFeature
from worker.core.records import Step
from worker.core.rows.problem import Problem
from worker.core.search.descents import PATH, SHARED, Descents
from worker.core.search.left_out_splits import SplitObjectives, left_out_splits
from worker.core.search.plan import Plan, Prepared, prepare
from worker.core.search.tune import tune
from worker.core.selection import KFold, Selection
from worker.core.training import LogisticRegression
from worker.core.verdict.baseline import worth

pytestmark = pytest.mark.unchecked

P = 4


def classes(n: int, seed: int = 3, weights: bool = False) -> Problem:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, P))
    y = (X @ np.array([1.5, 0.7, 0.0, 0.0]) + rng.logistic(size=n) > 0).astype(float)
    scoring = rng.uniform(0.5, 2.0, size=n) if weights else None
    return Problem(X, y, tuple("abcd"), classes=("0", "1"), scoring=scoring)


def job_of(selection: Selection, problem: Problem, spread: float | str | None = "auto") -> Prepared:
    plan = Plan(LogisticRegression(penalty=PerFeature(spread=spread)), selection, HypergradientAuto(), Newton())
    return prepare(problem, plan)


def end_of(job: Prepared) -> Step:
    *_, last = tune(job)
    return last


@pytest.mark.parametrize("given", [None, (1.0, 0.0, 2.0, 1.0)], ids=["equal", "weighted"])
@pytest.mark.parametrize("loss", [SmoothedAuc(), SmoothedF(), LogLoss()], ids=lambda one: one.kind)
def test_the_splits_make_up_the_criterion(loss, given) -> None:
    job = job_of(KFold(folds=4, loss=loss, split_weights=given), classes(61, weights=True))
    splits = SplitObjectives.of(job)
    assert splits is not None
    assert len(splits.objectives) == (4 if given is None else 3)
    rho = np.array([-2.0, -1.0, 0.3, 0.1])
    whole, parts = job.objective.evaluate(rho), [one.evaluate(rho) for one in splits.objectives]
    assert_allclose(splits.weights @ [one.value for one in parts], whole.value, rtol=1e-10)
    assert_allclose(splits.weights @ [one.gradient for one in parts], whole.gradient, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(
    "loss", [SmoothedAuc(), pytest.param(SmoothedF(), marks=pytest.mark.slow)], ids=lambda one: one.kind
)
def test_a_split_is_scored_where_tuning_without_it_would_end(loss) -> None:
    """Nearly: one step of Newton's method, on many rows, with a hyper-prior heavy enough for a quadratic model."""
    job = job_of(KFold(folds=6, loss=loss), classes(600))
    splits = SplitObjectives.of(job)
    assert splits is not None
    heavy, centre = 0.02, np.array([-3.0, -2.5, -1.0, -1.0])

    def criterion(rho, without):
        parts = [one.evaluate(rho) for one in splits.objectives]
        kept = splits.weights * (np.arange(len(parts)) != without)
        value = kept @ [one.value for one in parts] + heavy / 2 * ((rho - centre) ** 2).sum()
        return value, kept @ [one.gradient for one in parts] + heavy * (rho - centre)

    def tuned(without, start):
        return minimize(criterion, start, args=(without,), jac=True, method="BFGS", options={"gtol": 1e-9}).x

    at = tuned(None, centre)
    judged = left_out_splits(splits, at, heavy * np.eye(P), 1e-9, np.ones(P, int))
    assert judged is not None
    ends = [tuned(s, at) for s in range(6)]
    exact = np.array([one.value(end) for one, end in zip(splits.objectives, ends, strict=True)])
    here = np.array([one.value(at) for one in splits.objectives])
    assert (exact > here).all()  # without its part in the tuning each split looks worse
    assert_allclose(judged.left_out - here, exact - here, rtol=0.03)
    assert_allclose(judged.weights, splits.weights)
    assert judged.corrected > splits.weights @ here


def test_splits_choose_the_spread_and_correct_the_value() -> None:
    loss = SmoothedAuc()
    job = job_of(KFold(folds=4, loss=loss), classes(120))
    last = end_of(job)
    assert [start.spread for start in last.starts] == [SHARED, *PATH]
    assert last.choice.by == "jackknife"
    corrected = [point.corrected for point in last.choice.path]
    assert np.isfinite(corrected).all()
    assert corrected[-1] > last.choice.path[-1].value
    found = worth(job, last)
    assert found.corrected == corrected[[SHARED, *PATH].index(last.choice.spread)]
    again = job_of(KFold(folds=4, loss=loss), classes(120))
    descents = Descents(again)
    descents.judged(last.starts[0], last.starts[-1])
    assert descents.choice(last.starts).path == last.choice.path  # whatever was evaluated before


def test_noise_is_not_let_to_differ() -> None:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(60, 8))
    noise = Problem(X, rng.permutation(np.arange(60) % 2).astype(float), tuple("abcdefgh"), classes=("0", "1"))
    assert end_of(job_of(KFold(folds=3, loss=SmoothedAuc()), noise)).choice.spread == SHARED


def test_where_splits_cannot_be_judged() -> None:
    assert SplitObjectives.of(job_of(KFold(folds=2, loss=SmoothedAuc(), split_weights=(1.0, 0.0)), classes(60))) is None
