"""Summaries of columns, in one pass over blocks of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from worker.contract.dataset import Column, ColumnType
from worker.datasets.refusal import invalid

Floats = npt.NDArray[np.float64]

CHUNK = 2**16  # values looked at together: they stay in the cache
NARROW = 16  # columns up to which a chunk is transposed: reductions along short rows are slow
PROBE = 2000  # values that show most columns to have more than `DISTINCT` different ones
DISTINCT = 1000  # different numbers that are counted
LISTED = 100  # of them a column may have to be listed, so that a job can take it for a category or for classes
LISTED_IN_ALL = 200_000  # values listed of all columns together: records of wide tables stay small


class Summaries:
    """Missing values, range, mean, standard deviation and distinct values of columns; infinite values are refused.

    Means and sums of squares are merged by Chan's formula, so a large offset costs no digits.
    """

    def __init__(self, names: Sequence[str], first: int = 0) -> None:
        d = len(names)
        self.first = first  # position of the first of these columns in its table
        self.names = tuple(names)
        self.rows = 0
        self.count = np.zeros(d)
        self.low, self.high = np.full(d, np.inf), np.full(d, -np.inf)
        self.mean, self.squares = np.zeros(d), np.zeros(d)
        self._distinct: list[Floats | None] = [np.empty(0) for _ in names]

    def add(self, block: Floats) -> None:
        """Take in the next rows (n x d). Raises RefusedError at the first infinite value."""
        n, d = block.shape
        step = max(CHUNK // max(d, 1), 1)
        if block.flags.f_contiguous and not block.flags.c_contiguous:
            step = CHUNK
        for start in range(0, n, step):
            self._moments(block[start : start + step], start)
        self._count_distinct(block)
        self.rows += n

    def _moments(self, chunk: Floats, start: int) -> None:
        n, d = chunk.shape
        columns = np.ascontiguousarray(chunk.T) if d < NARROW else chunk.T
        with np.errstate(all="ignore"):
            mean = columns.mean(axis=1)
            if not np.isfinite(mean).all():
                self._careful(columns, start)
                return
            low, high = columns.min(axis=1), columns.max(axis=1)
            centred = np.subtract(columns, mean[:, None], out=columns if columns.flags.owndata else None)
            squares = np.einsum("ij,ij->i", centred, centred)
            self._merge(np.full(d, float(n)), low, high, mean, squares)

    def _careful(self, columns: Floats, start: int) -> None:
        """A chunk with a value that is missing, infinite, or so large that sums overflow."""
        infinite = np.isinf(columns)
        if infinite.any():
            i, j = min((i, j) for j, i in np.argwhere(infinite))
            row = self.rows + start + int(i)
            detail = f"Row {row + 1}, column {self.names[j]!r}: the value is infinite; only finite numbers are taken."
            raise invalid(f"/rows/{row}/columns/{self.first + j}", "infinite", detail)
        present = ~np.isnan(columns)
        count = present.sum(axis=1).astype(float)
        mean = np.where(present, columns, 0.0).sum(axis=1) / np.maximum(count, 1)
        centred = np.where(present, columns - mean[:, None], 0.0)
        low, high = np.fmin.reduce(columns, axis=1), np.fmax.reduce(columns, axis=1)
        empty = count == 0
        low[empty], high[empty] = np.inf, -np.inf
        self._merge(count, low, high, mean, np.einsum("ij,ij->i", centred, centred))

    def _merge(self, count: Floats, low: Floats, high: Floats, mean: Floats, squares: Floats) -> None:
        with np.errstate(all="ignore"):
            total = self.count + count
            apart = mean - self.mean
            weight = count / np.maximum(total, 1)
            self.mean = self.mean + apart * weight
            self.squares = self.squares + squares + apart * apart * self.count * weight
            self.count = total
            self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)

    def _count_distinct(self, block: Floats) -> None:
        for j, known in enumerate(self._distinct):
            if known is not None:
                self._distinct[j] = _more_distinct(known, block[:, j])

    def columns(self, types: Sequence[ColumnType], categories: Sequence[list[str] | None]) -> list[Column]:
        """The summaries; numbers that do not exist, or overflowed, are None."""
        with np.errstate(all="ignore"):
            std = np.sqrt(self.squares / np.maximum(self.count, 1))
        columns, listed = [], self._listed(types)
        for j, name in enumerate(self.names):
            count, known = int(self.count[j]), self._distinct[j]
            texts, text = categories[j], types[j] == "category"
            stated = [self.low[j], self.high[j], self.mean[j], std[j]]
            low, high, mean, deviation = (_stated(value, exists=count > 0 and not text) for value in stated)
            distinct = len(texts) if texts is not None else None if known is None else len(known)
            columns.append(
                Column(
                    name=name, type=types[j], missing=self.rows - count, min=low, max=high, mean=mean, std=deviation,
                    distinct=distinct, values=known.tolist() if listed[j] and known is not None else None,
                    categories=texts if texts is not None and len(texts) <= 10_000 else None,
                )
            )  # fmt: skip
        return columns

    def _listed(self, types: Sequence[ColumnType]) -> npt.NDArray[np.bool_]:
        """The columns whose values are listed: those with the fewest first, as long as all together are not too many.

        Of columns with as many values the first ones. Two values are always known: they are the least and the largest.
        """
        numbers = (len(known) if known is not None and kind == "number" else LISTED + 1
                   for known, kind in zip(self._distinct, types, strict=True))  # fmt: skip
        counts = np.fromiter(numbers, int, len(types))
        order = np.argsort(counts, kind="stable")
        listed = np.zeros(len(types), bool)
        listed[order] = np.cumsum(counts[order]) <= LISTED_IN_ALL
        return listed & (counts <= LISTED)


def _stated(value: float, *, exists: bool) -> float | None:
    return float(value) if exists and math.isfinite(value) else None


def _more_distinct(known: Floats, values: Floats) -> Floats | None:
    """The distinct values so far and these, sorted; None once there are more than `DISTINCT`."""
    if len(known) < 2:
        probe = values[:PROBE]
        known = np.union1d(known, probe[~np.isnan(probe)])
    if len(known) > DISTINCT:
        return None
    if len(known):
        place = np.minimum(np.searchsorted(known, values), len(known) - 1)
        values = values[known[place] != values]
    new = values[~np.isnan(values)]
    if not len(new):
        return known
    known = np.union1d(known, new)
    return None if len(known) > DISTINCT else known
