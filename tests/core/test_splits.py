"""Splits: groups kept whole with balanced classes, and rows of equal time never on both sides."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.model_selection import StratifiedGroupKFold as SklearnStratifiedGroupKFold

from tests.core.conftest import regression
from worker.core.durations import MICROSECONDS_PER_DAY, microseconds
from worker.core.hypergradient import Implicit
from worker.core.outer import Newton
from worker.core.rows.problem import Problem
from worker.core.search.nested import Nested
from worker.core.search.plan import Plan, prepare, split_rows
from worker.core.search.tune import tune
from worker.core.selection import (
    GeneralizedCV,
    GivenFolds,
    GroupKFold,
    Holdout,
    KFold,
    LeaveOneOut,
    StratifiedGroupKFold,
    WalkForward,
)
from worker.core.training import LogisticRegression, Ridge
from worker.core.verdict.conclude import conclude
from worker.core.verdict.split_remarks import split_remarks


def classified(classes, groups, names=None):
    y, n = np.array(classes, float), len(classes)
    names = names or tuple(str(c) for c in range(int(y.max()) + 1))
    return Problem(np.zeros((n, 1)), y, ("a",), groups=np.array(groups), classes=names)


def imbalance(problem, folds, fold_of_row):
    """Sum over classes of the variance over folds of the share of the class that a fold holds."""
    counts = np.zeros((folds, len(problem.classes)))
    np.add.at(counts, (fold_of_row, problem.y.astype(int)), 1)
    return float((counts / counts.sum(axis=0)).var(axis=0).sum())


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 4))
def test_stratified_groups_are_whole_and_every_fold_has_some(seed, folds):
    random = np.random.default_rng(seed)
    classes, groups = random.integers(0, 3, 90), np.sort(random.integers(0, 30, 90))
    problem, n = classified(classes, groups), len(classes)
    rows = np.sort(np.random.default_rng(seed).permutation(n)[: n - 6])
    selection = StratifiedGroupKFold(folds=folds, seed=seed)
    partition = selection.partition(rows, n, problem)
    assert (np.delete(partition.block_of_row, rows) == -1).all()
    assert set(partition.block_of_row[rows]) == set(range(folds))
    for group in np.unique(groups[rows]):
        assert len(set(partition.block_of_row[rows][groups[rows] == group])) == 1
    again = selection.partition(rows, n, problem)
    assert np.array_equal(partition.block_of_row, again.block_of_row)
    assert not split_remarks(selection, problem, rows, partition) or np.unique(groups[rows]).size < 3 * folds


def least_imbalance(problem, groups):
    """The least imbalance of three folds that are not empty, of all ways to assign the groups."""
    counts = np.zeros((groups.max() + 1, 2))
    np.add.at(counts, (groups, problem.y.astype(int)), 1)
    ways = np.array(list(itertools.product(range(3), repeat=len(counts))))
    held = np.stack([(ways == fold) @ (counts / counts.sum(axis=0)) for fold in range(3)], axis=1)
    return float(held[(held.sum(axis=2) > 0).all(axis=1)].var(axis=1).sum(axis=1).min())


def test_stratified_groups_are_nearly_as_balanced_as_can_be():
    ratios, wins = [], 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        groups = np.unique(random.integers(0, 8, 60), return_inverse=True)[1]
        classes = (random.random(60) < random.random(8)[groups]).astype(int)
        if min(np.bincount(classes, minlength=2)) < 3:
            continue
        problem = classified(classes, groups, ("0", "1"))
        made = StratifiedGroupKFold(folds=3, seed=seed).partition(np.arange(60), 60, problem).block_of_row
        theirs = np.empty(60, int)
        splitter = SklearnStratifiedGroupKFold(3, shuffle=True, random_state=seed)
        for fold, (_, scored) in enumerate(splitter.split(groups, classes, groups)):
            theirs[scored] = fold
        ours = imbalance(problem, 3, made)
        ratios.append((ours + 1e-3) / (least_imbalance(problem, groups) + 1e-3))
        wins += ours <= imbalance(problem, 3, theirs) + 1e-12
    assert len(ratios) >= 30
    assert np.median(ratios) < 2
    assert wins >= len(ratios) / 2  # as balanced as scikit-learn's, or more


def test_too_few_groups_or_rows_of_a_class_are_refused():
    problem, rows = classified([0, 1] * 6, [0, 0, 1, 1, 2, 2] * 2), np.arange(12)
    with pytest.raises(ValueError, match="4 folds need at least 4 groups, and there are 3"):
        StratifiedGroupKFold(folds=4).partition(rows, 12, problem)
    with pytest.raises(ValueError, match="need a training criterion of classes"):
        StratifiedGroupKFold(folds=2).partition(rows, 12, replace(problem, classes=()))
    few = classified([0] * 10 + [1] * 2, np.arange(12))
    with pytest.raises(ValueError, match="class '1' has 2 rows, too few for 3 folds"):
        StratifiedGroupKFold(folds=3).partition(rows, 12, few)
    together = classified([0] * 8 + [1] * 4, [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 9])
    selection = StratifiedGroupKFold(folds=4)
    (told,) = split_remarks(selection, together, rows, selection.partition(rows, 12, together))
    assert told.startswith("Class '1' has rows in 2 of the groups, fewer than the 4 folds")


@pytest.mark.parametrize(
    ("selection", "torn"),
    [
        (KFold(folds=4), True),
        (Holdout(fraction=0.3), True),
        (Holdout(validation_rows=(0, 1, 2, 3)), False),
        (GivenFolds(fold_of_row=(0,) * 8 + (1,) * 12), False),
        (GivenFolds(fold_of_row=(0,) * 9 + (1,) * 11), True),
        (GroupKFold(folds=4), False),
        (LeaveOneOut(), True),
        (GeneralizedCV(), True),
        (WalkForward(initial=6), True),
        (WalkForward(initial=8, horizon=4), False),
    ],
    ids=repr,
)
def test_groups_on_both_sides_are_told(selection, torn):
    problem = replace(regression(20, 2), groups=np.repeat(np.arange(5), 4))
    prepared = prepare(problem, Plan(Ridge(), selection, Implicit(), Newton()))
    *_, last = tune(prepared)
    told = [message for message in conclude(prepared, last.best).messages if "Rows of one group" in message]
    assert len(told) == torn
    assert all("group_k_fold keeps them together" in message and selection.kind in message for message in told)
    lone = replace(problem, groups=np.arange(20))
    assert not split_remarks(selection, lone, np.arange(20), selection.partition(np.arange(20), 20, lone))


def test_groups_of_classes_are_told_both_remedies():
    problem = classified([0, 1] * 10, np.repeat(np.arange(5), 4))
    selection = KFold(folds=4)
    (told,) = split_remarks(selection, problem, np.arange(20), selection.partition(np.arange(20), 20, problem))
    assert "stratified_group_k_fold or group_k_fold keeps them together" in told


times = st.lists(st.integers(0, 12), min_size=12, max_size=40)
counts = st.fixed_dictionaries(
    {"initial": st.integers(2, 8), "horizon": st.integers(1, 5), "gap": st.integers(0, 3)},
    optional={"step": st.integers(1, 5), "window": st.integers(2, 6)},
)


def spans_of(problem, selection):
    """Rows trained on and scored in each split; None if there is no split."""
    n = len(problem.y)
    try:
        partition = selection.partition(np.arange(n), n, problem)
    except ValueError as error:
        assert "leave none" in str(error)  # noqa: PT017 - any settings are tried
        return None
    return [(partition.rows(train), partition.rows(scored)) for train, scored in partition.splits]


@given(times, counts, st.booleans())
def test_no_row_is_scored_by_a_model_of_its_own_time_or_later(time, settings_, shuffled):
    time = np.array(time, float)
    time = np.random.default_rng(len(time)).permutation(time) if shuffled else np.sort(time)
    selection, n = WalkForward(**settings_), len(time)
    problem = Problem(np.zeros((n, 1)), np.zeros(n), ("a",), time=time)
    spans = spans_of(problem, selection)
    scored_before = set()
    for train, scored in spans or ():
        assert time[train].max() < time[scored].min()
        between = (time > time[train].max()) & (time < time[scored].min())
        assert between.sum() >= selection.gap
        assert len(scored) >= selection.horizon or time[scored].max() == time.max()
        assert len(train) >= (selection.initial if selection.window is None else 2)
        for side in (train, scored):  # whole runs
            assert set(np.flatnonzero(np.isin(time, time[side]))) == set(side)
        if selection.step is None:
            assert scored_before.isdisjoint(scored)
        scored_before |= set(scored)
    if spans and selection.step is None:  # every later row once
        assert len(scored_before) == (time >= time[spans[0][1]].min()).sum()


@settings(max_examples=40)
@given(counts, st.integers(12, 40))
def test_without_equal_times_borders_are_where_they_are_asked_for(settings_, n):
    selection = WalkForward(**settings_)
    problem = Problem(np.zeros((n, 1)), np.zeros(n), ("a",), time=np.arange(n) * 0.7)
    expected = []
    for origin in range(selection.initial, n - selection.gap, selection.step or selection.horizon):
        begin = 0 if selection.window is None else max(0, origin - selection.window)
        first = origin + selection.gap
        expected.append((list(range(begin, origin)), list(range(first, min(first + selection.horizon, n)))))
    found = spans_of(problem, selection)
    assert [(train.tolist(), scored.tolist()) for train, scored in found or ()] == expected
    untimed = spans_of(replace(problem, time=None), selection)
    assert [(train.tolist(), scored.tolist()) for train, scored in untimed or ()] == expected


def dated(days):
    n = len(days)
    return Problem(np.zeros((n, 1)), np.zeros(n), ("a",), time=np.array(days, float), time_in_days=True)


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 24 * 60), min_size=10, max_size=60),
    st.integers(24, 24 * 20),
    st.integers(6, 24 * 8),
    st.one_of(st.none(), st.integers(6, 24 * 8)),
    st.integers(0, 48),
)
def test_durations_are_intervals_of_time(hours, initial, horizon, step, gap):
    """Compared with exact arithmetic in hours since 2024."""
    hours = np.sort(np.array(hours))
    problem = dated(19_723 + hours / 24)
    selection = WalkForward(
        initial=f"PT{initial}H", horizon=f"PT{horizon}H", step=None if step is None else f"PT{step}H", gap=f"PT{gap}H"
    )
    expected = []
    for number in itertools.count():
        origin = hours[0] + initial + number * (step or horizon)
        if origin + gap > hours[-1]:
            break
        scored = np.flatnonzero((hours >= origin + gap) & (hours < origin + gap + horizon))
        if len(scored):
            expected.append((np.flatnonzero(hours < origin).tolist(), scored.tolist()))
    n = len(hours)
    if not expected or len(expected[0][0]) < 2:
        with pytest.raises(ValueError, match=r"leave none|two are needed"):
            selection.partition(np.arange(n), n, problem)
        return
    found = spans_of(problem, selection)
    assert [(train.tolist(), scored.tolist()) for train, scored in found] == expected


def test_rows_and_durations_mix():
    problem = dated([0, 0, 1, 2, 3, 3, 4, 8, 9, 9])
    found = spans_of(problem, WalkForward(initial=3, horizon="P2D", gap=1, window="P5D"))
    # the first origin is day 2 and leaves out one row; days [3, 5) are scored, then [7, 9) and [9, 11): [5, 7) is empty
    assert [(train.tolist(), scored.tolist()) for train, scored in found] == [
        ([0, 1, 2], [4, 5, 6]),
        ([0, 1, 2, 3, 4, 5], [7]),
        ([4, 5, 6], [8, 9]),
    ]


def test_a_window_without_rows_and_far_dates_are_told():
    problem = dated([0, 1, 2, 3, 30, 31, 60, 61])
    with pytest.raises(ValueError, match="split 1 would train on 0 rows, and two are needed; make window longer"):
        WalkForward(initial=4, horizon="P5D", window="P4D").partition(np.arange(8), 8, problem)
    with pytest.raises(ValueError, match="10,000 years"):
        WalkForward(initial="P1D").partition(np.arange(2), 2, dated([0, 1e9]))
    with pytest.raises(ValueError, match="needs a `time` column of dates"):
        WalkForward(initial="P1D").partition(np.arange(8), 8, replace(problem, time_in_days=False))
    with pytest.raises(ValueError, match="more than 1000 origins"):
        WalkForward(initial=2, horizon="PT1S").partition(np.arange(2000), 2000, dated(np.arange(2000) / 24))


def test_short_steps_over_long_idle_times_are_not_counted_one_by_one():
    problem = dated([0, 1, 2, 3000, 6000])
    found = spans_of(problem, WalkForward(initial=2, horizon="PT1S", gap="PT0S"))
    assert [scored.tolist() for _, scored in found] == [[2], [3], [4]]
    found = spans_of(problem, WalkForward(initial=2, horizon="PT2S", step="PT1S"))
    assert [scored.tolist() for _, scored in found] == [[2], [3], [3], [4], [4]]


def test_equal_times_of_walk_forward_are_told():
    n, everyone = 20, np.arange(20)
    problem = replace(regression(n, 2), time=np.repeat(np.arange(5.0), 4))
    for selection, moved in ((WalkForward(initial=6, horizon=4), 1), (WalkForward(initial=8, horizon=4), 0)):
        told = split_remarks(selection, problem, everyone, selection.partition(everyone, n, problem))
        assert len([text for text in told if "equal time" in text]) == moved


def test_the_test_part_keeps_equal_times_together():
    time = np.repeat([3.0, 1.0, 2.0, 0.0], 5)
    plan = Plan(Ridge(), WalkForward(initial=5), Implicit(), Newton(), test_fraction=0.35)
    rows, test = split_rows(20, plan, time)
    assert test.tolist() == list(range(5))  # day 3; 7 rows would have cut day 2
    assert sorted([*rows, *test]) == list(range(20))
    with pytest.raises(ValueError, match=r"the last 5 rows have the same time.* at least 0\.25"):
        split_rows(20, replace(plan, test_fraction=0.2), time)
    rows, test = split_rows(20, replace(plan, test_fraction=0.25), time)
    assert test.tolist() == list(range(5))
    rows, test = split_rows(20, replace(plan, test_fraction=0.0), time)
    assert len(test) == 0


def test_nested_parts_keep_equal_times_together():
    time = np.repeat(np.arange(8.0), [3, 4, 2, 5, 1, 6, 3, 4])
    problem = replace(regression(28, 2), time=time)
    for train, scored in (splits := Nested(folds=3).splits(WalkForward(initial=4), np.arange(28), problem)):
        assert time[train].max() < time[scored].min()
    assert sum(len(scored) for _, scored in splits) + len(splits[0][0]) == 28
    with pytest.raises(ValueError, match="7 nested folds do not all get rows"):
        Nested(folds=7).splits(WalkForward(initial=4), np.arange(28), problem)


def test_nested_folds_keep_stratified_groups_together():
    problem = classified([0, 1] * 20, np.repeat(np.arange(10), 4))
    for train, scored in Nested(folds=3).splits(StratifiedGroupKFold(folds=2), np.arange(40), problem):
        assert set(problem.groups[train]).isdisjoint(problem.groups[scored])


def test_stratified_groups_tune_a_classifier():
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), 5)
    X = random.normal(size=(60, 3))
    y = (X[:, 0] + random.normal(size=60) > 0).astype(float)
    problem = Problem(X, y, ("a", "b", "c"), groups=groups, classes=("no", "yes"))
    plan = Plan(LogisticRegression(), StratifiedGroupKFold(folds=3), Implicit(), Newton())
    prepared = prepare(problem, plan)
    *_, last = tune(prepared)
    assert last.ended.name in {"CONVERGED", "AT_BOUNDS"}
    by_hand = GivenFolds(fold_of_row=tuple(int(block) for block in prepared.partition.block_of_row))
    same = prepare(problem, replace(plan, selection=by_hand))
    assert_allclose(same.objective.value(last.best.best.rho), last.best.best.value, rtol=1e-10)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("P1D", 86_400),
        ("P2W", 1_209_600),
        ("PT36H", 129_600),
        ("P1DT2H3M4.5S", 93_784.5),
        ("PT0,25S", 0.25),
        ("P0D", 0),
    ],
)
def test_durations(text, seconds):
    assert microseconds(text) == seconds * 1_000_000
    assert microseconds("P1D") == MICROSECONDS_PER_DAY


@pytest.mark.parametrize(
    "text", ["", "P", "PT", "7D", "P1", "PT1D", "P-1D", "P1.5D", "P1DT", "p1d", " P1D", "P\u0661D", "T1H"]
)
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="no duration of ISO 8601"):
        microseconds(text)


@pytest.mark.parametrize("text", ["P1M", "P1Y", "P1Y2M", "P1Y6D", "P2M3DT4H", "P0.5Y"])
def test_months_and_years_are_refused(text):
    with pytest.raises(ValueError, match="months and years differ in length"):
        microseconds(text)


def test_endless_durations_are_refused():
    with pytest.raises(ValueError, match="longer than 10,000 years"):
        microseconds("P999999999W")
