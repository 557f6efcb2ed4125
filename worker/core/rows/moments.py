"""Sufficient statistics of the squared loss: second moments of `[X, y]` about their means, from one pass over the rows.

The rows are read in sections, and the moments of each are about its own mean. Two sets of moments are merged by the
formula of Chan, Golub and LeVeque (1983), which adds squares only. So no digit is lost to a common shift that is far
from some of the rows, and a value in one block does not touch the moments of another. The sections follow from the
shape of the table alone and are merged in a fixed binary tree: sums computed side by side would have the same bits.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array

from worker.core.linalg import cholesky
from worker.core.linalg.triangular import add_outer, add_outer_product, subtract_square
from worker.core.records import Array
from worker.core.rows.centre import Centre
from worker.core.rows.problem import Partition, Problem
from worker.core.rows.tables import CHUNK_VALUES, rows_at_a_time, without_full_columns

RELATIVE_RIDGE = 1e-10  # added to the diagonal, relative to it, so that duplicate columns can be factored
MAX_CHUNK_ROWS = 2000  # dense rows read at a time; for a narrow table they and their copy stay in the cache
MIRRORED_COLUMNS = 64  # columns copied to the upper triangle at a time; flat optimum between 32 and 128
SECTION_CHUNKS = 16  # chunks of a section, at least: a merge then costs little beside the sum over its rows
SECTION_ROWS_PER_COLUMN = 8  # the same for wide tables
WIDE_COLUMNS = 500  # from here on there are few sections, so that at most four matrices of a block wait to be merged
MOST_WIDE_SECTIONS = 16
ROWS_FOR_SHIFT = 32  # of a section's block: the shift of a column is one of their values


@dataclass(frozen=True, slots=True)
class Moments:
    """`S = sum_i w_i (z_i - mean)(z_i - mean)^T` of rows `z = [x, y]`, both triangles filled, `p1 = p + 1`.

    `weight` is the sum of the row weights, or the number of rows without weights. Moments of disjoint rows add up.
    """

    weight: float
    mean: Centre
    S: Float[Array, "p1 p1"]

    def __add__(self, other: Moments) -> Moments:
        if not (self.weight and other.weight):
            return self if self.weight else other
        return _merged(self, Moments(other.weight, other.mean, other.S.copy(order="F")))

    def variance(self) -> Float[Array, " p1"]:
        """Variances (divisor the weight) of the columns of `[X, y]`; exactly zero for a constant column."""
        return np.maximum(np.diag(self.S), 0.0) / self.weight

    def about(self, centre: Centre) -> Float[Array, "p1 p1"]:
        """A copy of the second moments of `[X, y] - centre`: about the mean they are S, about zero raw."""
        distance = np.sqrt(self.weight) * self.mean.minus(centre)
        S = np.array(self.S, order="F")
        return add_outer(S, distance, distance) if distance.any() else S


def _merged(one: Moments, other: Moments) -> Moments:
    """The moments of the rows of both, in the array of the other. Lower triangles suffice."""
    weight = one.weight + other.weight
    distance = other.mean.minus(one.mean)
    S = np.add(one.S, other.S, out=other.S)
    root = np.sqrt(one.weight / weight * other.weight) * distance
    S = add_outer(S, root, root)
    return Moments(weight, one.mean.moved(other.weight / weight * distance), S)


def unexplained(moments: Moments) -> float:
    """Residual over total sum of squares of y about its mean, for least squares on all columns; 0 for an exact fit."""
    S = moments.S.copy(order="F")
    total = S[-1, -1]
    cholesky.diagonal_of(S)[:-1] *= 1 + RELATIVE_RIDGE
    L = cholesky.factor_in_place(S)  # the squared last pivot is the residual sum of squares of y
    return 0.0 if L is None or total == 0 else float(L[-1, -1] ** 2 / total)


def block_moments(problem: Problem, partition: Partition, weights: Float[Array, " n"] | None = None) -> list[Moments]:
    """Moments of each block of the partition, with row `weights`, in one pass over the rows in their order."""
    X, y = problem.X, problem.y
    n, p = X.shape
    rows = rows_at_a_time(X, CHUNK_VALUES)
    if not isinstance(X, csr_array):
        rows = min(rows, MAX_CHUNK_ROWS)
    chunks = _chunks_of_section(n, p, rows)
    trees = [_Tree() for _ in range(partition.blocks)]
    section: dict[int, _DenseSection | _SparseSection] = {}
    for number, begin in enumerate(range(0, n, rows)):
        chunk_blocks = partition.block_of_row[begin : begin + rows]
        order = np.argsort(chunk_blocks, kind="stable")  # groups the rows by block, in their order
        order = order[np.searchsorted(chunk_blocks[order], 0) :]
        if weights is not None:  # a row of weight zero is scored at most, and may hold anything
            order = order[weights[begin + order] > 0]
        if len(order):  # rows that no split uses are not read
            used, firsts = np.unique(chunk_blocks[order], return_index=True)
            chunk: Any = X[begin : begin + rows]
            if len(used) > 1 or len(order) < len(chunk_blocks):  # np.take is twice as fast as indexing
                chunk = chunk[order] if isinstance(chunk, csr_array) else np.take(chunk, order, axis=0)
            targets, w = y[begin + order], None if weights is None else weights[begin + order]
            for block, first, end in zip(used, firsts, [*firsts[1:], len(order)], strict=True):
                part = chunk[first:end], targets[first:end]
                if block not in section:
                    section[block] = _SparseSection() if isinstance(X, csr_array) else _DenseSection.at(*part)
                section[block].add(*part, None if w is None else w[first:end])
        if (number + 1) % chunks == 0 or begin + rows >= n:
            for block, tree in enumerate(trees):
                tree.add(section[block].moments() if block in section else None)
            section = {}
    return [tree.moments(p + 1) for tree in trees]


def _chunks_of_section(n: int, p: int, rows: int) -> int:
    """The number of chunks of so many rows in a section of an n x p table."""
    wide = p >= WIDE_COLUMNS
    return max(SECTION_CHUNKS, -(-SECTION_ROWS_PER_COLUMN * p // rows), -(-n // (rows * MOST_WIDE_SECTIONS)) * wide)


@dataclass(slots=True)
class _DenseSection:
    """`M = sum w [z - shift, 1] [z - shift, 1]^T` over rows, its lower triangle: squares, sums and the weight.

    The shift is a value of each column, so that a constant column gives zeros exactly.
    """

    shift: Float[Array, " p1"]
    M: Float[Array, "p2 p2"]

    @classmethod
    def at(cls, X: Float[Array, "m p"], y: Float[Array, " m"]) -> _DenseSection:
        """No rows yet; the shift is the value next to the mean of the first of these rows, for each column."""
        shift = np.append(_central(X[:ROWS_FOR_SHIFT]), _central(y[:ROWS_FOR_SHIFT, None]))
        return cls(shift, np.zeros((len(shift) + 1, len(shift) + 1), order="F"))

    def add(self, X: Float[Array, "m p"], y: Float[Array, " m"], w: Float[Array, " m"] | None) -> None:
        """Add rows."""
        Z = np.empty((len(y), len(self.M)))
        np.subtract(X, self.shift[:-1], out=Z[:, :-2])
        np.subtract(y, self.shift[-1], out=Z[:, -2])
        Z[:, -1] = 1.0
        if w is not None:
            Z *= np.sqrt(w)[:, None]
        add_outer_product(self.M, Z.T)

    def moments(self) -> Moments:
        """About the mean; the lower triangle alone is filled."""
        return _about_mean(float(self.M[-1, -1]), self.shift, self.M[-1, :-1], np.asfortranarray(self.M[:-1, :-1]))


@dataclass(slots=True)
class _SparseSection:
    """The moments of sparse rows, merged chunk by chunk; the lower triangle alone is filled."""

    total: Moments | None = None

    def add(self, X: csr_array, y: Float[Array, " m"], w: Float[Array, " m"] | None) -> None:
        """Add rows. Columns that most of them store get a shift; the others stay sparse."""
        p = X.shape[1]
        full, dense, rest = without_full_columns(X)
        shifted = np.append(full, p)
        Z, shift, s = np.column_stack([dense, y]), np.zeros(p + 1), np.zeros(p + 1)
        shift[shifted] = _central(Z[:ROWS_FOR_SHIFT])
        Z -= shift[shifted]
        root = np.ones(len(y)) if w is None else np.sqrt(w)
        if w is not None:
            Z, rest = root[:, None] * Z, csr_array(rest.multiply(root[:, None]))
        s[:-1], s[shifted] = root @ rest, root @ Z
        S = np.zeros((p + 1, p + 1), order="F")
        S[:-1, :-1] = (rest.T @ rest).toarray()
        cross = Z.T @ rest
        S[shifted, :-1] += cross
        S[:-1, shifted] += cross.T
        S[np.ix_(shifted, shifted)] = Z.T @ Z
        weight = float(len(y)) if w is None else float(w.sum())
        self.total = _sum(self.total, _about_mean(weight, shift, s, S))

    def moments(self) -> Moments | None:
        """About the mean; None if all weights are zero."""
        return self.total


def _about_mean(weight: float, shift: Float[Array, " p1"], s: Float[Array, " p1"], S: Float[Array, "p1 p1"]) -> Moments:
    """The moments about the mean from sums about the shift; overwrites the lower triangle of S."""
    if weight == 0:
        return Moments(0.0, Centre.at(shift), S)
    centred = subtract_square(S, s / np.sqrt(weight))
    return Moments(weight, Centre.at(shift).moved(s / weight), centred)


def _central(values: Float[Array, "m p"]) -> Float[Array, " p"]:
    """The value of each column next to its mean."""
    nearest = np.abs(values - values.mean(axis=0)).argmin(axis=0)
    return values[nearest, np.arange(values.shape[1])]


@dataclass(slots=True)
class _Tree:
    """Moments of sections, merged in a binary tree: as in a binary number, the sum of 2^k sections waits at place k."""

    count: int = 0
    waiting: list[Moments | None] = field(default_factory=list)

    def add(self, moments: Moments | None) -> None:
        """The next section; None if it has no rows."""
        place = 0
        while self.count >> place & 1:
            moments = _sum(self.waiting[place], moments)
            self.waiting[place] = None
            place += 1
        if place == len(self.waiting):
            self.waiting.append(None)
        self.waiting[place] = moments
        self.count += 1

    def moments(self, p1: int) -> Moments:
        """The merged moments of all sections, both triangles filled."""
        total = functools.reduce(lambda later, earlier: _sum(earlier, later), self.waiting, None)
        if total is None:
            return Moments(0.0, Centre.zero(p1), np.zeros((p1, p1), order="F"))
        _fill_upper(total.S)
        return total


def _sum(earlier: Moments | None, later: Moments | None) -> Moments | None:
    """Both, merged; None without rows. The arrays are overwritten."""
    parts = [part for part in (earlier, later) if part is not None and part.weight]
    return _merged(*parts) if len(parts) == 2 else parts[0] if parts else None


def _fill_upper(M: Float[Array, "q q"]) -> None:
    """Copy the lower triangle into the upper one in place, by blocks of columns."""
    for begin in range(0, len(M), MIRRORED_COLUMNS):
        end = begin + MIRRORED_COLUMNS
        M[begin:end, end:] = M[end:, begin:end].T
        corner = M[begin:end, begin:end]
        corner[...] = np.tril(corner) + np.tril(corner, -1).T


def split_moments(blocks: list[Moments], partition: Partition) -> Iterator[tuple[Moments, Moments]]:
    """Training and validation moments of each split from the moments of the blocks, one split in memory at a time."""
    everyone = frozenset(range(len(blocks)))
    each_left_out = [(block,) for block in range(len(blocks))]
    if [scored for _, scored in partition.splits] == each_left_out and all(
        frozenset(train) == everyone - {i} for i, (train, _) in enumerate(partition.splits)
    ):
        yield from zip(_all_but_one(blocks, None), blocks, strict=True)
        return
    before, union = frozenset[int](), None
    for train, validation in partition.splits:
        chosen = frozenset(train)
        if not (union and before <= chosen):  # an expanding window goes on from the split before
            before, union = frozenset(), None
        rest = [blocks[i] for i in sorted(chosen - before)]
        union = functools.reduce(operator.add, rest if union is None else [union, *rest])
        before = chosen
        yield union, functools.reduce(operator.add, (blocks[i] for i in validation))


def _all_but_one(blocks: list[Moments], outside: Moments | None) -> Iterator[Moments]:
    """The moments of all blocks but one, and of the rows `outside`, for each in order: m log m merges for m blocks."""
    if len(blocks) == 1:
        assert outside is not None
        yield outside
        return
    half = len(blocks) // 2
    for part, others in ((blocks[:half], blocks[half:]), (blocks[half:], blocks[:half])):
        known = others if outside is None else [outside, *others]
        yield from _all_but_one(part, functools.reduce(operator.add, known))
