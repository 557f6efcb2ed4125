"""With one or two hyperparameters `auto` does not end in the worse of two minima: no grid finds a lower J."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.core.conftest import regression
from tests.core.scan_jobs import job
from worker import checkpoint
from worker.core.hypergradient import HypergradientAuto
from worker.core.outer import Newton, OuterAuto
from worker.core.outer.scan import Scan, lowest_between
from worker.core.penalties import PerFeature, Shared
from worker.core.records import Evaluation, Outcome, Start
from worker.core.rows.problem import Problem
from worker.core.search.nested import Nested
from worker.core.search.plan import Plan, Prepared, prepare
from worker.core.search.procedure import carry_out
from worker.core.search.tune import tune
from worker.core.selection import KFold
from worker.core.training import LogisticRegression, Ridge
from worker.core.training.generalized_linear import GeneralizedLinearTraining

pytestmark = [pytest.mark.unchecked, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

TOLERANCE = 1e-6  # relative to J, by which the grid may be lower
SLOW = (43,)  # of these, a quarter of a minute
TWO = (0, 3, 15, 35, 43)  # jobs with two: linear, smooth and kernel ones; the first descents of some end higher
WORSE_AT_FIRST = (30, 38, 43)  # jobs with one hyperparameter whose first descent ends in a worse minimum


def end_of(prepared: Prepared, resume=None):
    *_, last = tune(prepared, resume)
    return last


def with_outer(prepared: Prepared, outer) -> Prepared:
    return prepare(prepared.problem, replace(prepared.plan, outer=outer))


def on_grid(prepared: Prepared, points: int) -> np.ndarray:
    box = prepared.objective.hyperparameters
    axes = [np.linspace(high, low, points) for low, high in zip(box.lower, box.upper, strict=True)]
    grid = np.stack(np.meshgrid(*axes), -1).reshape(-1, len(axes))
    return np.array([prepared.objective.value(rho) for rho in grid])


def compare_with_grid(hyperparameters: int, seeds: Iterable[int], points: int, *, hinges: float = 0.0) -> None:
    """`hinges`: the share of support vector machines that may end above the grid; everything else must not.

    A job whose J is not a number at more than a tenth of the grid counts for nothing: rounding makes the rest.
    """
    counts, worse, machines, lost = [], [], 0, []
    for seed in seeds:
        prepared = job(seed, hyperparameters)
        last = end_of(prepared)
        found, values = last.best.best.value, on_grid(prepared, points)
        machines += prepared.plan.training.kind == "kernel_svm"
        if np.isfinite(values).mean() < 0.9:
            lost.append(seed)
            continue
        counts.append((last.scanned, last.evaluations))
        tolerance = TOLERANCE * max(abs(found), prepared.objective.unit(found))
        if not values[np.isfinite(values)].min() >= found - tolerance:
            worse.append((seed, prepared.plan.training.kind, prepared.plan.selection.kind, found))
    mean, most = np.mean(counts, axis=0), np.max(counts, axis=0)
    print(
        f"{len(counts)} jobs: the scan took {mean[0]:.1f} evaluations of {mean[1]:.1f}, at most {most[0]} of {most[1]}"
    )
    print("not comparable:", lost, "above the grid:", worse)
    assert len(lost) <= max(0.02 * len(counts), 1)
    assert len(worse) <= hinges * machines
    assert {kind for _, kind, *_ in worse} <= {"kernel_svm"}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", [range(5), range(20, 23)], ids=str)
def test_no_grid_of_one_hyperparameter_is_lower(seeds):
    compare_with_grid(1, seeds, 100)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [pytest.param(seed, marks=[pytest.mark.slow] * (seed in SLOW)) for seed in TWO])
def test_no_grid_of_two_hyperparameters_is_lower(seed):
    compare_with_grid(2, [seed], 30)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seeds", [range(n, n + 250) for n in range(0, 2000, 250)], ids=str)
def test_no_grid_of_one_hyperparameter_is_lower_in_2000_jobs(seeds):
    compare_with_grid(1, seeds, 100)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seeds", [range(n, n + 50) for n in range(0, 300, 50)], ids=str)
def test_no_grid_of_two_hyperparameters_is_lower_in_300_jobs(seeds):
    compare_with_grid(2, seeds, 30, hinges=0.25)


@pytest.mark.parametrize("seed", WORSE_AT_FIRST)
def test_a_descent_alone_ends_higher_and_is_the_beginning_of_the_search(seed):
    prepared = job(seed, 1)
    alone = list(tune(with_outer(prepared, prepared.outer)))
    scanned = list(tune(prepared))
    assert scanned[-1].best.best.value < alone[-1].best.best.value * (1 - 1e-3)
    assert scanned[-1].ended in {Outcome.CONVERGED, Outcome.AT_BOUNDS}
    for a, b in zip(alone[:-1], scanned, strict=False):
        assert (a.at.rho == b.at.rho).all()
        assert a.at.value == b.at.value
    assert alone[-1].scanned == 0 < scanned[-1].scanned <= scanned[-1].evaluations - len(alone) + 1
    assert scanned[-1].iterations >= alone[-1].iterations


@pytest.mark.parametrize(("seed", "hyperparameters"), [(30, 1), (24, 1), (15, 2), (3, 2)])
def test_resumed_anywhere_it_ends_with_the_same_bits(seed, hyperparameters):
    whole = list(tune(job(seed, hyperparameters)))
    saved = [i for i, step in enumerate(whole) if step.state is not None]
    assert len(saved) > 12
    for i in saved[:: 1 + len(saved) // 6]:
        state = checkpoint.unpack(checkpoint.pack(whole[i].state))
        rest = list(tune(job(seed, hyperparameters), state))
        assert len(rest) == len(whole) - i - 1
        for a, b in zip(rest, whole[i + 1 :], strict=True):
            assert (a.at.rho == b.at.rho).all()
            assert (a.at.value, a.evaluations, a.scanned) == (b.at.value, b.evaluations, b.scanned)
        assert same(rest[-1].best, whole[-1].best)


def same(a: Start, b: Start) -> bool:
    """Equal to the last bit."""

    def bits(one: object) -> list[object]:
        if isinstance(one, Start | Evaluation):
            return [part for field in fields(one) for part in bits(getattr(one, field.name))]
        return [np.asarray(one).tobytes() if isinstance(one, np.ndarray | float) else one]

    return bits(a) == bits(b)


def test_budgets_count_the_scan_and_keep_what_was_found_before():
    prepared = job(30, 1)
    whole = list(tune(prepared))
    first = next(i for i, step in enumerate(whole) if step.scanned)
    for most in (1, first, first + 3, len(whole) - 2):
        few = list(tune(prepare(prepared.problem, replace(prepared.plan, max_evaluations=most))))
        assert few[-1].ended is Outcome.MAX_EVALUATIONS
        assert few[-1].evaluations == most
        assert_allclose(few[-1].best.best.value, min(step.at.value for step in whole[:most]), rtol=1e-10)
    target = whole[-1].best.best.value * 1.01  # only the scan leads there
    early = end_of(prepare(prepared.problem, replace(prepared.plan, target_value=target)))
    assert early.ended is Outcome.TARGET_VALUE
    assert early.scanned > 0
    one = end_of(prepare(prepared.problem, replace(prepared.plan, outer=OuterAuto(max_iterations=1))))
    assert (one.ended, one.iterations, one.scanned) == (Outcome.MAX_ITERATIONS, 1, 0)


def test_points_without_a_minimizer_are_survived_the_initial_one_too():
    problem = regression(30, 2)
    twins = Problem(np.column_stack([problem.X[:, 0]] * 2), problem.y, ("a", "b"))
    penalty = Shared(initial=1e-250, lower=1e-250, upper=1e3)
    prepared = prepare(twins, Plan(Ridge(penalty=penalty), KFold(), HypergradientAuto(), OuterAuto()))
    steps = list(tune(prepared))
    assert steps[0].at.failure is Outcome.SINGULAR
    last = steps[-1]
    assert last.ended in {Outcome.CONVERGED, Outcome.AT_BOUNDS}
    assert last.best.refused > 1
    assert on_grid(prepared, 100).min() >= last.best.best.value * (1 - TOLERANCE)
    assert end_of(with_outer(prepared, Newton())).ended is Outcome.SINGULAR


def test_points_at_which_a_row_alone_determines_the_fit_are_survived():
    last = end_of(job(1107, 1))  # the matrix of approximate leave-one-out is singular there
    assert last.best.refused > 0
    assert np.isfinite(last.best.best.value)


def test_later_starts_and_chosen_optimizers_do_not_scan():
    problem = regression(40, 3)
    plan = Plan(Ridge(penalty=Shared()), KFold(), HypergradientAuto(), OuterAuto(starts=3), seed=4)
    several = end_of(prepare(problem, plan))
    alone = end_of(prepare(problem, replace(plan, outer=Newton(starts=3))))
    assert [start.scanned > 0 for start in several.starts] == [True, False, False]
    for a, b in zip(several.starts[1:], alone.starts[1:], strict=True):
        assert same(a, b)
    assert alone.scanned == 0
    three = prepare(problem, replace(plan, training=Ridge(penalty=PerFeature(spread=None)), outer=OuterAuto()))
    assert not three.scans
    last = end_of(three)
    assert [start.scanned for start in last.starts[:-1]] == [0]
    assert last.starts[-1].scanned > 0  # that of the shared value, which is one


def test_the_outer_folds_of_nested_cross_validation_scan_too():
    plan = Plan(Ridge(), KFold(), HypergradientAuto(), OuterAuto(), nested=Nested(folds=2))
    *_, last = carry_out(prepare(regression(40, 3), plan))
    assert all(0 < fold.scanned < fold.evaluations for fold in last.folds)
    assert last.scanned == last.starts[0].scanned + sum(fold.scanned for fold in last.folds)


def test_fits_of_the_scan_are_rough_if_those_of_the_search_are(monkeypatch):
    monkeypatch.setattr(GeneralizedLinearTraining, "method", lambda *_: "newton_cg")
    random = np.random.default_rng(3)
    X = random.normal(size=(60, 4))
    y = (X[:, 0] + random.normal(size=60) > 0).astype(float)
    problem = Problem(X, y, ("a", "b", "c", "d"), classes=("no", "yes"))
    prepared = prepare(problem, Plan(LogisticRegression(), KFold(folds=3), HypergradientAuto(), OuterAuto()))
    steps = list(tune(prepared))
    assert prepared.outer.kind == "inexact"
    scan = [b.at for a, b in pairwise(steps) if b.scanned > a.scanned]
    assert max(at.value_error for at in scan) > 0
    assert steps[-1].best.best.value_error == 0
    for i in [i for i, step in enumerate(steps) if step.state is not None][::4]:
        again = end_of(prepare(problem, prepared.plan), steps[i].state)
        assert same(again.best, steps[-1].best)


def test_the_grid_covers_the_box_with_exact_bounds_and_each_point_beside_the_last():
    for hyperparameters in (1, 2):
        prepared = job(0, hyperparameters)
        box, scan = prepared.objective.hyperparameters, Scan.of(prepared.objective)
        assert (scan.grid.min(axis=0) == box.lower).all()
        assert (scan.grid.max(axis=0) == box.upper).all()
        assert (scan.grid[0] == box.upper).all()
        assert_allclose(np.abs(np.diff(scan.grid, axis=0) / scan.unit).sum(axis=1), 1.0)


def test_a_minimum_between_two_points_is_seen_by_values_and_slopes():
    def look(f, df, a, b):
        values, slopes = ((np.array([h(a)]), np.array([h(b)])) for h in (f, lambda x: df(x) * (b - a)))
        low, share = lowest_between(values, slopes)
        return low[0], a + share[0] * (b - a)

    low, at = look(lambda x: (x - 1.3) ** 2, lambda x: 2 * (x - 1.3), 0.0, 2.0)
    assert low < 0  # the exact bottom is 0
    assert_allclose(at, 1.3)
    low, at = look(lambda x: x**3 - x, lambda x: 3 * x**2 - 1, -0.9, 1.5)  # a maximum and a minimum in between
    assert low < -0.385
    assert_allclose(at, 1 / np.sqrt(3))
    assert look(lambda x: (x - 3) ** 2, lambda x: 2 * (x - 3), 0.0, 1.0)[0] == np.inf  # nothing between
    low, _ = look(lambda x: np.cos(6 * x), lambda x: -6 * np.sin(6 * x), 0.0, 2.0)  # more than the cubic can show
    assert low < -1
