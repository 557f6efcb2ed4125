"""Sufficient statistics of the squared loss: second moments of `[1, X, y]`, from one pass over the rows."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from worker.core.linalg import cholesky
from worker.core.linalg.triangular import add_outer, add_outer_product
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem
from worker.core.rows.tables import CHUNK_VALUES, rows_at_a_time, take

RELATIVE_RIDGE = 1e-10  # added to the diagonal, relative to it, so that duplicate columns can be factored
MAX_CHUNK_ROWS = 2000  # dense rows read at a time; for a narrow table they and their copy stay in the cache
MIRRORED_COLUMNS = 64  # columns copied to the upper triangle at a time; flat optimum between 32 and 128
SMALLEST_VARIANCE = 1e-12  # relative to the mean square about the shift; a smaller variance is rounding


@dataclass(frozen=True, slots=True)
class Moments:
    """`M = Z^T W Z` of rows of `Z = [1, X - shift_x, y - shift_y]`, both triangles filled, `q = p + 2`.

    `weight` is the sum of the row weights W, or the number of rows without weights.

    All blocks of a problem have the same shift. It is near the mean, so that variances do not suffer from cancellation;
    it has no other effect. Moments of disjoint rows add up.
    """

    weight: float
    M: Float[Array, "q q"]
    shift: Float[Array, " p1"]

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.weight + other.weight, self.M + other.M, self.shift)

    def __sub__(self, other: Moments) -> Moments:
        return Moments(self.weight - other.weight, self.M - other.M, self.shift)

    def mean(self) -> Float[Array, " p1"]:
        """Means of the columns of `[X, y]` in original units."""
        return self.M[0, 1:] / self.weight + self.shift

    def variance(self) -> Float[Array, " p1"]:
        """Variances (divisor the weight) of the columns of `[X, y]`; exactly zero for a constant column."""
        square = np.diag(self.M)[1:] / self.weight
        centred = square - (self.M[0, 1:] / self.weight) ** 2
        return np.where(centred > SMALLEST_VARIANCE * square, centred, 0.0)

    def about(self, centre: Float[Array, " p1"]) -> Float[Array, "p1 p1"]:
        """Second moments of `[X, y] - centre`, in original units: about the mean they are centred, about zero raw."""
        offset = self.shift - centre
        half = self.M[0, 1:] + self.weight / 2 * offset
        second = np.array(self.M[1:, 1:], order="F")
        return add_outer(add_outer(second, half, offset), offset, half)


def unexplained(moments: Moments) -> float:
    """Residual over total sum of squares of y about its mean, for least squares on all columns; 0 for an exact fit."""
    M = moments.about(moments.mean())
    total = M[-1, -1]
    cholesky.diagonal_of(M)[:-1] *= 1 + RELATIVE_RIDGE
    L = cholesky.factor_in_place(M)  # the squared last pivot is the residual sum of squares of y
    return 0.0 if L is None or total == 0 else float(L[-1, -1] ** 2 / total)


def block_moments(problem: Problem, partition: Partition, weights: Float[Array, " n"] | None = None) -> list[Moments]:
    """Moments of each block of the partition, with row `weights`, in one pass over the rows in their order."""
    X, y = problem.X, problem.y
    n, p = X.shape
    rows = rows_at_a_time(X, CHUNK_VALUES)
    if not isinstance(X, csr_array):
        rows = min(rows, MAX_CHUNK_ROWS)
    shift = _shift(problem, _first_used_rows(partition, rows))
    totals = [np.zeros((p + 2, p + 2), order="F") for _ in range(partition.blocks)]
    sums = np.zeros(partition.blocks)
    for begin in range(0, n, rows):
        chunk_blocks = partition.block_of_row[begin : begin + rows]
        order = np.argsort(chunk_blocks, kind="stable")  # groups the rows by block, in their order
        order = order[np.searchsorted(chunk_blocks[order], 0) :]
        if not len(order):
            continue  # rows that no split uses are not read
        used, firsts = np.unique(chunk_blocks[order], return_index=True)
        w = None if weights is None else weights[begin + order]
        sums += np.bincount(chunk_blocks[order], w, minlength=len(sums))
        add = _add_sparse if isinstance(X, csr_array) else _add_dense
        chunk: Any = X[begin : begin + rows]
        if len(used) > 1 or len(order) < len(chunk_blocks):  # np.take is twice as fast as indexing
            chunk = chunk[order] if isinstance(chunk, csr_array) else np.take(chunk, order, axis=0)
        add([totals[block] for block in used], np.append(firsts, len(order)), chunk, y[begin + order], w, shift)
    for M in totals:
        _fill_upper(M)
    return [Moments(float(total), M, shift) for total, M in zip(sums, totals, strict=True)]


def _first_used_rows(partition: Partition, rows: int) -> Int[Array, " m"]:
    """The first `rows` rows that any split uses."""
    blocks = partition.block_of_row
    first = int(np.argmax(blocks >= 0))
    head = first + np.flatnonzero(blocks[first : first + rows] >= 0)
    return head if len(head) == rows else np.flatnonzero(blocks >= 0)[:rows]


def _shift(problem: Problem, head: Int[Array, " m"]) -> Float[Array, " p1"]:
    """Means of the rows `head`; a sparse X is not shifted, so that it stays sparse."""
    X = problem.X
    if len(trained := problem.trained(head)):  # rows that are scored only may hold anything
        head = trained
    mean = np.zeros(X.shape[1]) if isinstance(X, csr_array) else np.ascontiguousarray(take(X, head)).mean(axis=0)
    return np.append(mean, problem.y[head].mean())


def _add_dense(
    totals: list[Float[Array, "q q"]],
    ends: Int[Array, " blocks1"],
    X: Float[Array, "m p"],
    y: Float[Array, " m"],
    w: Float[Array, " m"] | None,
    shift: Float[Array, " p1"],
) -> None:
    """Add `Z^T W Z` of the rows from `ends[i]` to `ends[i + 1]` to the lower triangle of `totals[i]`."""
    Z = np.empty((len(y), len(shift) + 1))
    Z[:, 0] = 1.0
    np.subtract(X, shift[:-1], out=Z[:, 1:-1])
    np.subtract(y, shift[-1], out=Z[:, -1])
    if w is not None:
        Z *= np.sqrt(w)[:, None]
    for M, begin, end in zip(totals, ends[:-1], ends[1:], strict=True):
        add_outer_product(M, Z[begin:end].T)


def _add_sparse(
    totals: list[Float[Array, "q q"]],
    ends: Int[Array, " blocks1"],
    X: csr_array,
    y: Float[Array, " m"],
    w: Float[Array, " m"] | None,
    shift: Float[Array, " p1"],
) -> None:
    """`_add_dense` for sparse rows; only y is shifted."""
    root = np.ones(len(y)) if w is None else np.sqrt(w)
    X, shifted_y = X if w is None else csr_array(X.multiply(root[:, None])), root * (y - shift[-1])
    for M, begin, end in zip(totals, ends[:-1], ends[1:], strict=True):
        part, ones, target = X[begin:end], root[begin:end], shifted_y[begin:end]
        M[1:-1, 1:-1] += (part.T @ part).toarray()
        M[1:-1, 0] += ones @ part
        M[-1, 1:-1] += target @ part
        M[[0, -1, -1], [0, 0, -1]] += ones @ ones, ones @ target, target @ target


def _fill_upper(M: Float[Array, "q q"]) -> None:
    """Copy the lower triangle into the upper one in place, by blocks of columns."""
    for begin in range(0, len(M), MIRRORED_COLUMNS):
        end = begin + MIRRORED_COLUMNS
        M[begin:end, end:] = M[end:, begin:end].T
        corner = M[begin:end, begin:end]
        corner[...] = np.tril(corner) + np.tril(corner, -1).T


def split_moments(blocks: list[Moments], partition: Partition) -> Iterator[tuple[Moments, Moments]]:
    """Training and validation moments of each split from the moments of the blocks, one split in memory at a time."""
    total = functools.reduce(operator.add, blocks)

    def union(chosen: tuple[int, ...]) -> Moments:
        left_out = [block for i, block in enumerate(blocks) if i not in chosen]
        if len(left_out) < len(chosen):  # a difference from the total needs fewer terms than the sum
            return functools.reduce(operator.sub, left_out, total)
        return functools.reduce(operator.add, (blocks[i] for i in chosen))

    for train, validation in partition.splits:
        yield union(train), union(validation)
