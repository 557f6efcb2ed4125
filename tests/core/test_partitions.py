"""Splits whose parts overlap in any way, and a selection criterion that is added in one file: this one."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression as SklearnLogistic

from tests.core.conftest import regression
from tests.oracles import differences, pooled_error
from worker.core.hypergradient import Implicit
from worker.core.outer import Newton
from worker.core.rows import filled
from worker.core.rows.moments import block_moments
from worker.core.rows.present import restricted
from worker.core.rows.problem import Imputation, Partition, Problem
from worker.core.search.nested import Nested
from worker.core.search.plan import Plan, prepare
from worker.core.search.tune import tune
from worker.core.selection.resampled import AnyRows
from worker.core.training import LogisticRegression, Ridge
from worker.core.verdict.conclude import conclude


@dataclass(frozen=True, slots=True)
class RepeatedKFold(AnyRows):
    """K-fold cross-validation, repeated with other folds."""

    folds: int = 5
    repeats: int = 3
    kind: Literal["repeated_k_fold"] = "repeated_k_fold"

    def partition(self, rows, n, _=None):
        splits = []
        for repeat in range(self.repeats):
            order = np.random.default_rng(repeat).permutation(rows)
            splits += [(np.setdiff1d(rows, part), np.sort(part)) for part in np.array_split(order, self.folds)]
        return self.weighted(Partition.of_rows(n, splits))


def rows_of(partition):
    return [(partition.rows(train), partition.rows(scored)) for train, scored in partition.splits]


def all_equal(found, expected):
    assert len(found) == len(expected)
    assert all(
        np.array_equal(a, b)
        for one, other in zip(found, expected, strict=True)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.unchecked
@settings(max_examples=100)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 12))
def test_any_splits_come_back_as_they_were_given(seed, n, count):
    random = np.random.default_rng(seed)
    splits = [tuple(np.flatnonzero(random.random(n) < share) for share in random.random(2)) for _ in range(count)]
    splits[0] = (np.arange(n), splits[0][1])
    partition = Partition.of_rows(n, splits)
    all_equal(rows_of(partition), splits)
    assert partition.blocks <= n
    used = np.unique(np.concatenate([part for split in splits for part in split]))
    assert np.array_equal(np.flatnonzero(partition.block_of_row >= 0), used)
    pieces = partition.of_few_blocks()
    all_equal([split for piece in pieces for split in rows_of(piece)], splits)
    assert all(piece.blocks <= max(4 * len(piece.splits), 4) for piece in pieces)


def test_each_repeat_needs_the_moments_of_its_folds_only():
    selection = RepeatedKFold(folds=5, repeats=10)
    partition = selection.partition(np.arange(400), 400)
    assert partition.blocks > 300  # nearly every row has its own history
    pieces = partition.of_few_blocks()
    assert [(piece.blocks, len(piece.splits)) for piece in pieces] == [(5, 5)] * 10
    assert all([scored for _, scored in piece.splits] == [(fold,) for fold in range(5)] for piece in pieces)


PROBLEM = regression(120, 4)


@pytest.mark.parametrize("training", [Ridge(), Ridge(intercept=False, standardize=False)], ids=["centred", "plain"])
@pytest.mark.parametrize("table", [np.asarray, csr_array])
@pytest.mark.parametrize(("n", "p"), [(120, 4), (40, 60)])
def test_repeated_folds_have_the_mean_loss_of_naive_refits(training, table, n, p):
    problem, selection = regression(n, p), RepeatedKFold(folds=4, repeats=3)
    partition = selection.partition(np.arange(n), n)
    objective = selection.objective(replace(problem, X=table(problem.X)), partition, training, Implicit())
    at = objective.evaluate(np.array([-1.0]))
    expected = pooled_error(
        problem.X, problem.y, np.full(p, np.exp(-1.0)), rows_of(partition),
        intercept=training.intercept, standardize=training.standardize,
    )  # fmt: skip
    assert_allclose(at.value, expected, rtol=1e-10)
    assert_allclose(at.gradient, differences(objective.value, at.rho), rtol=1e-6)


@pytest.mark.parametrize("rule", ["mean", "median"])
def test_missing_values_are_filled_from_the_training_rows_of_each_repeat(rule, monkeypatch):
    counted = []
    monkeypatch.setattr(filled, "block_moments", lambda *given: counted.append(block_moments(*given)) or counted[-1])
    X = PROBLEM.X.copy()
    X[::3, 1] = np.nan
    problem = replace(PROBLEM, X=X, imputation=Imputation(np.array([1]), (rule,), np.zeros(1)))
    selection = RepeatedKFold(folds=4, repeats=3)
    partition = selection.partition(np.arange(120), 120)
    value = selection.objective(problem, partition, Ridge(), Implicit()).value(np.array([-1.0]))
    assert [len(blocks) for blocks in counted] == [4, 4, 4]
    errors = []
    for train, scored in rows_of(partition):
        known = getattr(np, f"nan{rule}")(X[train, 1])
        whole = X.copy()
        whole[np.isnan(whole[:, 1]), 1] = known
        errors.append(
            pooled_error(
                whole, PROBLEM.y, np.full(4, np.exp(-1.0)), [(train, scored)], intercept=True, standardize=True
            )
        )
    assert_allclose(value, np.mean(errors), rtol=1e-10)


def test_repeated_folds_score_a_model_that_is_fitted_by_iteration():
    y = (PROBLEM.y > np.median(PROBLEM.y)).astype(float)
    selection = RepeatedKFold(folds=4, repeats=2)
    partition = selection.partition(np.arange(120), 120)
    training = LogisticRegression(standardize=False)
    value = selection.objective(replace(PROBLEM, y=y), partition, training, Implicit()).value(np.zeros(1))
    losses = []
    for train, scored in rows_of(partition):
        model = SklearnLogistic(C=1.0 / len(train), tol=1e-12, max_iter=10_000).fit(PROBLEM.X[train], y[train])
        chance = model.predict_proba(PROBLEM.X[scored])[:, 1]
        losses.append(-np.log(np.where(y[scored] == 1, chance, 1 - chance)))
    assert_allclose(value, np.concatenate(losses).mean(), rtol=1e-7)


@pytest.mark.unchecked  # a plan names the members of the union
def test_a_criterion_of_one_file_passes_the_whole_search():
    problem = replace(PROBLEM, groups=np.arange(120) // 2, weights=np.append(np.zeros(3), np.ones(117)))
    selection = RepeatedKFold(folds=4, repeats=2)
    prepared = prepare(
        problem, Plan(Ridge(), selection, Implicit(), Newton(), test_fraction=0.2, nested=Nested(folds=3))
    )
    assert prepared.left_out == 3
    *_, last = tune(prepared)
    assert last.best.best.value < last.best.initial.value
    messages = conclude(prepared, last.best).messages
    assert any("since repeated_k_fold does not keep groups together" in message for message in messages)


def test_every_array_of_a_problem_with_an_entry_per_row_is_restricted():
    of_rows = {field.name: np.arange(6.0) for field in fields(Problem) if "' n'" in str(field.type).replace('"', "'")}
    assert len(of_rows) == 8
    whole = {
        name: values.astype(int) if name in {"source", "groups", "fold"} else values for name, values in of_rows.items()
    }
    problem = Problem(X=np.eye(6), features=tuple("abcdef"), **whole)
    kept = np.array([0, 3, 4])
    left = restricted(problem, kept)
    assert np.array_equal(left.X, np.eye(6)[kept])
    for name in of_rows:
        assert np.array_equal(getattr(left, name), kept), name
