"""The influences of rows on resampled criteria of linear models: least squares, and generalized linear models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from worker.core.inner.protocols import LeastSquaresFit, LeastSquaresSystem
from worker.core.inner.smooth.fit import GeneralizedLinearFit
from worker.core.losses import ResidualLoss
from worker.core.losses.half_squared_error import HalfSquaredError
from worker.core.objective.clustered import MOST_CLUSTERS
from worker.core.objective.fits import AnchoredFits, DirectFits, HeldFits
from worker.core.objective.influence import (
    Chosen,
    SplitRows,
    effects_on_losses,
    gradients_of_scored,
    gradients_of_trained,
    variance_of_pairs,
)
from worker.core.objective.mean_of_splits import factors_of
from worker.core.objective.sandwich import GradientSums
from worker.core.penalties.forms import Penalized
from worker.core.records import Array
from worker.core.rows.centre import Centre
from worker.core.rows.design import Design
from worker.core.rows.filled import split_problems
from worker.core.rows.problem import Partition, Problem

MOST_GROUPS = 64  # of rows, whose effects on each other are computed
MOST_ROWS_PER_COLUMN = 200  # beyond, models hardly move with single rows, and effects on each other do not count
MOST_TERMS_OF_PAIRS = 2_000_000_000  # values of training rows over all splits, for the effects on each other
MOST_COEFFICIENTS_OF_PAIRS = 300_000  # of a model; more would take much memory for each group
MOST_TERMS = 4_000_000_000  # products of values with directions, over all splits: beyond, a sample of clusters trains
FEWEST_SAMPLED = 128  # places of clusters in a sample; they estimate a width to 6 %
HELD_VALUES = 16_000_000  # of the rows of one split in memory: 128 MB; more are read from the table, chunk by chunk


@runtime_checkable
class SourceOfRows(Protocol):
    """Where the rows of each split are, for `Influences`."""

    def splits(
        self,
        problem: Problem,
        partition: Partition,
        rho: Float[Array, " k"],
        factors: Float[Array, " splits"],
        kept: Bool[Array, " n"] | None,
    ) -> Iterator[SplitRows] | None:
        """Each split, of the training rows those that are `kept`; None if influences are not known."""

    def fraction(self, problem: Problem, partition: Partition, f: int) -> float:
        """The fraction of the training rows that may be kept, so that f directions take a bounded time."""


@dataclass(frozen=True, slots=True)
class Influences:
    """Of clusters of rows on the gradient of J, and of groups of rows on the losses of each other."""

    fits: HeldFits
    source: SourceOfRows
    split_weights: Float[Array, " splits"] | None = None

    def gradients(
        self,
        problem: Problem,
        partition: Partition,
        rho: Float[Array, " k"],
        chosen: Chosen,
        clusters: Int[Array, " n"],
    ) -> GradientSums | None:
        """Sums over clusters; None if influences are not known."""
        factors, f = factors_of(self.fits, self.split_weights), chosen.together.shape[1]
        sums = GradientSums(int(clusters.max()) + 1, f, overlap(problem, partition, factors))
        kept = sums.sample(self.source.fraction(problem, partition, f), FEWEST_SAMPLED)
        of_rows = None if kept is None else kept[clusters % MOST_CLUSTERS]
        splits = self.source.splits(problem, partition, rho, factors, of_rows)
        if splits is None:
            return None
        for split, tangents in zip(splits, self.fits.tangents(rho, chosen.numbers), strict=True):
            D_theta = tangents @ chosen.together
            D = split.fit.lift(D_theta)
            sums.add_scored(gradients_of_scored(split, D), split.weights, clusters[split.scored.rows])
            for columns, influences in gradients_of_trained(split, D, D_theta, chosen):
                sums.add_trained(columns, influences, clusters[split.train.rows])
        return sums

    def variance_of_pairs(
        self, problem: Problem, partition: Partition, rho: Float[Array, " k"], clusters: Int[Array, " n"]
    ) -> float:
        """What the variance of J has besides that of the losses of fixed models; zero where it is not computed.

        So it is where there are many rows for each column, where training uses conjugate gradients, and where no row
        that is scored trains.
        """
        factors = factors_of(self.fits, self.split_weights)
        count = min(int(clusters.max()) + 1, MOST_GROUPS)
        if not self._can_pair(problem, partition) or not overlap(problem, partition, factors):
            return 0.0
        groups = clusters % count
        splits = self.source.splits(problem, partition, rho, factors, None)
        effects, weights = np.zeros((count, count)), np.zeros(count)
        for split in splits or ():
            effects += effects_on_losses(split, groups, count)
            weights += np.bincount(groups[split.scored.rows], split.weights, count)
        return variance_of_pairs(effects, weights)

    def _can_pair(self, problem: Problem, partition: Partition) -> bool:
        """Whether effects of rows on each other matter, and are cheap enough."""
        n, p = problem.X.shape
        few = len(partition.used) <= MOST_ROWS_PER_COLUMN * p and self.fits.systems[0].solver != "newton_cg"
        return few and n * p * len(partition.splits) <= MOST_TERMS_OF_PAIRS and p <= MOST_COEFFICIENTS_OF_PAIRS


def overlap(problem: Problem, partition: Partition, factors: Float[Array, " splits"]) -> float:
    """The share of J's weight on rows that also train, in a split that counts: 1 of K folds, 0 of a hold-out part."""
    used, blocks = partition.used, partition.blocks
    block, weights = partition.block_of_row[used], problem.score_weights(used)
    scored = np.bincount(block, weights, blocks)
    both = np.bincount(block, weights * (problem.base_weights(used) > 0), blocks)
    trains = np.zeros(blocks, bool)
    for factor, (train, validation) in zip(factors, partition.splits, strict=True):
        if factor > 0 and scored[list(validation)].any():
            trains[list(train)] = True
    both[~trains] = 0.0
    parts = [factor * both[list(scores)].sum() for factor, (_, scores) in zip(factors, partition.splits, strict=True)]
    return float(sum(parts))


@dataclass(frozen=True, slots=True)
class RowsOfLeastSquares:
    """The rows of fits of least squares, which are read from the table. `eliminated`: the intercept is not in theta."""

    fits: DirectFits[LeastSquaresFit]
    systems: Sequence[LeastSquaresSystem]
    loss: ResidualLoss
    eliminated: bool

    def fraction(self, problem: Problem, partition: Partition, f: int) -> float:
        """All of a table of moderate size."""
        n, p = problem.X.shape
        return MOST_TERMS / (2.0 * n * (p + 1) * (f + 1) * len(partition.splits))

    def splits(
        self,
        problem: Problem,
        partition: Partition,
        rho: Float[Array, " k"],
        factors: Float[Array, " splits"],
        kept: Bool[Array, " n"] | None,
    ) -> Iterator[SplitRows] | None:
        """Each split; None if training is singular."""
        fits = self.fits.at(rho)
        return None if fits is None else self._each(problem, partition, fits, factors, kept)

    def _each(
        self,
        problem: Problem,
        partition: Partition,
        fits: Sequence[LeastSquaresFit],
        factors: Float[Array, " splits"],
        kept: Bool[Array, " n"] | None,
    ) -> Iterator[SplitRows]:
        parts = zip(self.systems, fits, factors, split_problems(problem, partition), partition.splits, strict=True)
        for system, fit, factor, split, (train, validation) in parts:
            rows, scored = partition.rows(train), partition.rows(validation)
            shares, k = fit.in_rho.shares_of(split.base_weights(rows)), fit.penalty.of.k
            s, s_dot = shares.w, shares.w_dot[:, k:]
            if kept is not None and not s_dot.shape[1]:
                some = kept[rows]
                rows, s, s_dot = rows[some], s[some], s_dot[some]
            origin = _origin(split, system.centre)
            designs = [_design(split, some, origin) for some in (rows, scored)]
            at = AboutCentre(system, fit, system.centre.of(slice(-1)).minus(Centre.at(origin)), self.eliminated)
            coefficients = at.lift(fit.theta[:, None])[:, 0]
            y = system.centre.of(slice(-1, None)).subtracted_from
            training = HalfSquaredError().at(y(split.y[rows]), designs[0].predictor(coefficients), np.ones(len(rows)))
            weights = factor * split.score_weights(scored)
            score = self.loss.at(y(split.y[scored]), designs[1].predictor(coefficients), weights)
            yield SplitRows(at, designs[0], training, s, s_dot, designs[1], score, weights)


def _origin(problem: Problem, centre: Centre) -> Float[Array, " p"]:
    """Near the centre; zero of sparse rows, which stay sparse."""
    return np.zeros(len(centre.high) - 1) if isinstance(problem.X, csr_array) else centre.high[:-1]


def _design(problem: Problem, rows: Int[Array, " n"], origin: Float[Array, " p"]) -> Design:
    hold = len(rows) * (len(origin) + 1) <= HELD_VALUES
    return Design.build(problem.X, rows, origin, intercept=True, hold=hold)


@dataclass(frozen=True, slots=True)
class AboutCentre:
    """A fit of least squares as coefficients of `(1, x - origin)`, with `shift` from the origin to the centre.

    About the centre an eliminated intercept has the curvature 1 and nothing in common with the slopes. Without any
    intercept the level is zero.
    """

    system: LeastSquaresSystem
    fit: LeastSquaresFit
    shift: Float[Array, " p"]
    eliminated: bool

    @property
    def theta(self) -> Float[Array, " p"]:
        """The minimizer."""
        return self.fit.theta

    @property
    def penalty(self) -> Penalized:
        """The total penalty."""
        return self.fit.in_rho.penalty

    def lift(self, t: Float[Array, "p f"]) -> Float[Array, "q f"]:
        """Level at the origin, and slopes."""
        levels, slopes = self.system.about_centre(t)
        return np.vstack([levels - self.shift @ slopes, slopes])

    def solve(
        self, of_rows: Float[Array, "q f"], of_theta: Float[Array, "p f"] | None = None
    ) -> tuple[Float[Array, "p f"], Float[Array, "q f"]]:
        """`H^-1` times the sum, as theta and as coefficients."""
        b = self.system.from_rows(of_rows[0], of_rows[1:] - np.outer(self.shift, of_rows[0]))
        t = self.fit.solve(b if of_theta is None else b + of_theta)
        out = self.lift(t)
        if self.eliminated:
            out[0] += of_rows[0]
        return t, out


@dataclass(frozen=True, slots=True)
class RowsOfGeneralized:
    """The rows of generalized linear models, which the systems hold."""

    fits: AnchoredFits

    def fraction(self, problem: Problem, partition: Partition, f: int) -> float:
        """All: training passes over them many times."""
        return 1.0

    def splits(
        self,
        problem: Problem,
        partition: Partition,
        rho: Float[Array, " k"],
        factors: Float[Array, " splits"],
        kept: Bool[Array, " n"] | None,
    ) -> Iterator[SplitRows] | None:
        """Each split; None if training has no minimizer, or an intercept that no row gives curvature."""
        fits = self.fits.at(rho)
        if fits is None or any(fit.ties is not None for fit in fits):
            return None
        return self._each(fits, factors)

    def _each(self, fits: Sequence[GeneralizedLinearFit], factors: Float[Array, " splits"]) -> Iterator[SplitRows]:
        for system, fit, factor in zip(self.fits.systems, fits, factors, strict=True):
            loss, of = system.loss, fit.at.of
            weights = factor * loss.w
            score = loss.score.at(loss.y, loss.predictor(fit.theta), weights)
            shares = fit.shares
            yield SplitRows(OfDesign(fit), of.design, fit.at.rows, shares.w, shares.w_dot, loss.design, score, weights)


@dataclass(frozen=True, slots=True)
class OfDesign:
    """A fit whose theta are the coefficients of its design."""

    fit: GeneralizedLinearFit

    @property
    def theta(self) -> Float[Array, " mq"]:
        """The minimizer."""
        return self.fit.theta

    @property
    def penalty(self) -> Penalized:
        """The total penalty."""
        return self.fit.penalty

    def lift(self, t: Float[Array, "mq f"]) -> Float[Array, "mq f"]:
        """The same."""
        return t

    def solve(
        self, of_rows: Float[Array, "mq f"], of_theta: Float[Array, "mq f"] | None = None
    ) -> tuple[Float[Array, "mq f"], Float[Array, "mq f"]]:
        """`H^-1` times the sum, twice."""
        t = self.fit.solve(of_rows if of_theta is None else of_rows + of_theta)
        return t, t
