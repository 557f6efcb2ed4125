"""Missing values, filled for each split from its own training rows, so that nothing leaks from its validation rows.

Moments need no second pass over the rows. Let x be a column filled with a reference value r, and m the indicator of
its missing entries. The same column filled with f is `x + (f - r) m`, a linear map of columns with known moments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from worker.core.records import Array
from worker.core.rows.moments import Moments, block_moments, split_moments
from worker.core.rows.problem import Partition, Problem
from worker.core.rows.tables import CHUNK_VALUES, Table, mean_and_variance, rows_at_a_time

GATHERED_VALUES = 16_000_000  # values of columns held at a time for their medians: 128 MB


@dataclass(frozen=True, slots=True)
class Filled:
    """The table X with missing values in `columns` replaced by `values` when rows are read."""

    X: Table
    columns: Int[Array, " q"]
    values: Float[Array, " q"]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.X.shape

    def __getitem__(self, rows: slice | Int[Array, " m"]) -> Float[Array, "m p"]:
        """Rows without missing values."""
        return _fill(np.array(self.X[rows]), self.columns, self.values)[0]


@dataclass(frozen=True, slots=True)
class _FilledWithIndicators:
    """The filled table, followed by a 0/1 indicator of missing entries for each of `columns`."""

    X: Table
    columns: Int[Array, " q"]
    values: Float[Array, " q"]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        n, p = self.X.shape
        return n, p + len(self.columns)

    def __getitem__(self, rows: slice | Int[Array, " m"]) -> Float[Array, "m pq"]:
        """Rows without missing values, and the indicators."""
        return np.hstack(_fill(np.array(self.X[rows]), self.columns, self.values))


def _fill(
    chunk: Float[Array, "m p"], columns: Int[Array, " q"], values: Float[Array, " q"]
) -> tuple[Float[Array, "m p"], Float[Array, "m q"]]:
    """The chunk, filled in place, and the 0/1 indicators of its missing entries."""
    part = chunk[:, columns]
    missing = np.isnan(part)
    chunk[:, columns] = np.where(missing, values, part)
    return chunk, missing.astype(np.float64)


def filled_by(problem: Problem, rows: Int[Array, " m"]) -> tuple[Problem, Float[Array, " q"]]:
    """The problem with missing values filled from the given rows, and the values that fill them."""
    block_of_row = np.full(len(problem.y), -1, np.int8)
    block_of_row[rows] = 0
    splits = filled_splits(problem, Partition(block_of_row, (((0,), (0,)),)))
    return splits.problems[0], splits.fills[0]


def with_variances(problem: Problem, rows: Int[Array, " m"], *, centred: bool) -> Problem:
    """The problem with the weighted variances of its columns over these rows, missing values filled from them.

    Reads the rows in two passes. A constant column has the variance 0; if predictors are not `centred` by an intercept,
    such a column acts by its size, and has the square of its value.
    """
    weights = problem.base_weights(rows)
    if not weights.any():  # which a check of the splits reports
        return problem
    mean, variances = mean_and_variance(filled_by(problem, rows)[0].X, rows, weights)
    if not centred:
        variances = np.where(variances > 0, variances, mean.high**2)
    return replace(problem, variances=variances)


def split_problems(problem: Problem, partition: Partition) -> list[Problem]:
    """The problem of each split: missing values filled from its training rows, then columns expanded."""
    return filled_splits(problem, partition).problems


@dataclass(frozen=True, slots=True)
class FilledSplits:
    """The problem of each split, as `split_problems` gives it, and the values that fill it; none without imputation."""

    problem: Problem
    partition: Partition
    problems: list[Problem]
    fills: Float[Array, "splits q"]

    def moments(self) -> Iterator[tuple[Moments, Moments]]:
        """Training and validation moments of each split; one pass over the rows unless there is an expansion."""
        problem, partition, imputation = self.problem, self.partition, self.problem.imputation
        if imputation is None:
            yield from _weighted_moments(self.problems[0], partition)
            return
        if problem.expansion is not None:  # a basis of a filled column is not linear in it
            for split, pair in zip(self.problems, partition.splits, strict=True):
                yield from _weighted_moments(split, partition.only(pair))
            return
        assert not isinstance(problem.X, csr_array)
        columns, reference = imputation.columns, np.median(self.fills, axis=0)  # not that of a split with an outlier
        with_indicators = replace(problem, X=_FilledWithIndicators(problem.X, columns, reference), imputation=None)
        p = problem.X.shape[1]
        for (train, validation), fill in zip(_weighted_moments(with_indicators, partition), self.fills, strict=True):
            change = fill - reference
            yield _refilled(train, p, columns, change), _refilled(validation, p, columns, change)


def filled_splits(problem: Problem, partition: Partition) -> FilledSplits:
    """Missing values filled from the training rows of each split, then columns expanded."""
    problems, fills = _filled_problems(problem, partition)
    if (expansion := problem.expansion) is not None:
        problems = [replace(split, X=expansion.of(split.X), expansion=None, unexpanded=split) for split in problems]
    return FilledSplits(problem, partition, problems, fills)


def _filled_problems(problem: Problem, partition: Partition) -> tuple[list[Problem], Float[Array, "splits q"]]:
    """The filled problem of each split before columns are expanded, and the values that fill it."""
    imputation = problem.imputation
    if imputation is None or isinstance(problem.X, csr_array):
        return [problem] * len(partition.splits), np.empty((len(partition.splits), 0))
    values = np.tile(imputation.constants, (len(partition.splits), 1))
    partition = _of_trained_rows(problem, partition)
    rules = np.array(imputation.rules)
    for rule, statistic in (("mean", _means), ("median", _medians)):
        chosen = np.flatnonzero(rules == rule)
        if len(chosen):
            values[:, chosen] = statistic(problem.X, imputation.columns[chosen], partition)
    values = np.nan_to_num(values, nan=0.0)
    return [replace(problem, X=Filled(problem.X, imputation.columns, row), imputation=None) for row in values], values


def _of_trained_rows(problem: Problem, partition: Partition) -> Partition:
    """The partition without rows of weight 0, from which nothing is learned; its blocks may be empty."""
    if problem.weights is None:
        return partition
    return Partition(np.where(problem.weights > 0, partition.block_of_row, -1), partition.splits)


def _means(X: Table, columns: Int[Array, " c"], partition: Partition) -> Float[Array, "splits c"]:
    """Means of the present values in the training rows of each split; NaN if there are none."""
    return np.vstack([_means_from_blocks(X, columns, part) for part in partition.of_few_blocks()])


def _means_from_blocks(X: Table, columns: Int[Array, " c"], partition: Partition) -> Float[Array, "splits c"]:
    """The means from sums over blocks.

    A column that is constant keeps its value exactly, so that filling does not make it vary by rounding.
    """
    sums, counts = np.zeros((2, partition.blocks, len(columns)))
    low, high = np.full_like(sums, np.inf), np.full_like(sums, -np.inf)
    size = rows_at_a_time(X, CHUNK_VALUES)
    for begin in range(0, X.shape[0], size):
        blocks = partition.block_of_row[begin : begin + size]
        part = np.asarray(X[begin : begin + size])[:, columns]
        for block in np.unique(blocks[blocks >= 0]):
            values = part[blocks == block]
            sums[block] += np.nansum(values, axis=0)
            counts[block] += (~np.isnan(values)).sum(axis=0)
            low[block] = np.fmin(low[block], np.fmin.reduce(values, axis=0))
            high[block] = np.fmax(high[block], np.fmax.reduce(values, axis=0))
    out = np.empty((len(partition.splits), len(columns)))
    for split, (train, _) in enumerate(partition.splits):
        chosen = list(train)
        with np.errstate(invalid="ignore"):
            mean = sums[chosen].sum(axis=0) / counts[chosen].sum(axis=0)
        out[split] = np.where(np.isnan(mean), mean, np.clip(mean, low[chosen].min(axis=0), high[chosen].max(axis=0)))
    return out


def _medians(X: Table, columns: Int[Array, " c"], partition: Partition) -> Float[Array, "splits c"]:
    """Medians of the present values in the training rows of each split; NaN if there are none."""
    n = X.shape[0]
    medians = np.empty((len(partition.splits), len(columns)))
    size, width = rows_at_a_time(X, CHUNK_VALUES), max(1, GATHERED_VALUES // n)
    for first in range(0, len(columns), width):
        batch = columns[first : first + width]
        gathered = np.empty((len(batch), n))
        for begin in range(0, n, size):
            gathered[:, begin : begin + size] = np.asarray(X[begin : begin + size])[:, batch].T
        for split, (train, _) in enumerate(partition.splits):
            part = gathered[:, partition.rows(train)]
            medians[split, first : first + width] = [_median(row[~np.isnan(row)]) for row in part]
    return medians


def _median(values: Float[Array, " m"]) -> float:
    return float(np.median(values)) if len(values) else np.nan


def _weighted_moments(problem: Problem, partition: Partition) -> Iterator[tuple[Moments, Moments]]:
    """Training and validation moments of each split, with training and scoring weights."""
    for part in partition.of_few_blocks():
        train = split_moments(block_moments(problem, part, problem.weights), part)
        if problem.scoring is None:
            yield from train
            continue
        score = split_moments(block_moments(problem, part, problem.scoring), part)
        yield from ((trained[0], scored[1]) for trained, scored in zip(train, score, strict=True))


def _refilled(moments: Moments, p: int, columns: Int[Array, " q"], change: Float[Array, " q"]) -> Moments:
    """Moments of the p columns of X after adding `change` to the missing entries of `columns`."""
    S, indicators = moments.S.copy(order="F"), p + np.arange(len(columns))
    S[:, columns] += S[:, indicators] * change
    S[columns] += change[:, None] * S[indicators]
    step = np.zeros(len(S))
    step[columns] = change * moments.mean.high[indicators]
    kept = np.delete(np.arange(len(S)), indicators)
    return Moments(moments.weight, moments.mean.moved(step).of(kept), np.asfortranarray(S[np.ix_(kept, kept)]))
