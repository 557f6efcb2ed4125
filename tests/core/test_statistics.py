from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.core.conftest import regression
from worker.core.rows import moments as statistics
from worker.core.rows.centre import Centre
from worker.core.rows.moments import block_moments, split_moments
from worker.core.rows.problem import Partition, Problem
from worker.core.selection import Holdout, KFold


def naive(problem: Problem, rows: np.ndarray, centre: np.ndarray) -> np.ndarray:
    Z = np.column_stack([problem.X[rows], problem.y[rows]]) - centre
    return Z.T @ Z


@pytest.mark.parametrize("selection", [KFold(folds=2), KFold(folds=7, shuffle=False), Holdout(fraction=0.3)])
@pytest.mark.parametrize("values", [50, 1_000_000])
def test_split_moments_equal_those_of_the_rows(selection, values, monkeypatch):
    monkeypatch.setattr(statistics, "CHUNK_VALUES", values)
    problem = regression(41, 4)
    partition = selection.partition(np.arange(41), 41)
    moments = split_moments(block_moments(problem, partition), partition)
    for (train, validation), (train_blocks, validation_blocks) in zip(moments, partition.splits, strict=True):
        for part, blocks in ((train, train_blocks), (validation, validation_blocks)):
            rows = partition.rows(blocks)
            assert part.weight == len(rows)
            assert_allclose(part.mean.high, np.append(problem.X[rows].mean(0), problem.y[rows].mean()), rtol=1e-12)
            for centre in (part.mean, Centre.zero(5)):
                assert_allclose(part.about(centre), naive(problem, rows, centre.high), rtol=1e-10, atol=1e-10)


def test_rows_outside_every_block_do_not_count():
    problem = regression(30, 3)
    blocks = np.where(np.arange(30) < 10, -1, np.arange(30) % 2)
    partition = Partition(blocks, (((0,), (1,)),))
    spoiled = problem.X.copy()
    spoiled[:10] = 1e100
    one = block_moments(problem, partition)
    other = block_moments(Problem(spoiled, problem.y, problem.features), partition)
    assert all((a.S == b.S).all() for a, b in zip(one, other, strict=True))


def test_variance_survives_a_large_mean_and_sees_constants():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=1000)
    X = np.column_stack([1e9 + noise, np.full(1000, 0.1), np.full(1000, 1e9)])
    problem = Problem(X, noise, ("a", "b", "c"))
    (moments,) = block_moments(problem, Partition(np.zeros(1000, int), (((0,), (0,)),)))
    variance = moments.variance()
    assert_allclose(variance[0], X[:, 0].var(), rtol=1e-6)
    assert variance[1] == 0 == variance[2]
