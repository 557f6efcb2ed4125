"""What a result is worth: the paired difference to one shared value beside refits, the optimism, and the notes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.core.conftest import regression
from tests.core.rule_in_loops import error_in_loops, left_out_in_loops
from tests.core.smooth.problems import table
from tests.oracles import ridge
from worker.core.hypergradient import HypergradientAuto
from worker.core.losses import SmoothedAuc
from worker.core.outer import Newton
from worker.core.penalties import PerFeature, Shared
from worker.core.records import Outcome
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, prepare
from worker.core.search.tune import tune
from worker.core.selection import Evidence, GivenFolds, GroupKFold, Holdout, KFold, LeaveOneOut
from worker.core.training import LogisticRegression, Ridge
from worker.core.verdict.baseline import worth
from worker.core.weights import SigmoidTime

pytestmark = pytest.mark.unchecked


def searched(problem, training=None, selection=None, outer=None, **settings):
    plan = Plan(
        training or Ridge(penalty=PerFeature()), selection or KFold(folds=3), HypergradientAuto(), outer or Newton()
    )
    job = prepare(problem, replace(plan, **settings))
    *_, last = tune(job)
    return job, last


def codes(found):
    return {finding.code: finding.severity for finding in found.findings}


def noise(n, p, seed=0):
    rng = np.random.default_rng(seed)
    return Problem(rng.normal(size=(n, p)), rng.normal(size=n), tuple(f"x{j}" for j in range(p)))


def losses_by_refits(job, rho):
    """The squared error of each scored row, each split refitted by other code."""
    X, y, lam = job.problem.X, job.problem.y, np.exp(rho)
    losses, rows = [], []
    for train, validation in job.partition.splits:
        inside, held = job.partition.rows(train), job.partition.rows(validation)
        constant, theta = ridge(X[inside], y[inside], lam, intercept=True, standardize=True)
        losses += ((y[held] - constant - X[held] @ theta) ** 2).tolist()
        rows += held.tolist()
    return np.array(losses), np.array(rows)


def with_scoring(problem):
    return replace(problem, scoring=np.random.default_rng(3).integers(0, 4, len(problem.y)) + 0.0)


def with_groups(problem):
    groups = np.random.default_rng(6).integers(0, 11, len(problem.y))
    return replace(problem, groups=groups)


PAIRED = {
    "rows": (lambda: regression(45, 5), KFold(folds=3)),
    "scoring weights": (lambda: with_scoring(regression(45, 5)), KFold(folds=3)),
    "groups": (lambda: with_groups(regression(45, 5)), GroupKFold(folds=3)),
    "groups torn apart": (lambda: with_groups(with_scoring(regression(45, 5))), KFold(folds=3)),
}


@pytest.mark.parametrize("spread", ["auto", 2.0, None])
@pytest.mark.parametrize("name", PAIRED)
def test_the_difference_and_its_error_are_those_of_refits(name, spread):
    build, selection = PAIRED[name]
    job, last = searched(build(), Ridge(penalty=PerFeature(spread=spread)), selection)
    if spread == "auto":  # whatever is chosen
        last = replace(last, choice=replace(last.choice, spread=1.0))
    found = worth(job, last)
    shared = next(start for start in last.starts if start.spread == 0)
    assert last.best.spread in (None, 1.0, 2.0)
    assert (found.baseline.rho == shared.best.rho).all()
    here, rows = losses_by_refits(job, last.best.best.rho)
    there, _ = losses_by_refits(job, shared.best.rho)
    weights = job.problem.score_weights(rows)
    weights = weights / weights.sum()
    labels = list(range(len(rows))) if job.problem.groups is None else job.problem.groups[rows].tolist()
    assert_allclose(found.baseline.value, weights @ there, rtol=1e-9)
    assert_allclose(found.baseline.difference, weights @ (here - there), rtol=1e-6)
    assert_allclose(found.baseline.difference_error, error_in_loops(here - there, weights, labels), rtol=1e-6)
    if name == "rows":
        plain = np.std(here - there, ddof=1) / np.sqrt(len(rows))
        assert_allclose(found.baseline.difference_error, plain, rtol=1e-6)
    assert_allclose(found.corrected, left_out_in_loops(job, shared, last.best).corrected, rtol=1e-6)
    assert_allclose(found.optimism, found.corrected - last.best.best.selection, rtol=1e-12)


def test_the_value_is_the_criterion_without_the_prior():
    job, last = searched(regression(45, 5), Ridge(penalty=PerFeature(spread=0.4)))
    found = worth(job, last)
    assert last.best.best.prior > 0
    J = job.objective.value(last.best.best.rho)
    assert_allclose(found.baseline.difference, J - found.baseline.value, rtol=1e-8)
    assert_allclose(found.corrected, J + found.optimism, rtol=1e-12)


def test_a_result_of_a_further_start_is_corrected_at_its_own_point():
    job, last = searched(regression(36, 5), outer=Newton(starts=3))
    chosen = last.choice.spread
    assert chosen > 0
    expected = left_out_in_loops(job, last.starts[0], last.best).corrected
    assert_allclose(worth(job, last).corrected, expected, rtol=1e-6)
    path = [
        replace(point, value=2.0 * point.value, corrected=9.0) if point.spread == chosen else point
        for point in last.choice.path
    ]  # as if the path had ended in a higher minimum, and a further start in this one
    other = replace(last, choice=replace(last.choice, path=tuple(path)))
    assert_allclose(worth(job, other).corrected, expected, rtol=1e-6)


def test_no_row_moves_hyperparameters_as_far_as_its_slope_says():
    """Heavy tails: a step of the linear model that is long beyond reason is cut."""
    rng = np.random.default_rng(19)
    X = rng.standard_t(2, size=(30, 4))
    problem = Problem(X, X @ [1.0, 0.5, 0.0, 0.0] + rng.standard_t(1.5, size=30), tuple("abcd"))
    job, last = searched(problem, Ridge(penalty=PerFeature(spread=3.0)))
    cut, free = (left_out_in_loops(job, last.starts[0], last.best, longest) for longest in (3.0, np.inf))
    assert abs(cut.corrected - free.corrected) > 0.01 * free.corrected
    assert_allclose(worth(job, last).corrected, cut.corrected, rtol=1e-6)


def test_a_shared_value_differs_by_nothing_and_promises_nothing():
    rng = np.random.default_rng(8)
    X = rng.normal(size=(40, 5))
    job, last = searched(Problem(X, X @ np.ones(5) + 2.0 * rng.normal(size=40), tuple("abcde")))
    assert last.best.spread == 0
    found = worth(job, last)
    assert (found.baseline.difference, found.baseline.difference_error) == (0.0, 0.0)
    assert found.corrected == last.choice.path[0].corrected
    assert codes(found) == {"many_hyperparameters": "info"}


def test_the_result_says_what_its_point_on_the_path_says():
    """One shared value is judged as one hyperparameter, and not as many that are free to differ."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 6))
    problem = Problem(X, 0.3 * X.sum(axis=1) + rng.normal(size=60), tuple("abcdef"))  # penalties would like to differ
    job, last = searched(problem, selection=KFold())
    optimism = []
    for point in last.choice.path:
        here = replace(last, choice=replace(last.choice, spread=point.spread))
        assert here.best.spread == point.spread
        found = worth(job, here)
        assert found.corrected == point.corrected
        optimism.append(found.optimism)
    assert optimism[0] > 0
    assert min(optimism[1:]) > optimism[0]


def test_a_gain_below_the_optimism_is_told_and_a_larger_one_is_not():
    noted = []
    for spread in (3.0, None):
        for seed in range(4):
            training = Ridge(penalty=PerFeature(spread=spread))
            found = worth(*searched(noise(60, 20, seed), training, outer=Newton(tolerance=1e-4)))
            gain = -found.baseline.difference
            assert gain > 0
            noted.append(gain < found.optimism)
            assert (codes(found).get("gain_below_optimism") == "warning") is noted[-1]
            if noted[-1]:
                text = found.findings[0].text
                assert f"by {gain:.3g}, which is less than the {found.optimism:.3g} by" in text
    assert 0 < sum(noted) < len(noted)


def test_of_a_sparse_signal_the_gain_is_more():
    rng = np.random.default_rng(2)
    X = rng.normal(size=(80, 12))
    problem = Problem(X, X @ np.array([2.0, -2.0, *[0.0] * 10]) + rng.normal(size=80), tuple("abcdefghijkl"))
    for spread in ("auto", None):
        found = worth(*searched(problem, Ridge(penalty=PerFeature(spread=spread))))
        assert -found.baseline.difference > found.optimism > 0
        assert codes(found) == {"many_hyperparameters": "warning"}


@pytest.mark.parametrize(("n", "expected"), [(50, None), (49, "warning")])
def test_more_than_one_hyperparameter_for_ten_rows_are_many(n, expected):
    job, last = searched(regression(n, 5), Ridge(penalty=PerFeature(spread=1.0)), KFold(folds=7))
    assert job.selection_rows == n
    assert codes(worth(job, last)).get("many_hyperparameters") == expected


def test_rows_of_unequal_weight_are_fewer():
    scoring = np.where(np.arange(60) < 30, 1.0, 0.1)
    job, last = searched(replace(regression(60, 5), scoring=scoring), Ridge(penalty=PerFeature(spread=1.0)))
    assert_allclose(job.selection_rows, 33.0**2 / 30.3)
    assert codes(worth(job, last))["many_hyperparameters"] == "warning"


def of_classes(wrong):
    """Twelve rows of each class that a line separates, but for a row of each fold in `wrong`; three folds."""
    rng = np.random.default_rng(1)
    x = np.concatenate([-2.0 - rng.random(12), 2.0 + rng.random(12)])
    y, fold = np.repeat([0.0, 1.0], 12), np.arange(24) % 3
    for k in wrong:
        rows = np.flatnonzero((fold == k) & (y == 0))
        y[rows[np.argmin(x[rows])]] = 1.0  # far from the border
    X = np.column_stack([x, -2.0 * x])  # no other direction separates them
    return Problem(X, y, ("a", "b"), classes=("no", "yes")), GivenFolds(fold_of_row=tuple(fold.tolist()))


@pytest.mark.parametrize(("wrong", "separated"), [((), 3), ((0,), 1), ((0, 1), 0)])
def test_folds_that_train_on_separated_classes_are_counted(wrong, separated):
    """A row on the wrong side is in the training rows of each fold but its own."""
    problem, selection = of_classes(wrong)
    penalty = PerFeature(spread=0.5, lower=1e-4)
    job, last = searched(problem, LogisticRegression(penalty=penalty), selection, Newton(max_iterations=20))
    texts = [finding.text for finding in worth(job, last).findings if finding.code == "separated_fold"]
    assert [text.startswith(f"{separated} of 3 splits") for text in texts] == ([True] if separated else [])


def test_of_numbers_no_fold_is_separated():
    job, last = searched(regression(60, 5))
    assert "separated_fold" not in codes(worth(job, last))


def test_without_like_hyperparameters_there_is_no_baseline():
    problem = replace(regression(40, 3), time=np.arange(40.0))
    job, last = searched(problem, Ridge(penalty=Shared(), weights=SigmoidTime()))
    assert len(last.best.best.rho) > 1
    found = worth(job, last)
    assert (found.baseline, found.optimism, found.corrected) == (None, None, None)
    (finding,) = found.findings
    assert (finding.code, finding.severity) == ("baseline_unavailable", "info")
    assert "no two hyperparameters are alike" in finding.text


def test_a_single_hyperparameter_needs_none():
    job, last = searched(regression(40, 3), Ridge())
    assert worth(job, last) == type(worth(job, last))(None, None, None, ())


def test_a_search_that_ends_before_the_shared_value_says_so():
    plain = Ridge(penalty=PerFeature(spread=None))
    job, last = searched(regression(60, 5), plain, max_evaluations=3)
    found = worth(job, last)
    assert found.baseline is None
    assert "ended before it was found" in next(f for f in found.findings if f.code == "baseline_unavailable").text
    _, whole = searched(regression(60, 5))  # the path begins with it
    enough = whole.starts[0].evaluations + 1
    for limit in (3, enough):
        job, last = searched(regression(60, 5), max_evaluations=limit)
        assert last.ended is Outcome.MAX_EVALUATIONS
        found = worth(job, last)
        assert ("baseline_unavailable" in codes(found)) is (limit < enough)
        assert (found.baseline is None) is (limit < enough)
    assert found.baseline.difference == 0.0


@pytest.mark.parametrize("selection", [Evidence(), Holdout(loss=SmoothedAuc())], ids=lambda one: one.kind)
def test_what_is_no_mean_over_rows_has_a_difference_without_a_correction(selection):
    training = Ridge if isinstance(selection, Evidence) else LogisticRegression
    problem = regression(60, 5) if training is Ridge else table("logistic", 60)
    job, last = searched(problem, training(penalty=PerFeature()), selection)
    found = worth(job, last)
    assert found.baseline.difference < 0
    assert (found.optimism, found.corrected) == (None, None)
    assert (found.baseline.difference_error is None) == isinstance(selection, Evidence)
    assert "gain_below_optimism" not in codes(found)


def test_leave_one_out_is_compared_row_by_row():
    job, last = searched(regression(30, 4), selection=LeaveOneOut())
    found, shared = worth(job, last), last.starts[0]
    X, y = job.problem.X, job.problem.y
    mean, scale = X.mean(axis=0), X.std(axis=0)
    errors = []
    for start in (last.best, shared):
        lam, losses = np.exp(start.best.rho), []
        for i in range(30):
            rest = np.delete(np.arange(30), i)  # columns are scaled, and the total penalty is, as for all rows
            Z = (X - mean) / scale
            constant, theta = ridge(Z[rest], y[rest], lam * 30 / 29, intercept=True, standardize=False)
            losses.append((y[i] - constant - Z[i] @ theta) ** 2)
        errors.append(np.array(losses))
    difference = errors[0] - errors[1]
    assert_allclose(found.baseline.difference, difference.mean(), rtol=1e-7)
    assert_allclose(found.baseline.difference_error, difference.std(ddof=1) / np.sqrt(30), rtol=1e-7)
