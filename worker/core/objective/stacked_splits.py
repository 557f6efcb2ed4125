"""Rows of a table under the fits of least squares of all splits at once: one read and one product for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from worker.core.inner.protocols import LeastSquaresFit, LeastSquaresSystem
from worker.core.losses import ResidualLoss
from worker.core.objective.influence import Chosen
from worker.core.objective.row_tangents import MOST_VALUES
from worker.core.records import Array
from worker.core.rows.centre import Centre
from worker.core.rows.design import Design
from worker.core.rows.filled import split_problems
from worker.core.rows.problem import Partition, Problem
from worker.core.rows.tables import CHUNK_VALUES
from worker.core.weights import Weighting


@dataclass(frozen=True, slots=True)
class MovingSplit:
    """A fit, and directions in which theta moves; `levels` move the predictors besides, about the centre of the rows.

    The directions are the adjoint u, then D and N of `influence.py`, f of each, or none. `mean` and `along` are sums
    over all training rows.
    """

    system: LeastSquaresSystem
    fit: LeastSquaresFit
    factor: float  # of the split in J
    directions: Float[Array, "p d"]
    levels: Float[Array, " d"]
    mean: Float[Array, " f"] | None = None
    along: float = 0.0

    def lift(
        self, t: Float[Array, "p d"], levels: Float[Array, " d"], origin: Float[Array, " x"]
    ) -> Float[Array, "q d"]:
        """Each column of t as a level at the origin and slopes."""
        own, slopes = self.system.about_centre(t)
        return np.vstack([own + levels - self._shift(origin) @ slopes, slopes])

    def from_rows(self, B: Float[Array, "q d"], origin: Float[Array, " x"]) -> Float[Array, "p d"]:
        """The cotangents of theta from those of levels at the origin and slopes."""
        return self.system.from_rows(B[0], B[1:] - np.outer(self._shift(origin), B[0]))

    def coefficients(self, origin: Float[Array, " x"]) -> Float[Array, "q d1"]:
        """Of theta and of the directions."""
        t = np.column_stack([self.fit.theta, self.directions])
        return self.lift(t, np.append(0.0, self.levels), origin)

    def target(self, y: Float[Array, " c"]) -> Float[Array, " c"]:
        """The target about the centre."""
        return self.system.centre.of(slice(-1, None)).subtracted_from(y)

    def _shift(self, origin: Float[Array, " x"]) -> Float[Array, " x"]:
        return self.system.centre.of(slice(-1)).minus(Centre.at(origin))


def stacks(
    problem: Problem,
    partition: Partition,
    splits: Sequence[MovingSplit],
    kept: Bool[Array, " n"] | None = None,
    *,
    tuned: bool,
) -> Iterator[Stack]:
    """The splits with their rows, those that are `kept`: all at once, unless each has a table of its own."""
    rows = partition.used if kept is None else partition.used[kept[partition.used]]
    problems = split_problems(problem, partition)
    if all(one is problems[0] for one in problems):
        yield Stack.of(problems[0], partition, rows, splits, list(range(len(splits))), tuned=tuned)
        return
    for number, one in enumerate(problems):
        yield Stack.of(one, partition, rows, splits, [number], tuned=tuned)


@dataclass(frozen=True, slots=True)
class Stack:
    """Rows of a table, some of which train and some of which are scored in each of the splits."""

    problem: Problem
    partition: Partition
    rows: Int[Array, " n"]
    splits: Sequence[MovingSplit]
    numbers: Sequence[int]  # of the splits in the partition
    origin: Float[Array, " x"]
    trains: Bool[Array, "b K"]  # whether a block trains, in each split
    scores: Bool[Array, "b K"]
    totals: Float[Array, " K"]  # fixed weights of all rows that train
    tuned: bool  # whether there are weights that are tuned; then no training row is missing

    @classmethod
    def of(
        cls,
        problem: Problem,
        partition: Partition,
        rows: Int[Array, " n"],
        splits: Sequence[MovingSplit],
        numbers: Sequence[int],
        *,
        tuned: bool,
    ) -> Stack:
        """The chosen ones of all splits, without rows that none of them uses."""
        trains, scores = np.zeros((2, partition.blocks, len(numbers)), bool)
        for k, number in enumerate(numbers):
            train, validation = partition.splits[number]
            trains[list(train), k] = scores[list(validation), k] = True
        used = partition.used
        totals = np.bincount(partition.block_of_row[used], problem.base_weights(used), partition.blocks) @ trains
        needed = np.flatnonzero(trains.sum(axis=1) + scores.sum(axis=1))
        rows = rows[np.isin(partition.block_of_row[rows], needed)]
        centre = splits[numbers[0]].system.centre
        sparse = isinstance(problem.X, csr_array)
        origin = np.zeros(len(centre.high) - 1) if sparse else centre.high[:-1]
        return cls(
            problem, partition, rows, [splits[i] for i in numbers], numbers, origin, trains, scores, totals, tuned
        )

    def gradients(
        self, loss: ResidualLoss, chosen: Chosen
    ) -> Iterator[tuple[Int[Array, " c"], Float[Array, "c f"], Float[Array, " c"], Float[Array, "c f"]]]:
        """Of chunks of rows: the hypergradients times the weights in J, these weights, and the influences of training.

        Sums over the splits.
        """
        C = np.stack([split.coefficients(self.origin) for split in self.splits], axis=1)
        q, K, d = C.shape
        f = (d - 2) // 2
        mean = np.array([split.mean for split in self.splits])
        dotted = self._shares_dot(chosen) if self.tuned else None
        for part, design in self._chunks(K * d):
            rows = self.rows[part]
            moved = design.along(C.reshape(q, K * d))[:, 0].reshape(len(rows), K, d)
            slope, (weights, of_scored) = self._slopes(rows, moved[:, :, 0], loss)
            U, V, N = moved[:, :, 1], moved[:, :, 2 : 2 + f], moved[:, :, 2 + f :]
            g = np.einsum("ck,ckf->cf", of_scored, V)
            shares = self._shares(rows, part)
            out = -np.einsum("ck,ckf->cf", shares * slope, N) - np.einsum("ck,ckf->cf", shares * U, V) - shares @ mean
            if dotted is not None:
                along = slope * U - [split.along for split in self.splits]
                out -= np.einsum("ckf,ck->cf", dotted[part], along)
            yield rows, g, weights.sum(axis=1), out

    def by_group(
        self, loss: ResidualLoss, groups: Int[Array, " r"], count: int
    ) -> Iterator[tuple[int, Float[Array, "q g"], Float[Array, " g"], Float[Array, "q g"], Float[Array, " g"]]]:
        """For each split the sums over groups: slopes of C times rows, shares in C, slopes of J times rows, weights.

        The first two over training rows, the others over scored rows.
        """
        C = np.hstack([split.coefficients(self.origin) for split in self.splits])
        pulls, scored = np.zeros((2, C.shape[1], len(C), count))
        shares, weights = np.zeros((2, C.shape[1], count))
        for part, design in self._chunks(C.shape[1]):
            rows = self.rows[part]
            of_rows = groups[rows]
            slope, (w, of_scored) = self._slopes(rows, design.along(C)[:, 0], loss)
            s = self._shares(rows, part)
            members = (of_rows[:, None] == np.arange(count)).astype(float)
            pulls += design.back_by_group(s * slope, of_rows, count)
            scored += design.back_by_group(of_scored, of_rows, count)
            shares += s.T @ members
            weights += w.T @ members
        yield from zip(self.numbers, pulls, shares, scored, weights, strict=True)

    def _chunks(self, width: int) -> Iterator[tuple[slice, Design]]:
        """Of rows in memory, for so many products with each."""
        size = max(1, min(CHUNK_VALUES // (len(self.origin) + 1), MOST_VALUES // width))
        for begin in range(0, len(self.rows), size):
            part = slice(begin, begin + size)
            yield part, Design.build(self.problem.X, self.rows[part], self.origin, intercept=True, hold=True)

    def _slopes(
        self, rows: Int[Array, " c"], eta: Float[Array, "c K"], loss: ResidualLoss
    ) -> tuple[Float[Array, "c K"], tuple[Float[Array, "c K"], Float[Array, "c K"]]]:
        """The slopes of C; the weights in J of scored rows, zero of others, and with these weights the slopes of J."""
        r = np.column_stack([split.target(self.problem.y[rows]) for split in self.splits]) - eta
        block = self.partition.block_of_row[rows]
        factors = np.array([split.factor for split in self.splits])
        weights = np.where(self.scores[block], self.problem.score_weights(rows)[:, None] * factors, 0.0)
        return -r, (weights, -weights * loss.of(r.ravel())[1].reshape(r.shape))

    def _shares(self, rows: Int[Array, " c"], part: slice) -> Float[Array, "c K"]:
        """The shares of rows in C of each split, zero of those that do not train."""
        if self.tuned:
            return self._placed(lambda shares: shares.w)[part]
        base, block = self.problem.base_weights(rows), self.partition.block_of_row[rows]
        return np.where(self.trains[block], base[:, None], 0.0) / self.totals

    def _shares_dot(self, chosen: Chosen) -> Float[Array, "n K f"]:
        """The derivatives of the shares in the combinations."""
        return self._placed(lambda shares: shares.w_dot[:, chosen.numbers] @ chosen.together)

    def _placed(self, of: Callable[[Weighting], Array]) -> Array:
        """Something of the shares of the training rows of each split, which are all there; zero of other rows."""
        parts = []
        for split, number in zip(self.splits, self.numbers, strict=True):
            train = self.partition.rows(self.partition.splits[number][0])
            values = of(split.fit.in_rho.shares_of(self.problem.base_weights(train)))
            parts.append(np.zeros((len(self.rows), *values.shape[1:])))
            parts[-1][np.searchsorted(self.rows, train)] = values
        return np.stack(parts, axis=1)
