"""The comparison on new rows: its tasks are the documented ones, and its table says what its results hold."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LogisticRegression, Ridge

from benchmarks import new_rows
from benchmarks.new_rows import ours, peers
from benchmarks.new_rows.ours import Found
from benchmarks.new_rows.own_tasks import OWN_TASKS
from benchmarks.new_rows.results import Results
from benchmarks.new_rows.table import Comparison, Summary, compare, honesty, table
from benchmarks.new_rows.task import Split, Task, groups_of, problem_of
from benchmarks.new_rows.tasks import SPARSE, TASKS
from worker.core.outer import Newton

DATA = os.environ.get("GRADTUNE_DATA")
PENALTY, BENCH = (1.0, 1e-6, 1e6), (1e-3, 1e-8, 1e4)
# number: rows to tune on, new rows, penalties, splits, box, standardized, kind of training, kind of selection
DOCUMENTED = {
    1: (67, 30, 8, 10, PENALTY, True, "ridge", "k_fold"),
    2: (221, 221, 10, 10, PENALTY, True, "ridge", "k_fold"),
    3: (170, 100, 13, 10, PENALTY, True, "logistic", "stratified_k_fold"),
    4: (468, 300, 8, 10, PENALTY, True, "logistic", "stratified_k_fold"),
    5: (700, 300, 20, 10, PENALTY, True, "logistic", "stratified_k_fold"),
    6: (400, 4600, 21, 10, PENALTY, True, "logistic", "stratified_k_fold"),
    7: (1000, 2175, 60, 10, PENALTY, True, "logistic", "stratified_k_fold"),
    8: (1300, 1010, 18, 10, PENALTY, True, "logistic", "stratified_k_fold"),
    9: (3067, 1534, 57, 10, BENCH, True, "logistic", "stratified_k_fold"),
    10: (300, 4301, 57, 10, BENCH, True, "logistic", "stratified_k_fold"),
    11: (300, 269, 30, 10, PENALTY, True, "logistic", "stratified_k_fold"),
    12: (2000, 16281, 14, 10, BENCH, False, "logistic", "stratified_k_fold"),
    13: (21707, 16281, 14, 3, BENCH, False, "logistic", "stratified_k_fold"),
    14: (1198, 599, 10, 5, BENCH, False, "multinomial", "holdout"),
    15: (1198, 599, 10, 3, BENCH, False, "multinomial", "stratified_k_fold"),
    16: (100, 436, 11, 10, PENALTY, True, "ridge", "k_fold"),
    17: (200, 16399, 18, 10, PENALTY, True, "ridge", "k_fold"),
    18: (200, 7992, 32, 10, PENALTY, True, "ridge", "k_fold"),
    19: (200, 3937, 26, 10, PENALTY, True, "ridge", "k_fold"),
    20: (150, 5000, 50, 10, PENALTY, True, "ridge", "k_fold"),
    21: (100, 5000, 20, 10, PENALTY, True, "ridge", "k_fold"),
    22: (150, 5000, 50, 10, PENALTY, True, "ridge", "k_fold"),
    23: (400, 5000, 50, 10, PENALTY, True, "ridge", "k_fold"),
    24: (200, 5000, 100, 10, PENALTY, True, "ridge", "k_fold"),
    25: (300, 5000, 40, 5, PENALTY, True, "logistic", "stratified_k_fold"),
    26: (300, 5000, 40, 5, PENALTY, True, "logistic", "stratified_k_fold"),
    27: (100, 5000, 20, 10, PENALTY, True, "ridge", "k_fold"),
}
BY_NUMBER = {task.number: task for task in (*TASKS, *OWN_TASKS)}


def drawn(task: Task, i: int) -> Split:
    if task.folder is not None and not (DATA and (Path(DATA) / task.folder).exists()):
        pytest.skip("GRADTUNE_DATA names no folder with the data")
    return task.draw(Path(DATA or ""), i)


@pytest.mark.parametrize("number", DOCUMENTED)
def test_each_task_has_the_documented_sizes(number: int) -> None:
    task = BY_NUMBER[number]
    n, new, k, splits, box, standardized, training, selection = DOCUMENTED[number]
    penalty = task.penalty
    assert (task.splits, task.training.kind, task.selection.kind) == (splits, training, selection)
    assert (task.training.standardize, penalty.initial, penalty.lower, penalty.upper) == (standardized, *box)
    assert (task.shared.initial, task.shared.lower, task.shared.upper) == box
    assert getattr(task.selection, "folds", 5) == 5
    assert task.selection_of(3).seed == 3
    assert getattr(task.selection, "fraction", 1 / 3) == 1 / 3
    split = drawn(task, 1)
    assert (len(split.train.y), len(split.test.y)) == (n, new)
    assert len(task.with_penalty(task.several(split.train)).hyperparameters(split.train).names) == k


def test_there_are_twenty_seven_tasks_and_ten_others() -> None:
    assert [task.number for task in TASKS] == list(DOCUMENTED) == list(range(1, 28))
    assert [task.number for task in OWN_TASKS] == list(range(28, 38))
    assert {BY_NUMBER[number].name for number in SPARSE} == {
        "syn 150-50-5", "syn 400-50-5", "syn 200-100-5", "slog 300-40-4",
    }  # fmt: skip


@pytest.mark.parametrize("task", OWN_TASKS, ids=lambda task: task.name)
def test_other_tasks_have_rows_that_do_not_meet(task: Task) -> None:
    split, other = drawn(task, 0), drawn(task, 1)
    features = set(split.train.features)
    assert features == set(split.test.features)
    assert len(features) == split.train.X.shape[1] == split.test.X.shape[1]
    assert np.isfinite(split.train.X).all()
    assert len(split.test.y) >= 20
    assert split.train.X.shape != other.train.X.shape or (split.train.X != other.train.X).any()
    prepared = ours.planned(task, split, 0, task.several(split.train), Newton())
    assert len(prepared.objective.hyperparameters.names) >= 8
    assert np.isfinite(prepared.objective.value(prepared.objective.hyperparameters.initial))


def test_split_takes_the_first_rows_of_the_permutation() -> None:
    X, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng([77, 4]).permutation(442)
    split = BY_NUMBER[2].draw(Path(), 4)
    assert_array_equal(split.train.X, X[np.sort(order[:221])])
    assert_array_equal(split.train.y, y[np.sort(order[:221])])
    assert_array_equal(split.test.y, y[np.sort(order[221:])])


def test_bench_tasks_are_tested_on_the_next_rows() -> None:
    split = drawn(BY_NUMBER[6], 2)
    stored = np.load(Path(DATA or "") / "raetsch" / "waveform.npz")
    order = np.random.default_rng([77, 2]).permutation(5000)
    assert_array_equal(split.test.X, stored["X"][np.sort(order[400:])])
    assert_array_equal(split.train.y, stored["y"][np.sort(order[:400])] > 0)


def test_columns_and_targets_of_data_are_the_documented_ones() -> None:
    split = drawn(BY_NUMBER[16], 0)
    assert np.concatenate([split.train.y, split.test.y]).std() == pytest.approx(1)
    split = drawn(BY_NUMBER[10], 0)
    assert split.train.X.min() == pytest.approx(np.log(0.1))
    split = drawn(BY_NUMBER[12], 0)
    assert set(np.unique(split.test.X)) == {0.0, 1.0}
    assert split.test.X.sum(axis=1).max() == 14
    first = next(iter(groups_of(split.train.features).values()))
    assert first == tuple(f"age:x{c}" for c in range(1, 6))


@pytest.mark.parametrize(("number", "n", "p", "r"), [(20, 150, 50, 50), (23, 400, 50, 5), (27, 100, 20, 0)])
def test_normal_draws_come_in_the_documented_order(number: int, n: int, p: int, r: int) -> None:
    g = np.random.default_rng([5, 7, n, p, r])
    numbers = g.standard_normal(r + (n + 5000) * p + n + 5000)  # one after the other
    beta, X = numbers[:r] / np.sqrt(max(r, 1)), numbers[r : r + (n + 5000) * p].reshape(-1, p)
    y = X[:, :r] @ beta + numbers[-n - 5000 :]
    split = BY_NUMBER[number].draw(Path(), 7)
    assert_allclose(split.train.X[[0, -1], :3], X[[0, n - 1], :3], rtol=1e-12)
    assert_allclose([split.train.y[0], split.train.y[-1]], y[[0, n - 1]], rtol=1e-9)
    assert_allclose([split.test.y[0], split.test.y[-1]], y[[n, -1]], rtol=1e-9)


@pytest.mark.parametrize(("number", "r"), [(25, 4), (26, 40)])
def test_draws_of_classes_come_in_the_documented_order(number: int, r: int) -> None:
    g = np.random.default_rng([6, 3, 300, 40, r])
    beta = g.standard_normal(r) * 2 / np.sqrt(r)
    X = g.standard_normal(5300 * 40).reshape(5300, 40)
    eta = X[:, :r] @ beta + g.logistic(size=5300)
    split = BY_NUMBER[number].draw(Path(), 3)
    assert_allclose(split.test.X[-1], X[-1], rtol=1e-12)
    assert_array_equal(np.append(split.train.y, split.test.y), eta > 0)


@pytest.mark.parametrize("number", [2, 25])
def test_penalty_of_scikit_learn_is_ours_times_the_rows(number: int) -> None:
    """So grids compare, and the loss of its model is that of ours."""
    task = BY_NUMBER[number]
    split = task.draw(Path(), 0)
    prepared = ours.planned(task, split, 0, task.shared, Newton())
    lam, n = 0.03, len(split.train.y)
    theirs = Ridge(lam * n) if number == 2 else LogisticRegression(C=1 / (lam * n), tol=1e-10, max_iter=1000)
    assert_allclose(
        peers.fitted(theirs, task, split).loss, ours.loss_of(prepared, split, np.log([lam])), rtol=1e-6
    )  # fmt: skip


@pytest.mark.parametrize("number", [2, 14, 25])
def test_peers_have_our_folds(number: int) -> None:
    task = BY_NUMBER[number]
    split = task.draw(Path(), 5)
    partition = ours.planned(task, split, 5, task.shared, Newton()).partition
    folds = peers.folds_of(task, split, 5)
    assert len(folds) == len(partition.splits)
    for (train, scored), (of_train, of_scored) in zip(folds, partition.splits, strict=True):
        assert_array_equal(train, partition.rows(of_train))
        assert_array_equal(scored, partition.rows(of_scored))
        assert not set(train) & set(scored)


def test_shared_penalty_is_the_lowest_of_its_box() -> None:
    task = BY_NUMBER[21]
    split = task.draw(Path(), 0)
    found = ours.shared(task, split, 0)
    at = ours.planned(task, split, 0, task.shared, Newton()).objective
    grid = np.linspace(np.log(1e-6), np.log(1e6), 400)
    assert found.value is not None
    assert found.value <= min(at.value(np.array([rho])) for rho in grid) * (1 + 1e-9)


def test_searches_that_try_points_end_no_higher_than_they_began() -> None:
    pytest.importorskip("cmaes", reason="it is one of the extra `peers`")
    task = BY_NUMBER[1 if DATA else 2]
    split = drawn(task, 0)
    at = ours.planned(task, split, 0, task.penalty, Newton()).objective
    none, some = (peers.cma_es(task, split, 0, seconds) for seconds in (0.0, 0.2))
    assert none.value == pytest.approx(at.value(at.hyperparameters.initial))
    assert some.value is not None
    assert none.value is not None
    assert some.value < none.value


def test_run_goes_on_from_its_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results.jsonl"
    parser = argparse.ArgumentParser()
    parser.add_argument("--splits", type=int)  # those of all benchmarks
    parser.add_argument("--results", type=Path)
    new_rows.add_options(parser)
    common = ["--tasks", "27", "--splits", "2", "--results", str(path)]
    new_rows.main(short=False, data=None, options=parser.parse_args([*common, "--methods", "shared,CMA-ES"]))
    lines = path.read_text().splitlines()
    assert [json.loads(line)["method"] for line in lines] == ["shared", "shared"]  # nothing says how long CMA-ES may
    new_rows.main(short=False, data=None, options=parser.parse_args([*common, "--methods", "shared,plain"]))
    assert path.read_text().splitlines()[:2] == lines
    assert [json.loads(line)["method"] for line in path.read_text().splitlines()[2:]] == ["plain", "plain"]
    assert "| 27 syn 100-20-0 | 2 | " in capsys.readouterr().out
    whole = path.read_text()
    path.write_text(whole + '{"task": 27, "spl')  # the process was killed there
    results = Results.read(path)
    assert len(results.found) == 4
    results.add((27, 2, "plain"), Found(1.0, 2.0))
    assert path.read_text().startswith(whole)
    assert Results.read(path).found == results.found


def test_options_name_tasks_and_methods() -> None:
    assert new_rows.numbers("1-3,22") == (1, 2, 3, 22)
    assert new_rows.listed("plain,auto") == ("plain", "auto")
    with pytest.raises(argparse.ArgumentTypeError, match="unknown: plane; there are shared, plain"):
        new_rows.listed("plane")


def made_up() -> Results:
    """Two tasks of three splits; the second has one without plain tuning."""
    results = Results()
    base = {1: (1.0, 2.0, 4.0), 2: (1.0, 1.0, 1.0)}
    plain = {1: (1.1, 2.2, 4.8), 2: (0.9, 0.8)}
    auto = {1: (0.98, 2.0, 4.04), 2: (0.97, 0.95, 0.96)}
    for method, losses in (("shared", base), ("plain", plain), ("auto", auto)):
        for task, of_splits in losses.items():
            for i, loss in enumerate(of_splits):
                seconds = {"shared": 0.1, "plain": 2.0, "auto": 3.0 + i}[method]
                said = (
                    {} if method == "shared" else {"value": 0.5 * loss, "corrected": (1.6 if task == 1 else 0.9) * loss}
                )
                results.add((task, i, method), Found(loss, seconds, **said))
    return results


def test_comparisons_are_paired_by_split() -> None:
    results = made_up()
    plain, auto = compare(results, 1, "plain"), compare(results, 1, "auto")
    assert plain is not None
    assert auto is not None
    assert_allclose(plain.percent, [10, 10, 20])
    assert (plain.mean, plain.worst) == (pytest.approx(40 / 3), pytest.approx(20))
    assert plain.error == pytest.approx(10 / 3)  # a standard deviation of sqrt(100/3), over sqrt(3)
    assert plain.cost == 1
    assert_allclose(auto.percent, [-2, 0, 1])
    assert auto.cost == pytest.approx((3 + 4 + 5) / 6)
    fewer = compare(results, 2, "plain")
    assert fewer is not None
    assert_allclose(fewer.percent, [-10, -20])
    assert compare(results, 2, "auto").cost == pytest.approx((3 + 4) / 4)  # type: ignore[union-attr] - the splits of both
    assert compare(results, 3, "auto") is None
    assert compare(results, 1, "RidgeCV") is None


def test_summary_counts_what_is_beyond_a_standard_error() -> None:
    rows = [
        Comparison(np.array([-3.0, -1.0]), 1.0, 1.0),  # -2 (1)
        Comparison(np.array([-3.0, 1.0]), 4.0, 2.0),  # -1 (2)
        Comparison(np.array([4.0, 2.0]), 9.0, 1.0),  # +3 (1)
        Comparison(np.array([-8.0]), 0.0, 0.0),  # one split says nothing of its error; not timed
    ]
    same = Summary.of([Comparison(np.array([0.002, 0.002]), 1.0, 1.0), Comparison(-np.array([0.002, 0.002]), 1.0, 1.0)])
    assert (same.better, same.worse) == (0, 0)  # rounding, always on the same side
    found = Summary.of(rows[:3])
    assert (found.tasks, found.better, found.worse) == (3, 1, 1)
    assert (found.mean, found.worst, found.worst_split) == (0.0, 3.0, 4.0)
    assert (found.cost, found.total) == (2.0, 14 / 4)
    assert (Summary.of(rows).better, Summary.of(rows).worst) == (1, 3.0)


def test_corrected_value_is_counted_where_it_is_closer() -> None:
    """In the first task it is 60 % too high where J is half of the loss, in the second 10 % too low."""
    results = made_up()
    said = honesty(results, [1, 2, 3], "auto")
    assert (said.tasks, said.by_split, said.by_mean, said.equal) == (2, 1, 1, 0)
    results.add((2, 0, "half"), Found(1.0, 1.0, 0.5, 0.9))
    results.add((2, 1, "half"), Found(1.0, 1.0, 1.4, 1.3))  # errors of opposite signs: the means are close
    said = honesty(results, [2], "half")
    assert (said.tasks, said.by_split, said.by_mean) == (1, 1, 0)
    assert honesty(results, [1, 2], "shared").tasks == 0
    results.add((3, 0, "auto"), Found(1.0, 1.0, 0.5, 0.5))
    said = honesty(results, [3], "auto")
    assert (said.tasks, said.by_split, said.by_mean, said.equal) == (1, 0, 0, 1)


def test_table_shows_tasks_parts_and_peers() -> None:
    text = "\n".join(table(made_up(), {1: "one", 2: "two"}, {"All": [1, 2], "Even": [2], "None": []}))
    assert "| 1 one | 3 | +13.3 (3.3), +20.0; 1.0 | -0.3 (0.9), +1.0; 2.0 |" in text
    assert "| 2 two | 3 | -15.0 (5.0), -10.0; 1.0 | -4.0 (0.6), -3.0; 1.8 |" in text
    whole, even = text.split("\nEven: ")
    assert "| plain | 2 | -0.83 | +13.3 | +20.0 | 1 / 1 | 1.0 | 1.0 |" in whole
    assert "| auto | 1 | -4.00 | -4.0 | -3.0 | 1 / 0 | 1.8 | 1.8 |" in even
    assert "| plain | 2 | -2.17 | -0.83 | 1 |" in text
    assert (
        "auto: the corrected value is closer to the loss on new rows than the selection value in\n1 of 2 tasks" in text
    )


def test_groups_are_what_stands_before_the_colon() -> None:
    features = ("hour:1", "temp", "hour:2")
    assert groups_of(features) == {"hour": ("hour:1", "hour:2"), "temp": ("temp",)}
    X = np.zeros((4, 3))
    task = SimpleNamespace(penalty=BY_NUMBER[12].penalty)
    several = Task.several(task, problem_of(X, np.zeros(4), np.arange(4), features=features))  # type: ignore[arg-type]
    assert several.groups == groups_of(features)
