"""The influences of rows on resampled criteria of generalized linear models, split by split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from worker.core.inner.smooth.fit import GeneralizedLinear, GeneralizedLinearFit
from worker.core.losses.derivatives import RowDerivatives, ScoreDerivatives
from worker.core.objective.fits import AnchoredFits
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
from worker.core.objective.one_smooth_fit import inverse_hessian
from worker.core.objective.sandwich import GradientSums
from worker.core.records import Array
from worker.core.rows.design import Design
from worker.core.rows.problem import Partition, Problem


@dataclass(frozen=True, slots=True)
class InfluencesOfSmooth:
    """Of clusters of rows on the gradient of J, and of groups of rows on the losses of each other.

    Unknown if an intercept gets no curvature from rows.
    """

    fits: AnchoredFits
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
        splits = self.splits(rho)
        if splits is None:
            return None
        q = overlap(problem, partition, self._factors)
        sums = GradientSums(int(clusters.max()) + 1, chosen.together.shape[1], q)
        for split, tangents in zip(splits, self.fits.tangents(rho, chosen.numbers), strict=True):
            D = tangents @ chosen.together
            of_scored, of_trained = clusters[split.scored.rows], clusters[split.train.rows]
            for columns, g, influences in split.gradients(D, chosen):
                sums.add_scored(columns, g, of_scored)
                sums.add_trained(columns, influences, of_trained)
            sums.add_weights(split.weights, of_scored)
        return sums

    def variance_of_pairs(
        self, problem: Problem, partition: Partition, rho: Float[Array, " k"], clusters: Int[Array, " n"]
    ) -> float:
        """What the variance of J has besides that of the losses of fixed models; zero where it is not computed.

        It is not for conjugate gradients, which would solve a system for each group.
        """
        factored = self.fits.systems[0].solver == "newton_cholesky"
        splits = self.splits(rho) if factored and has_pairs(problem, partition, self._factors) else None
        groups, count = groups_of(clusters)
        effects, weights = np.zeros((count, count)), np.zeros(count)
        for split in splits or ():
            effects += split.removal() * split.effects_on_losses(groups, count)
            weights += np.bincount(groups[split.scored.rows], split.weights, count)
        return variance_of_pairs(effects, weights)

    def splits(self, rho: Float[Array, " k"]) -> Iterator[SplitRows] | None:
        """The rows of each split; None if influences are not known."""
        fits = self.fits.at(rho)
        if fits is None or any(fit.ties is not None for fit in fits):
            return None
        return map(SplitRows.of, self.fits.systems, fits, self._factors.tolist())

    @property
    def _factors(self) -> Float[Array, " splits"]:
        return factors_of(self.fits, self.split_weights)


@dataclass(frozen=True, slots=True)
class SplitRows:
    """The rows of one split at its minimizer."""

    fit: GeneralizedLinearFit
    train: Design
    training: RowDerivatives  # of their losses in C, each with weight one
    scored: Design
    score: ScoreDerivatives  # of their losses, with their weights in J
    weights: Float[Array, " v"]  # in J; those of all splits sum to one

    @classmethod
    def of(cls, system: GeneralizedLinear, fit: GeneralizedLinearFit, factor: float) -> SplitRows:
        """`factor` is that of the split in J."""
        loss, weights = system.loss, factor * system.loss.w
        score = loss.score.at(loss.y, loss.predictor(fit.theta), weights)
        return cls(fit, fit.at.of.design, fit.at.rows, loss.design, score, weights)

    def gradients(
        self, D: Float[Array, "mq f"], chosen: Chosen
    ) -> Iterator[tuple[slice, Float[Array, "v c"], Float[Array, "n c"]]]:
        """For some columns of D at a time: weighted hypergradients of scored rows, and influences of training rows."""
        fit, design, training, s = self.fit, self.train, self.training, self.fit.shares.w
        u = fit.solve(self.scored.back(self.score.slope[:, :, None]))
        U, slope = design.predictor(u[:, 0]), training.slope
        bent, along = training.bend(U[:, :, None])[:, :, 0], np.einsum("nm,nm->n", slope, U)
        part = PenaltyPart.of(fit.penalty, fit.theta, u[:, 0], D, chosen)
        others, of_others = chosen.others(fit.penalty.of.k)
        shares_dot = fit.shares.w_dot[:, others] @ of_others if len(others) else None
        width = min(design.columns_at_once(D), self.scored.columns_at_once(D))
        for begin in range(0, D.shape[1], width):
            some = slice(begin, begin + width)
            V, V_scored = design.along(D[:, some]), self.scored.along(D[:, some])
            moved = s[:, None, None] * _third(training, U, V)
            if shares_dot is not None:
                moved += shares_dot[:, None, some] * bent[:, :, None]
            N = fit.solve(self.scored.back(self.score.bend(V_scored)) - design.back(moved) - part.H_j_u[:, some])
            terms = np.einsum("nm,nmf->nf", slope, design.along(N)) + np.einsum("nm,nmf->nf", bent, V)
            out = -s[:, None] * (terms + part.P_theta @ N + part.explicit[some])
            if shares_dot is not None:
                out -= shares_dot[:, some] * (along - part.along)[:, None]
            yield some, np.einsum("vm,vmf->vf", self.score.slope, V_scored), out

    def effects_on_losses(self, groups: Int[Array, " r"], count: int) -> Float[Array, "g g"]:
        """How the weight of group A in training moves the losses of the scored rows of group B, weighted as in J.

        `groups` has the group of each row of the problem.
        """
        of_trained, s = groups[self.train.rows], self.fit.shares.w
        pulls = np.vstack([*self.train.back_by_group(s[:, None] * self.training.slope, of_trained, count)])
        pulls -= np.outer(pulls.sum(axis=1), np.bincount(of_trained, s, count))
        e = np.vstack([*self.scored.back_by_group(self.score.slope, groups[self.scored.rows], count)])
        return -self.fit.solve(pulls).T @ e

    def removal(self) -> float:
        """See `of_removal`. A common shift of the intercepts of classes is no degree of freedom."""
        P, of = self.fit.penalty.apply(inverse_hessian(self.fit)), self.fit.at.of
        degrees = len(P) - float(np.trace(P)) - (of.tied is not None)
        return of_removal(degrees, float(max(of.m - 1, 1) * np.count_nonzero(self.fit.shares.w)))


def _third(training: RowDerivatives, U: Float[Array, "n m"], V: Float[Array, "n m f"]) -> Float[Array, "n m f"]:
    """The third derivative of each row's loss along U and each direction in V."""
    out = np.empty_like(V)
    for j in range(V.shape[2]):
        pairs = U[:, :, None] * V[:, None, :, j]
        out[:, :, j] = training.third_contract((pairs + pairs.transpose(0, 2, 1)) / 2)
    return out
