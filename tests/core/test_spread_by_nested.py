"""The spread of the hyper-prior, chosen by the outer folds: each scores every spread, and the lowest mean is taken."""

from __future__ import annotations

import functools
import io
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.contract.test_checkpoint import bits
from tests.core.conftest import regression
from tests.oracles import ridge
from worker import checkpoint
from worker.core.hypergradient import HypergradientAuto
from worker.core.objective.clustered import error_of_sums
from worker.core.outer import Newton, OuterAuto
from worker.core.penalties import PerFeature
from worker.core.records import Choice, FoldScore, Outcome, PathPoint, SpreadScore
from worker.core.rows.problem import Problem
from worker.core.search import descents as descents_module
from worker.core.search.chosen_by_folds import chosen_by_folds, pooled
from worker.core.search.descents import PATH, WIDEST_OF_MANY, WITHOUT_CHOICE, Descents
from worker.core.search.nested import Nested
from worker.core.search.plan import Plan, prepare
from worker.core.search.procedure import carry_out
from worker.core.search.tune import tune
from worker.core.selection import GroupKFold, KFold, LeaveOneOut, WalkForward
from worker.core.training import Ridge
from worker.core.verdict.baseline import worth

pytestmark = pytest.mark.unchecked

SHARED_BETTER, WIDE_BETTER = 3, 7  # seeds with which the folds choose the one or the other, against the jackknife


def plan(selection=None, folds=3, outer=None, spread="auto", **settings):
    settings = {"nested": Nested(folds), "spread_by": "nested", **settings}
    training = Ridge(penalty=PerFeature(spread=spread))
    return Plan(training, selection or KFold(folds=3), HypergradientAuto(), outer or OuterAuto(), **settings)


def steps_of(problem, the_plan, resume=None):
    prepared = prepare(problem, the_plan)
    return prepared, list(carry_out(prepared, resume))


@functools.cache
def run(seed, by="nested"):
    """On folds of 40 rows with 4 features, which several tests look at."""
    return steps_of(regression(40, 4, seed), plan(spread_by=by))


def only(problem, rows):
    """The problem of these rows alone."""
    roles = {name: getattr(problem, name)[rows] for name in ("groups", "time") if getattr(problem, name) is not None}
    return Problem(problem.X[rows], problem.y[rows], problem.features, **roles)


def naive(problem, the_plan):
    """Squared errors of the left-out rows for each spread, each fold by a job of its own; and its J."""
    alone = replace(the_plan, nested=None, spread_by="auto")
    parts = the_plan.nested.splits(the_plan.selection, np.arange(len(problem.y)), problem)
    losses, promised = {}, {}
    for rows, scored in parts:
        *_, last = tune(prepare(only(problem, rows), alone))
        for spread in {start.spread for start in last.starts}:
            best = min((one for one in last.starts if one.spread == spread), key=lambda one: one.best.value).best
            constant, theta = ridge(
                problem.X[rows], problem.y[rows], np.exp(best.rho), intercept=True, standardize=True
            )
            errors = (problem.y[scored] - constant - problem.X[scored] @ theta) ** 2
            losses.setdefault(spread, []).append(errors)
            promised.setdefault(spread, []).append(best.selection)
    order = np.concatenate([scored for _, scored in parts])
    return {spread: np.concatenate(each) for spread, each in losses.items()}, promised, order


@pytest.mark.parametrize(("selection", "seed"), [
    (KFold(folds=3), SHARED_BETTER),
    (KFold(folds=3), WIDE_BETTER),
    (LeaveOneOut(), 2),
    (GroupKFold(folds=3), 2),
    (WalkForward(initial=5, horizon=5), 3),
], ids=lambda one: getattr(one, "kind", one))  # fmt: skip
def test_the_spread_is_the_one_that_predicts_left_out_rows_best(selection, seed):
    problem = replace(regression(40, 4, seed), groups=np.arange(40) // 2)
    the_plan = plan(selection)
    last = steps_of(problem, the_plan)[1][-1]
    losses, promised, order = naive(problem, the_plan)
    assert set(losses) == {0.0, *PATH}
    for spread, each in losses.items():
        assert_allclose(pooled([fold.at(spread) for fold in last.folds]), each.mean(), rtol=1e-5)
        assert_allclose([fold.at(spread).selection_value for fold in last.folds], promised[spread], rtol=1e-6)
    chosen = min(losses, key=lambda spread: (losses[spread].mean(), spread))
    assert (last.choice.by, last.choice.spread) == ("nested", chosen)
    assert [point.spread for point in last.choice.path] == [0.0, *PATH]
    assert all(np.isfinite([point.value, point.corrected]).all() for point in last.choice.path)
    assert last.best.spread == chosen
    assert (last.at.rho == last.best.best.rho).all()
    assert last.ended is last.best.outcome
    # what is reported is of the chosen spread
    assert_allclose(pooled(last.folds), losses[chosen].mean(), rtol=1e-5)
    sums = sum(fold.clusters for fold in last.folds)
    assert_allclose(sums.sum(1), [losses[chosen].sum(), len(order)], rtol=1e-5)
    if selection.kind == "group_k_fold":
        parts = np.array([losses[chosen][problem.groups[order] == g].mean() for g in range(20)])
        assert_allclose(error_of_sums(sums), parts.std(ddof=1) / np.sqrt(20), rtol=1e-5)


def test_it_may_choose_otherwise_than_the_jackknife():
    for seed, spread in ((SHARED_BETTER, 0.0), (WIDE_BETTER, 1.0)):
        prepared, steps = run(seed)
        *_, searched = tune(prepared)
        assert searched.choice.by == "jackknife"
        assert steps[-1].choice.spread == spread != searched.choice.spread
        assert steps[-1].choice.path == searched.choice.path


def test_the_choice_by_rows_is_repeated_in_each_fold():
    problem, the_plan = regression(40, 4, SHARED_BETTER), plan(spread_by="auto")
    _, steps = run(SHARED_BETTER, "auto")
    losses, promised, order = naive(problem, the_plan)
    last, alone = steps[-1], replace(the_plan, nested=None)
    assert last.choice.by == "jackknife"
    chosen = []
    parts = the_plan.nested.splits(the_plan.selection, np.arange(40), problem)
    for number, ((rows, scored), fold) in enumerate(zip(parts, last.folds, strict=True)):
        *_, own = tune(prepare(only(problem, rows), alone))
        spread = own.choice.spread
        chosen.append(spread)
        assert fold.path == ()
        assert_allclose(fold.value, losses[spread][np.isin(order, scored)].mean(), rtol=1e-5)
        assert_allclose(fold.selection_value, promised[spread][number], rtol=1e-6)
    assert len(set(chosen)) > 1  # folds do choose for themselves


def test_it_goes_on_from_any_state_with_the_same_bits():
    problem = regression(40, 4, 2)
    _, steps = steps_of(problem, plan(folds=2))
    states = [step.state for step in steps if step.state is not None]
    after = [state for state in states if all(start.outcome for start in state.starts)]
    assert [len(state.folds) for state in after] == [0, 1, 2]
    for state in (*states[2 : -len(after) : len(states) // 4], *after):
        again = checkpoint.unpack(checkpoint.pack(state))
        assert bits(again.folds) == bits(state.folds)
        _, rest = steps_of(problem, plan(folds=2), again)
        assert bits(rest[-1]) == bits(steps[-1])


def test_a_checkpoint_without_a_choice_by_folds_is_what_it_was():
    state = run(SHARED_BETTER, "auto")[1][-2].state
    assert len(state.folds) == 3
    with np.load(io.BytesIO(checkpoint.pack(state))) as archive:
        assert not [name for name in archive if "path" in name]
    assert bits(checkpoint.unpack(checkpoint.pack(state)).folds) == bits(state.folds)


@pytest.mark.parametrize("seed", [SHARED_BETTER, WIDE_BETTER])
def test_stopped_before_the_folds_end_it_is_the_choice_by_rows(seed):
    prepared, steps = run(seed)
    *_, searched = tune(prepared)
    descents = Descents(prepared)
    for done in (0, 1, 2):
        stopped = [step for step in steps[:-1] if len(step.folds) == done and step.choice][-1]
        saved = next(step.state for step in steps if step.state and step.choice and len(step.folds) == done)
        state = checkpoint.unpack(checkpoint.pack(saved))
        read = replace(stopped, choice=None, folds=state.folds, starts=state.starts)
        for step in (descents.with_folds(stopped), descents.with_folds(descents.ended_here(read))):
            assert step.choice == searched.choice
            assert bits(step.best) == bits(searched.best)
            for fold in step.folds:
                (one,) = [one for one in fold.path if one.spread == searched.choice.spread]
                assert (fold.value, fold.selection_value) == (one.value, one.selection_value)
        findings = worth(prepared, descents.with_folds(stopped)).findings
        assert "spread_not_chosen_by_nested" in [one.code for one in findings]
    # after the last fold nothing is lost
    read = replace(steps[-2], choice=None)
    assert descents.with_folds(descents.ended_here(read)).choice == steps[-1].choice
    assert "spread_chosen_by_nested" in [one.code for one in worth(prepared, steps[-1]).findings]


def test_a_budget_that_ends_the_path_leaves_those_spreads_that_are_known():
    problem = regression(40, 4, 4)
    *_, searched = tune(prepare(problem, plan()))
    within = searched.evaluations - 1  # the last spread has nearly ended
    _, steps = steps_of(problem, plan(max_evaluations=within))
    last = steps[-1]
    assert last.ended is Outcome.MAX_EVALUATIONS
    assert [point.spread for point in last.choice.path] == [0.0, PATH[0]]
    common = set.intersection(*({one.spread for one in fold.path} for fold in last.folds))
    assert common == {0.0, PATH[0]}
    assert max(len(fold.path) for fold in last.folds) == 3  # some folds had enough for all
    values = {spread: pooled([fold.at(spread) for fold in last.folds]) for spread in common}
    assert (last.choice.by, last.choice.spread) == ("nested", min(values, key=values.get))
    _, steps = steps_of(problem, plan(target_value=1e6))
    assert steps[-1].ended is Outcome.TARGET_VALUE
    assert steps[-1].choice is None


def test_a_spread_that_a_fold_does_not_have_is_not_compared():
    """There are fewer hyperparameters than rows on all rows, and more in the folds."""
    problem = regression(30, 20, WIDE_BETTER)
    _, steps = steps_of(problem, plan(folds=2, selection=KFold(folds=2), outer=Newton(max_iterations=4)))
    last = steps[-1]
    assert [point.spread for point in last.choice.path] == [0.0, *PATH]
    narrow = [spread for spread in PATH if spread <= WIDEST_OF_MANY]
    assert all([one.spread for one in fold.path] == [0.0, *narrow] for fold in last.folds)
    assert last.choice.by == "nested"
    assert last.choice.spread in (0.0, *narrow)


def test_the_path_is_whole_where_rows_cannot_be_judged(monkeypatch):
    monkeypatch.setattr(descents_module, "MOST_JUDGED", 1)
    problem = regression(40, 4, 5)
    (_, fixed), (prepared, steps) = (steps_of(problem, plan(folds=2, spread_by=by)) for by in ("auto", "nested"))
    assert (fixed[-1].choice.by, fixed[-1].choice.spread) == ("fixed", WITHOUT_CHOICE)
    *_, searched = tune(prepared)
    assert (searched.choice.by, searched.choice.spread) == ("fixed", WITHOUT_CHOICE)
    last = steps[-1]
    assert [point.spread for point in last.choice.path] == [0.0, *PATH]
    assert all(point.corrected is None for point in last.choice.path)
    values = {spread: pooled([fold.at(spread) for fold in last.folds]) for spread in (0.0, *PATH)}
    assert (last.choice.by, last.choice.spread) == ("nested", min(values, key=values.get))
    assert worth(prepared, last).corrected is None


def fold(values, weight=1.0):
    path = tuple(SpreadScore(spread, value, 0.1, np.ones((2, 3))) for spread, value in values.items())
    return FoldScore(next(iter(values.values())), weight, 3, 0.1, 1, 1, path=path)


NAN = float("nan")
CHOICE = Choice(0.5, "jackknife", tuple(PathPoint(spread, 1.0, None) for spread in (0.0, 0.5, 1.0)))


@pytest.mark.parametrize(("folds", "expected"), [
    ([{0.0: 2.0, 0.5: 1.5, 1.0: 1.0}, {0.0: 2.0, 0.5: 1.0, 1.0: 1.6}], 0.5),
    ([{0.0: 1.0, 0.5: 1.0, 1.0: 1.0}], 0.0),
    ([{0.0: 2.0, 0.5: 1.0 + 1e-14, 1.0: 1.0}], 0.5),
    ([{0.0: 2.0, 0.5: 1.0 + 1e-9, 1.0: 1.0}], 1.0),
    ([{0.0: 2.0, 0.5: 1.5, 1.0: 1.0}, {0.0: 2.0, 0.5: 1.5}], 0.5),
    ([{0.0: 2.0, 0.5: 1.5, 1.0: NAN}, {0.0: 2.0, 0.5: 1.5, 1.0: 0.1}], 0.5),
    ([{0.0: NAN, 0.5: NAN, 1.0: NAN}, {0.0: 2.0, 0.5: 1.5, 1.0: 0.1}], None),
    ([{0.0: 2.0}, {0.5: 1.5, 1.0: 0.1}], None),
    ([], None),
])  # fmt: skip
def test_which_spreads_compete(folds, expected):
    chosen = chosen_by_folds(CHOICE, [fold(values) for values in folds], shared_too=True)
    assert (chosen and chosen.spread) == expected
    assert chosen is None or (chosen.by == "nested" and chosen.path == CHOICE.path)


def test_folds_count_by_their_weight_and_those_without_any_do_not():
    folds = [fold({0.0: 1.0, 0.5: 2.0}, 3.0), fold({0.0: 2.5, 0.5: 0.5}), fold({0.0: NAN, 0.5: NAN}, 0.0)]
    assert chosen_by_folds(CHOICE, folds, shared_too=True).spread == 0.0
    assert chosen_by_folds(CHOICE, folds, shared_too=False).spread == 0.5
    assert chosen_by_folds(CHOICE, [*folds, fold({0.0: 2.5, 0.5: 0.5})], shared_too=True).spread == 0.5
    nowhere = replace(CHOICE, path=(PathPoint(0.0, np.inf, None), PathPoint(0.5, 1.0, None)))
    assert chosen_by_folds(nowhere, folds, shared_too=True).spread == 0.5
