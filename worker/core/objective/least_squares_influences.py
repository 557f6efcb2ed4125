"""The influences of rows on resampled criteria of least squares, with one pass over the rows for all splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from worker.core.inner.protocols import LeastSquaresFit, LeastSquaresSystem
from worker.core.losses import ResidualLoss
from worker.core.objective.clustered import MOST_CLUSTERS
from worker.core.objective.fits import DirectFits
from worker.core.objective.influence import (
    Chosen,
    PenaltyPart,
    groups_of,
    has_pairs,
    of_removal,
    overlap,
    variance_of_pairs,
)
from worker.core.objective.mean_of_splits import factors_of
from worker.core.objective.sandwich import GradientSums
from worker.core.objective.stacked_splits import MovingSplit, stacks
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem

MOST_TERMS = 4_000_000_000  # products of values of rows with directions: beyond, a sample of clusters stands for all
FEWEST_SAMPLED = 128  # places of clusters in a sample; they estimate a width to 6 %


@dataclass(frozen=True, slots=True)
class InfluencesOfLeastSquares:
    """Of clusters of rows on the gradient of J, and of groups of rows on the losses of each other.

    `eliminated`: there is an intercept that is not in theta. About the centre of the training rows it has the curvature
    1 and nothing in common with the slopes.
    """

    fits: DirectFits[LeastSquaresFit]
    systems: Sequence[LeastSquaresSystem]
    loss: ResidualLoss
    split_weights: Float[Array, " splits"] | None
    eliminated: bool

    def gradients(
        self,
        problem: Problem,
        partition: Partition,
        rho: Float[Array, " k"],
        chosen: Chosen,
        clusters: Int[Array, " n"],
    ) -> GradientSums | None:
        """Sums over clusters, of large tables over a sample; None if training is singular."""
        fits, factors, f = self.fits.at(rho), self._factors, chosen.together.shape[1]
        if fits is None:
            return None
        sums = GradientSums(int(clusters.max()) + 1, f, overlap(problem, partition, factors))
        terms = 2.0 * len(problem.y) * (problem.X.shape[1] + 1) * (f + 1) * len(factors)
        tuned = fits[0].in_rho.penalty.of.k < len(rho)
        sampled = None if tuned else sums.sample(MOST_TERMS / terms, FEWEST_SAMPLED)
        sums.whole, splits = np.zeros(f), []
        of_splits = zip(self.systems, fits, factors.tolist(), self.fits.tangents(rho, chosen.numbers), strict=True)
        for system, fit, factor, tangents in of_splits:
            D = tangents @ chosen.together
            bar = factor * system.loss.value_and_gradient(fit.theta)[1]
            sums.whole += bar @ D
            splits.append(self._moving(system, fit, factor, bar, D, chosen))
        kept = None if sampled is None else sampled[clusters % MOST_CLUSTERS]
        for stack in stacks(problem, partition, splits, kept, tuned=tuned):
            for rows, g, weights, influences in stack.gradients(self.loss, chosen):
                sums.add_scored(slice(None), g, clusters[rows])
                sums.add_weights(weights, clusters[rows])
                sums.add_trained(slice(None), influences, clusters[rows])
        return sums

    def variance_of_pairs(
        self, problem: Problem, partition: Partition, rho: Float[Array, " k"], clusters: Int[Array, " n"]
    ) -> float:
        """What the variance of J has besides that of the losses of fixed models; zero where it is not computed."""
        fits = self.fits.at(rho)
        if fits is None or not has_pairs(problem, partition, self._factors):
            return 0.0
        groups, count = groups_of(clusters)
        used = partition.used
        rows = np.bincount(partition.block_of_row[used], problem.base_weights(used) > 0, partition.blocks)
        times = [
            of_removal(fit.of_inverse.hat_trace()[0] + self.eliminated, rows[list(train)].sum())
            for fit, (train, _) in zip(fits, partition.splits, strict=True)
        ]
        return variance_of_pairs(*self.effects_on_losses(problem, partition, rho, groups, count, times))

    def effects_on_losses(
        self,
        problem: Problem,
        partition: Partition,
        rho: Float[Array, " k"],
        groups: Int[Array, " n"],
        count: int,
        times: Sequence[float],
    ) -> tuple[Float[Array, "g g"], Float[Array, " g"]]:
        """How the weight of group A in training moves the losses of the scored rows of group B, weighted as in J.

        Of each split so many `times`. And the weights of the groups in J.
        """
        effects, weights, fits = np.zeros((count, count)), np.zeros(count), self.fits.at(rho) or []
        tuned = fits[0].in_rho.penalty.of.k < len(rho)
        of_splits = zip(self.systems, fits, self._factors.tolist(), strict=True)
        splits = [MovingSplit(*one, np.zeros((len(one[1].theta), 0)), np.zeros(0)) for one in of_splits]
        for stack in stacks(problem, partition, splits, tuned=tuned):
            for number, pulls, shares, e, w in stack.by_group(self.loss, groups, count):
                split, centred = splits[number], pulls - np.outer(pulls.sum(axis=1), shares)
                moves = split.fit.solve(split.from_rows(centred, stack.origin))
                levels = centred[0] if self.eliminated else np.zeros(count)
                effects -= times[number] * (split.lift(moves, levels, stack.origin).T @ e)
                weights += w
        return effects, weights

    def _moving(
        self,
        system: LeastSquaresSystem,
        fit: LeastSquaresFit,
        factor: float,
        bar: Float[Array, " p"],
        D: Float[Array, "p f"],
        chosen: Chosen,
    ) -> MovingSplit:
        """A split with its adjoint u, D and N, in this order: see `influence.py`."""
        u, f = fit.solve(bar), D.shape[1]
        part = PenaltyPart.of(fit.in_rho.penalty, fit.theta, u, D, chosen)
        M = factor * system.loss.bend(D, fit.theta) - part.H_j_u
        others, of_others = chosen.others(fit.in_rho.penalty.of.k)
        if len(others):
            of_weights = fit.contract_columns(u, np.eye(len(u)))[fit.in_rho.penalty.of.k + others]
            M -= of_weights.T @ of_others
        N = fit.solve(M)
        levels = np.zeros(1 + 2 * f)
        if self.eliminated:
            slope, bend = system.loss.in_level(D, fit.theta)
            levels = factor * np.concatenate([[slope], np.zeros(f), bend])
        mean = part.P_theta @ N + part.explicit
        return MovingSplit(system, fit, factor, np.column_stack([u, D, N]), levels, mean, part.along)

    @property
    def _factors(self) -> Float[Array, " splits"]:
        return factors_of(self.fits, self.split_weights)
