"""Sufficient statistics of squared loss: second moments of `[1, X, y]`, from one pass over row chunks."""

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

RIDGE = 1e-10  # relative, so that duplicate columns do not hide how well the rest explains y
MOST_ROWS = 2000  # dense rows at a time: those of a narrow table and their copy stay in the cache
MIRRORED = 64  # columns whose lower part is copied at a time: flat optimum between 32 and 128
CONSTANT = 1e-12  # a variance below this share of the mean square about the shift is rounding


@dataclass(frozen=True, slots=True)
class Moments:
    """`M = Z^T W Z` of rows of `Z = [1, X - shift_x, y - shift_y]`, both triangles filled, `q = p + 2`.

    `weight` is the sum of the weights W of the rows: their number where they have none.

    The shift is common to all blocks of a problem and near the mean, so that variances do not cancel; it changes
    nothing else. Moments of disjoint rows add up.
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
        """Variances (divisor the weight) of the columns of `[X, y]`; exactly zero where a column is constant."""
        square = np.diag(self.M)[1:] / self.weight
        centred = square - (self.M[0, 1:] / self.weight) ** 2
        return np.where(centred > CONSTANT * square, centred, 0.0)

    def about(self, centre: Float[Array, " p1"]) -> Float[Array, "p1 p1"]:
        """Second moments of `[X, y] - centre`, the centre in original units: centred rows, or raw ones about zero."""
        offset = self.shift - centre
        half = self.M[0, 1:] + self.weight / 2 * offset
        moved = np.array(self.M[1:, 1:], order="F")
        return add_outer(add_outer(moved, half, offset), offset, half)


def unexplained(moments: Moments) -> float:
    """Share of the sum of squares of y about its mean that least squares on all columns leaves; 0 for an exact fit."""
    M = moments.about(moments.mean())
    total = M[-1, -1]
    cholesky.diagonal_of(M)[:-1] *= 1 + RIDGE
    L = cholesky.factor_in_place(M)  # the square of the last pivot is what the columns before it leave
    return 0.0 if L is None or total == 0 else float(L[-1, -1] ** 2 / total)


def block_moments(problem: Problem, partition: Partition, weights: Float[Array, " n"] | None = None) -> list[Moments]:
    """Moments of each block of the partition, in one pass over the rows in their order; rows count by `weights`."""
    X, y = problem.X, problem.y
    n, p = X.shape
    rows = rows_at_a_time(X, CHUNK_VALUES)
    if not isinstance(X, csr_array):
        rows = min(rows, MOST_ROWS)
    shift = _shift(problem, _first_used(partition, rows))
    totals = [np.zeros((p + 2, p + 2), order="F") for _ in range(partition.blocks)]
    sums = np.zeros(partition.blocks)
    for begin in range(0, n, rows):
        chunk_blocks = partition.block_of_row[begin : begin + rows]
        order = np.argsort(chunk_blocks, kind="stable")  # rows of a block become neighbours, in their order
        order = order[np.searchsorted(chunk_blocks[order], 0) :]
        if not len(order):
            continue  # rows that no split uses are not read
        used, firsts = np.unique(chunk_blocks[order], return_index=True)
        w = None if weights is None else weights[begin + order]
        sums += np.bincount(chunk_blocks[order], w, minlength=len(sums))
        add = _add_sparse if isinstance(X, csr_array) else _add_dense
        chunk: Any = X[begin : begin + rows]
        if len(used) > 1 or len(order) < len(chunk_blocks):  # np.take is twice as fast as an index
            chunk = chunk[order] if isinstance(chunk, csr_array) else np.take(chunk, order, axis=0)
        add([totals[block] for block in used], np.append(firsts, len(order)), chunk, y[begin + order], w, shift)
    for M in totals:
        _mirror(M)
    return [Moments(float(total), M, shift) for total, M in zip(sums, totals, strict=True)]


def _first_used(partition: Partition, rows: int) -> Int[Array, " m"]:
    """The first rows that a split uses."""
    blocks = partition.block_of_row
    first = int(np.argmax(blocks >= 0))
    head = first + np.flatnonzero(blocks[first : first + rows] >= 0)
    return head if len(head) == rows else np.flatnonzero(blocks >= 0)[:rows]


def _shift(problem: Problem, head: Int[Array, " m"]) -> Float[Array, " p1"]:
    """Means of the first rows; a sparse X is not shifted, so that it stays sparse."""
    X = problem.X
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
    """Add `Z^T W Z` of the rows between two `ends` to the lower triangle of each total."""
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
    """Add `Z^T W Z` of the rows between two `ends` to the lower triangle of each total; only y is shifted."""
    root = np.ones(len(y)) if w is None else np.sqrt(w)
    X, moved = X if w is None else csr_array(X.multiply(root[:, None])), root * (y - shift[-1])
    for M, begin, end in zip(totals, ends[:-1], ends[1:], strict=True):
        some, ones, target = X[begin:end], root[begin:end], moved[begin:end]
        M[1:-1, 1:-1] += (some.T @ some).toarray()
        M[1:-1, 0] += ones @ some
        M[-1, 1:-1] += target @ some
        M[[0, -1, -1], [0, 0, -1]] += ones @ ones, ones @ target, target @ target


def _mirror(M: Float[Array, "q q"]) -> None:
    """Copy the lower triangle into the upper one, some columns at a time, without a second matrix."""
    for begin in range(0, len(M), MIRRORED):
        end = begin + MIRRORED
        M[begin:end, end:] = M[end:, begin:end].T
        corner = M[begin:end, begin:end]
        corner[...] = np.tril(corner) + np.tril(corner, -1).T


def split_moments(blocks: list[Moments], partition: Partition) -> Iterator[tuple[Moments, Moments]]:
    """Training and validation moments of each split, from those of the blocks; one split at a time is in memory."""
    total = functools.reduce(operator.add, blocks)

    def union(chosen: tuple[int, ...]) -> Moments:
        left_out = [block for i, block in enumerate(blocks) if i not in chosen]
        if len(left_out) < len(chosen):  # a difference from the total needs fewer terms than the sum
            return functools.reduce(operator.sub, left_out, total)
        return functools.reduce(operator.add, (blocks[i] for i in chosen))

    for train, validation in partition.splits:
        yield union(train), union(validation)
