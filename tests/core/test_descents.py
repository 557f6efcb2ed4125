"""The path of hyper-priors and the choice on it: resumed, stopped, beside loops over rows, for mixes of families."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.core.conftest import grouped, regression
from tests.core.rule_in_loops import chosen_in_loops, rule_in_loops
from tests.core.smooth.problems import table
from tests.oracles import ridge
from tests.perturbed import perturbed
from worker import checkpoint
from worker.ahead import Ahead
from worker.core.hypergradient import HypergradientAuto
from worker.core.kernels import Matern, Rbf, Sum, WidthPerFeature
from worker.core.losses import SmoothedAuc
from worker.core.outer import Inexact, Lbfgs, Newton, OuterAuto
from worker.core.penalties import PerClass, PerCoefficient, PerFeature, PerGroup, Shared
from worker.core.records import Outcome
from worker.core.rows.problem import Problem
from worker.core.search.descents import BUDGET_OUTCOMES, PATH, SHARED, WITHOUT_CHOICE, Descents
from worker.core.search.nested import Nested
from worker.core.search.plan import Plan, prepare
from worker.core.search.procedure import carry_out
from worker.core.search.tune import tune
from worker.core.selection import Evidence, GroupKFold, Holdout, KFold, LeaveOneOut, WalkForward
from worker.core.training import HuberRegression, KernelRidge, LogisticRegression, MultinomialRegression, Ridge

pytestmark = pytest.mark.unchecked  # thousands of evaluations; shapes are checked in test_prior.py


def job_of(training, problem, selection=None, outer=None, **settings):
    plan = Plan(training, selection or KFold(folds=3), HypergradientAuto(), outer or Newton(), **settings)
    return prepare(problem, plan)


def small(spread="auto", outer=None, **settings):
    return job_of(Ridge(penalty=PerFeature(spread=spread)), regression(36, 5), outer=outer, **settings)


def end_of(job, **given):
    *_, last = tune(job, **given)
    return last


def bits(value):
    """What is equal only if every bit is."""
    if dataclasses.is_dataclass(value):
        return [bits(getattr(value, one.name)) for one in dataclasses.fields(value)]
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.str, value.tobytes()
    if isinstance(value, dict):
        return {name: bits(one) for name, one in value.items()}
    return [bits(one) for one in value] if isinstance(value, tuple) else repr(value)


def assert_resumed_it_is_the_same(job, every=1, least=5):
    """From each state of the search, packed and unpacked, by a job that knows nothing of the first one."""
    whole = list(tune(job))
    states = [i for i, step in enumerate(whole) if step.state is not None]
    assert len(states) >= least
    for i in {*states[::every], *_ends_of_starts(whole)}:
        again = prepare(job.problem, job.plan)
        rest = list(tune(again, checkpoint.unpack(checkpoint.pack(whole[i].state))))
        assert len(rest) == len(whole) - i - 1
        assert bits(rest[-1]) == bits(whole[-1])
    return whole[-1]


def _ends_of_starts(steps):
    """The first state of each start, where a descent begins from where the last one ended, and its last two."""
    found = {}
    for i, step in enumerate(steps):
        if step.state is not None:
            found.setdefault(len(step.starts), []).append(i)
    return [i for states in found.values() for i in (states[0], *states[-2:])]


def of_two_kernels():
    kernel = Sum(terms=(Rbf(widths=WidthPerFeature()), Matern(widths=WidthPerFeature(spread=None))))
    return job_of(KernelRidge(kernel=kernel), regression(24, 2), KFold(folds=2), Lbfgs(tolerance=1e-2))


def at_a_bound():
    """The best shared value is below the box."""
    return job_of(Ridge(penalty=PerFeature(initial=30.0, lower=5.0, upper=1e4)), regression(40, 4))


def wide():
    return job_of(Ridge(penalty=PerFeature()), regression(24, 30), outer=Newton(tolerance=1e-3))


def logistic(outer=None, **settings):
    training = LogisticRegression(penalty=PerFeature(), **settings)
    return job_of(training, table("logistic", 50), Holdout(fraction=0.4), outer or Newton(tolerance=1e-4))


def huber():
    problem = table("huber", 50)
    training = HuberRegression(penalty=PerFeature(), solver="newton_cg")
    return job_of(training, problem, Holdout(fraction=0.5), Newton(tolerance=1e-4))


def with_outliers():
    """Rows that would move the hyperparameters far."""
    problem = regression(40, 6)
    y = problem.y + np.where(np.arange(40) % 13 == 5, 40.0, 0.0)
    return job_of(Ridge(penalty=PerFeature()), replace(problem, y=y), Holdout(fraction=0.4))


RESUMED = {
    "newton": (small, 1), "lbfgs": (lambda: small(outer=Lbfgs()), 6),
    "starts": (lambda: small(outer=Newton(starts=3)), 20),
    "given": (lambda: small(0.7), 4), "plain": (lambda: small(None), 4), "bound": (at_a_bound, 4),
    "warm starts": (lambda: logistic(solver="newton_cg"), 20), "wide": (wide, 9), "huber": (huber, 20),
}  # fmt: skip
LONG = {
    "every": (lambda: logistic(solver="newton_cg"), 3),
    "inexact": (lambda: logistic(Inexact()), 6), "two kernels": (of_two_kernels, 5),
    "every start": (lambda: small(outer=Newton(starts=3)), 1),
}  # fmt: skip


@pytest.mark.parametrize("name", [*RESUMED, *(pytest.param(name, marks=pytest.mark.slow) for name in LONG)])
def test_resumed_anywhere_on_the_path_it_ends_in_the_same_bits(name):
    build, every = (RESUMED | LONG)[name]
    assert_resumed_it_is_the_same(build(), every)


# which descents there are


def test_the_path_begins_at_the_shared_optimum_and_each_descent_where_the_last_one_ended():
    last = end_of(small())
    assert [start.spread for start in last.starts] == [SHARED, *PATH]
    for before, start in pairwise(last.starts):
        assert_allclose(start.initial.rho, before.best.rho, rtol=1e-14)
    assert len({*last.starts[0].best.rho.tolist()}) == 1
    assert last.starts[0].best.prior == 0.0
    assert_allclose([start.initial.prior for start in last.starts[1:2]], 0.0, atol=1e-12)
    for start in last.starts[1:]:
        assert start.best.prior > 0
        assert start.best.selection < last.starts[0].best.value
    assert [point.spread for point in last.choice.path] == [SHARED, *PATH]
    assert [point.value for point in last.choice.path] == [start.best.selection for start in last.starts]


def test_the_shared_optimum_is_that_of_one_penalty():
    last = end_of(small(outer=Newton(tolerance=1e-9)))
    one = end_of(job_of(Ridge(penalty=Shared()), regression(36, 5), outer=OuterAuto(tolerance=1e-9)))
    assert_allclose(last.starts[0].best.value, one.best.best.value, rtol=1e-10)
    assert_allclose(last.starts[0].best.rho, np.repeat(one.best.best.rho, 5), atol=1e-4)


def test_a_given_spread_is_descended_alone_and_is_the_result():
    last = end_of(small(0.7))
    assert [start.spread for start in last.starts] == [SHARED, 0.7]
    assert (last.choice.by, last.choice.spread) == ("given", 0.7)
    assert last.best is last.starts[1]
    assert last.ended is Outcome.CONVERGED
    narrow, wide_ = (end_of(small(spread)).best.best for spread in (0.05, 20.0))
    assert np.ptp(narrow.rho) < np.ptp(last.best.best.rho) < np.ptp(wide_.rho)
    assert narrow.selection > last.best.best.selection > wide_.selection


def test_without_a_spread_the_shared_value_is_searched_for_last():
    last = end_of(small(None, Newton(starts=2)))
    assert [start.spread for start in last.starts] == [None, None, SHARED]
    assert last.choice is None
    assert any(last.best is start for start in last.starts[:2])
    assert last.ended is last.best.outcome
    assert_allclose(last.starts[2].best.value, end_of(small()).starts[0].best.value, rtol=1e-9)


@pytest.mark.parametrize(
    "penalty",
    [Shared(), PerGroup(groups={"all": tuple(f"x{j}" for j in range(5))}), PerFeature()],
    ids=lambda p: p.kind,
)
def test_a_single_member_is_tuned_plainly(penalty):
    problem = regression(36, 5)
    if isinstance(penalty, PerFeature):
        problem = Problem(problem.X[:, :1], problem.y, ("x0",))
    last = end_of(job_of(Ridge(penalty=penalty), problem))
    assert [start.spread for start in last.starts] == [None]
    assert last.choice is None


def test_a_shared_optimum_at_a_bound_gives_the_start_a_descent_of_its_own():
    job = at_a_bound()
    last = end_of(job)
    box = job.objective.hyperparameters
    assert (last.starts[0].best.rho == box.lower).all()
    assert [start.spread for start in last.starts] == [SHARED, PATH[0], *PATH]
    assert (last.starts[1].initial.rho == box.lower).all()
    assert (last.starts[2].initial.rho == box.initial).all()
    best = min(last.starts[1:3], key=lambda start: start.best.value)
    assert (last.starts[3].initial.rho == best.best.rho).all()
    assert len(last.choice.path) == 1 + len(PATH)
    assert last.choice.path[1].value == best.best.selection


def test_everything_at_a_bound():
    last = end_of(job_of(Ridge(penalty=PerFeature(initial=1e-6, lower=1e-6, upper=1e-5)), regression(400, 3)))
    assert last.ended in {Outcome.CONVERGED, Outcome.AT_BOUNDS}
    assert np.isfinite([point.corrected for point in last.choice.path]).all()


def test_more_hyperparameters_than_rows_do_not_go_to_the_wide_priors():
    last = end_of(wide())
    assert [start.spread for start in last.starts] == [SHARED, *(s for s in PATH if s <= 0.5)]
    assert last.choice.by == "jackknife"


@pytest.mark.parametrize("selection", [Evidence(), Holdout(loss=SmoothedAuc())], ids=lambda one: one.kind)
def test_what_is_no_mean_over_rows_has_the_fixed_spread(selection):
    if isinstance(selection, Evidence):
        job = job_of(Ridge(penalty=PerFeature()), regression(36, 4), selection)
    else:
        job = job_of(LogisticRegression(penalty=PerFeature()), table("logistic", 60), selection)
    last = end_of(job)
    assert {start.spread for start in last.starts} == {SHARED, WITHOUT_CHOICE}
    assert (last.choice.by, last.choice.spread) == ("fixed", WITHOUT_CHOICE)
    assert [point.corrected for point in last.choice.path] == [None, None]
    assert last.best.spread == WITHOUT_CHOICE


def test_a_family_without_a_prior_beside_one_with_it_is_free_and_never_shared():
    job = of_two_kernels()
    last = end_of(job)
    assert [start.spread for start in last.starts] == [SHARED, *PATH]
    first, second = (family.members for family in job.objective.hyperparameters.families)
    for members in (first, second):
        assert np.ptp(last.starts[0].best.rho[members]) < 1e-12
    prior = Descents(job).prior(last.starts[0], PATH[0])
    assert [one.members.tolist() for one in prior.families] == [first.tolist()]
    gradient = prior.gradient(last.starts[1].best.rho)
    assert (gradient[second] == 0).all()
    assert last.choice.by == "jackknife"
    assert last.choice.spread > 0


def test_families_with_spreads_of_their_own_keep_them():
    kernel = Sum(terms=(Rbf(widths=WidthPerFeature(spread=0.3)), Matern(widths=WidthPerFeature())))
    job = job_of(KernelRidge(kernel=kernel), regression(24, 2), KFold(folds=2), Lbfgs(tolerance=1e-1))
    last = end_of(job)
    assert [start.spread for start in last.starts] == [SHARED, *PATH]
    for spread in PATH:
        assert [one.spread for one in Descents(job).prior(last.starts[0], spread).families] == [0.3, spread]


def test_further_starts_descend_with_the_chosen_prior_and_the_best_is_the_result():
    last = end_of(small(outer=Newton(starts=4), seed=2))
    chosen = last.choice.spread
    assert chosen > 0
    assert [start.spread for start in last.starts] == [SHARED, *PATH, *([chosen] * 3)]
    points = np.array([start.initial.rho for start in last.starts[1 + len(PATH) :]])
    assert len(np.unique(points[:, 0])) == 3
    same = [start for start in last.starts if start.spread == chosen]
    assert last.best.best.value == min(start.best.value for start in same)
    alone = end_of(small(seed=2))
    assert alone.choice == last.choice


def test_further_starts_are_not_tried_for_a_shared_value():
    """Features that are alike in truth: no spread holds on new rows."""
    rng = np.random.default_rng(8)
    X = rng.normal(size=(40, 5))
    alike = Problem(X, X @ np.ones(5) + 2.0 * rng.normal(size=40), tuple("abcde"))
    last = end_of(job_of(Ridge(penalty=PerFeature()), alike, outer=Newton(starts=4)))
    assert last.choice.spread == SHARED
    assert last.best is last.starts[0]
    assert [start.spread for start in last.starts] == [SHARED, *PATH]
    assert (last.at.rho == last.starts[0].best.rho).all()
    assert last.gradient_norm == last.starts[0].gradient_norm


@pytest.mark.parametrize("spread", ["auto", None])
def test_searched_ahead_every_step_is_the_same(spread):
    job = small(spread, Newton(starts=3))
    expected = [bits(step) for step in tune(job)]
    with Ahead(2, 0.0) as searches:
        assert [bits(step) for step in tune(job, None, searches)] == expected


def test_a_start_without_a_minimum_ends_the_search():
    problem = regression(30, 2)
    twins = Problem(np.column_stack([problem.X[:, 0]] * 2), problem.y, ("a", "b"))
    last = end_of(job_of(Ridge(penalty=PerFeature(initial=1e-300, lower=1e-300, upper=1e-290)), twins))
    assert last.ended is Outcome.SINGULAR
    assert [start.spread for start in last.starts] == [SHARED]


def test_features_of_a_kind_have_their_own_centre():
    """Ten strong columns, forty weak ones: two shared values, and centres that are far from each other."""
    rng = np.random.default_rng(4)
    X = rng.normal(size=(90, 24))
    y = X[:, 4:10] @ np.full(6, 1.5) + 0.1 * X[:, 10:].sum(axis=1) + rng.normal(size=90)
    names = tuple(f"x{j}" for j in range(24))
    groups = {"strong": names[9:3:-1], "weak": names[10:]}  # x0 to x3 are in none
    penalty = PerFeature(groups=groups)
    job = job_of(Ridge(penalty=penalty), Problem(X, y, names))
    box = job.objective.hyperparameters
    assert box.names == tuple(f"penalty[{name}]" for name in names)
    assert [(kind.name, kind.members.tolist()) for kind in box.families] == [
        ("penalty of strong", list(range(4, 10))), ("penalty of weak", list(range(10, 24))),
        ("penalty of others", [0, 1, 2, 3]),
    ]  # fmt: skip
    last = end_of(job)
    shared = last.starts[0].best.rho
    assert all(len(set(shared[kind.members])) == 1 for kind in box.families)
    assert shared[10] - shared[4] > 2.0
    alike = end_of(job_of(Ridge(penalty=PerFeature()), Problem(X, y, names)))
    assert last.starts[0].best.value < 0.95 * alike.starts[0].best.value
    for spread in PATH:
        prior = Descents(job).prior(last.starts[0], spread)
        assert [one.members.tolist() for one in prior.families] == [kind.members.tolist() for kind in box.families]
        assert [one.floor for one in prior.families] == [shared[4], shared[10], shared[0]]


def test_an_initial_value_without_a_minimum_is_survived():
    problem = regression(40, 2)
    twins = Problem(np.column_stack([problem.X[:, [0, 0]], problem.X[:, 1]]), problem.y, ("a", "b", "c"))
    penalty = PerFeature(initial=1e-250, lower=1e-250, upper=1e3)
    steps = list(tune(job_of(Ridge(penalty=penalty), twins)))
    assert steps[0].at.failure is Outcome.SINGULAR
    last = steps[-1]
    assert last.ended in {Outcome.CONVERGED, Outcome.AT_BOUNDS}
    assert [start.spread for start in last.starts][:2] == [SHARED, PATH[0]]
    for number in range(0, len(steps) - 1, 5):  # those after failures have a state, too
        if steps[number].state is not None:
            again = list(tune(job_of(Ridge(penalty=penalty), twins), steps[number].state))
            assert [bits(step) for step in again] == [bits(step) for step in steps[number + 1 :]]


# budgets


def stopped_at(job, limit):
    return list(tune(prepare(job.problem, replace(job.plan, max_evaluations=limit))))


def expected_at_a_stop(job, starts):
    """The spread and the best start of what has ended by itself, by hand."""
    ended = [start for start in starts[: len(PATH) + 1] if start.outcome not in BUDGET_OUTCOMES]
    if not ended:
        return SHARED
    return Descents(job).choice(tuple(ended)).spread


def test_after_any_number_of_evaluations_the_result_is_of_the_descents_that_have_ended():
    job = small(outer=Newton(starts=2))
    whole = list(tune(job))
    total = whole[-1].evaluations
    borders = np.cumsum([start.evaluations for start in whole[-1].starts])
    seen = set()
    for limit in sorted({1, 2, total, total - 1, *range(3, total, 15), *(b + d for b in borders for d in (-1, 0, 1))}):
        if limit > total:
            continue
        steps = stopped_at(job, limit)
        last = steps[-1]
        assert len(steps) == limit + 1
        assert [bits(step.at) for step in steps[:-1]] == [bits(step.at) for step in whole[:limit]]
        assert last.ended is Outcome.MAX_EVALUATIONS
        assert last.evaluations == limit
        spread = expected_at_a_stop(job, last.starts)
        assert (last.best.spread, last.choice.spread if last.choice else SHARED) == (spread, spread)
        whole_path = len(last.starts) > 1 + len(PATH)
        assert (last.choice.by if last.choice else None) == ("jackknife" if whole_path else None)
        assert last.best.best.value == min(s.best.value for s in last.starts if s.spread == spread)
        assert (last.at.rho == last.best.best.rho).all()
        resumed = next(step.state for step in reversed(steps) if step.state is not None)
        again = prepare(job.problem, replace(job.plan, max_evaluations=limit))
        assert bits(end_of(again, resume=resumed)) == bits(last)
        seen.add(len(last.starts))
    assert seen == set(range(1, len(whole[-1].starts) + 1))


def test_a_target_ends_the_search_in_the_descent_that_reaches_it():
    job = small()
    whole = list(tune(job))
    values = [start.best.selection for start in whole[-1].starts]
    assert values == sorted(values, reverse=True)
    initial = whole[0].at.value
    for number, (before, here) in enumerate(pairwise([initial, *values])):
        target = here + 0.3 * (before - here)
        steps = list(tune(prepare(job.problem, replace(job.plan, target_value=target))))
        last = steps[-1]
        assert last.ended is Outcome.TARGET_VALUE
        assert len(last.starts) == number + 1
        assert last.best is last.starts[-1]
        assert last.best.best.selection <= target
        assert all(step.best.best.selection > target for step in steps[:-2])
        assert last.choice is None
    below = list(tune(prepare(job.problem, replace(job.plan, target_value=0.9 * values[-1]))))
    assert bits(below[-1]) == bits(whole[-1])


def test_iterations_are_counted_for_each_descent():
    last = end_of(small(outer=Newton(max_iterations=1, tolerance=1e-12)))
    assert [start.spread for start in last.starts] == [SHARED, *PATH]
    assert [start.iterations for start in last.starts] == [1] * len(last.starts)
    assert {start.outcome for start in last.starts} == {Outcome.MAX_ITERATIONS}
    assert last.ended is Outcome.MAX_ITERATIONS
    assert last.choice.by == "jackknife"


def test_a_search_stopped_from_outside_is_at_the_best_of_what_has_ended():
    """As the loop of jobs does at its time limit or on request."""
    job = small()
    descents = Descents(job)
    for step in tune(job):
        if step.ended is not None:
            break
        ended = [start for start in step.starts if start.outcome is not None]
        here = descents.ended_here(step)
        spread = Descents(job).choice(tuple(ended)).spread if ended else SHARED
        assert here.best.spread == spread
        assert here.at.value == here.best.best.value


# the choice


def of_groups():
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(9), 5)
    problem = regression(45, 5)
    problem = replace(problem, groups=groups, y=problem.y + rng.normal(size=9)[groups])
    return job_of(Ridge(penalty=PerFeature()), problem, GroupKFold(folds=3))


def weighted():
    rng = np.random.default_rng(12)
    problem = replace(regression(45, 5), weights=rng.uniform(0.2, 2.0, 45), scoring=rng.integers(0, 3, 45) + 0.0)
    return job_of(Ridge(penalty=PerFeature()), problem, Holdout(fraction=0.5))


JUDGED = {
    "ridge": small,
    "bound": at_a_bound,
    "wide": wide,
    "groups of rows": of_groups,
    "steps in time": lambda: job_of(
        Ridge(penalty=PerFeature()), regression(50, 4), WalkForward(initial=20, horizon=5)
    ),
    "weights": weighted,
    "groups of features": lambda: job_of(Ridge(penalty=grouped(regression(40, 7), "auto")), regression(40, 7)),
    "leave_one_out": lambda: job_of(Ridge(penalty=PerFeature()), regression(36, 5), LeaveOneOut()),
    "logistic": logistic,
    "huber": huber,
    "outliers": with_outliers,
    "classes": lambda: job_of(
        MultinomialRegression(penalty=PerClass()), table("multinomial", 60), Holdout(fraction=0.4)
    ),
    "coefficients": lambda: job_of(
        MultinomialRegression(penalty=PerCoefficient()), table("multinomial", 60), Holdout(fraction=0.4),
        Newton(tolerance=1e-4),
    ),
    "widths": lambda: job_of(
        KernelRidge(kernel=Rbf(widths=WidthPerFeature())), regression(30, 3), Holdout(fraction=0.4),
        Lbfgs(tolerance=1e-4),
    ),
    "two kernels": of_two_kernels,
}  # fmt: skip


@pytest.mark.parametrize("name", JUDGED)
def test_the_choice_is_that_of_the_rule_in_loops(name):
    job = JUDGED[name]()
    last = end_of(job)
    corrected, scores = rule_in_loops(job, last.starts)
    assert last.choice.by == "jackknife"
    assert [point.spread for point in last.choice.path] == sorted(corrected)
    assert_allclose([point.corrected for point in last.choice.path], list(corrected.values()), rtol=1e-7)
    shared = name != "two kernels"  # a family is not to have a shared value
    assert last.choice.spread == chosen_in_loops(job, scores, shared=shared)


def test_of_widths_the_least_spread_that_counts_is_chosen():
    """One input of three matters, and rows say so clearly: widths may differ, but no more than that takes."""
    problem = regression(60, 1)
    X = np.column_stack([problem.X, np.random.default_rng(1).normal(size=(60, 3))])
    y = np.sin(2.0 * X[:, 0]) + 0.1 * np.random.default_rng(2).normal(size=60)
    kernel = Rbf(widths=WidthPerFeature())
    job = job_of(KernelRidge(kernel=kernel), Problem(X, y, tuple("abcd")), KFold(folds=3), Lbfgs(tolerance=1e-4))
    last = end_of(job)
    _, scores = rule_in_loops(job, last.starts)
    assert scores[1.0] < scores[0.5] < scores[SHARED]
    assert last.choice.spread == 0.5


def test_the_caution_decides_between_a_shared_value_and_the_path():
    """A corrected value that is lower on the path by too little does not decide."""
    undecided = 0
    for seed in (8, 11, 14):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(40, 6))
        problem = Problem(X, X @ np.linspace(0.8, 0.1, 6) + 1.5 * rng.normal(size=40), tuple("abcdef"))
        job = job_of(Ridge(penalty=PerFeature()), problem)
        last = end_of(job)
        corrected, scores = rule_in_loops(job, last.starts)
        assert last.choice.spread == min(scores, key=scores.get)
        undecided += last.choice.spread != min(corrected, key=corrected.get)
    assert undecided > 0


def test_inputs_off_by_rounding_change_the_result_by_rounding():
    for build in (small, of_groups):
        job = build()
        problem = job.problem
        moved = [replace(problem, X=perturbed(problem.X, seed), y=problem.y) for seed in (1, 2)]
        first = end_of(job)
        for other in moved:
            last = end_of(prepare(other, job.plan))
            assert [start.spread for start in last.starts] == [start.spread for start in first.starts]
            assert last.choice.spread == first.choice.spread
            for a, b in zip(last.choice.path, first.choice.path, strict=True):
                assert_allclose([a.value, a.corrected], [b.value, b.corrected], rtol=1e-6)
            assert_allclose(last.best.best.value, first.best.best.value, rtol=1e-9)


# outer folds


@pytest.mark.parametrize("spread", ["auto", pytest.param(0.5, marks=pytest.mark.slow), None])
def test_each_outer_fold_repeats_the_whole_procedure(spread):
    problem = regression(36, 3)
    job = job_of(Ridge(penalty=PerFeature(spread=spread)), problem, outer=Newton(tolerance=1e-7), nested=Nested(2))
    steps = list(carry_out(job))
    last = steps[-1]
    own = end_of(job)
    assert (last.choice, last.ended) == (own.choice, own.ended)
    splits = job.plan.nested.splits(job.plan.selection, job.rows, problem)
    spreads = set()
    for (rows, scored), fold in zip(splits, last.folds, strict=True):
        part = Problem(problem.X[rows], problem.y[rows], problem.features)
        tuned = end_of(prepare(part, replace(job.plan, nested=None)))
        spreads.add(tuned.best.spread)
        lam = np.exp(tuned.best.best.rho)
        constant, theta = ridge(part.X, part.y, lam, intercept=True, standardize=True)
        errors = (problem.y[scored] - constant - problem.X[scored] @ theta) ** 2
        assert_allclose(fold.value, errors.mean(), rtol=1e-6)
        assert_allclose(fold.selection_value, tuned.best.best.selection, rtol=1e-8)
        assert (fold.evaluations, fold.iterations) == (tuned.evaluations, tuned.iterations)
    assert spreads == {None} if spread is None else None not in spreads
    for step in [step for step in steps if step.state is not None and all(s.outcome for s in step.starts)]:
        state = checkpoint.unpack(checkpoint.pack(step.state))
        *_, again = carry_out(prepare(job.problem, job.plan), state)
        assert bits(again) == bits(last)
