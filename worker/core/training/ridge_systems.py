"""The training system of a split of ridge, in each of the forms that it can be solved in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from worker.core.inner.least_squares.dual import DualRidge
from worker.core.inner.least_squares.orthogonal import OrthogonalRidge
from worker.core.inner.least_squares.primal import PrimalRidge
from worker.core.inner.least_squares.weighted import WeightedRidge
from worker.core.losses import ResidualLoss
from worker.core.losses.over_rows import LossOfRows, SquaredErrorOfMoments
from worker.core.penalties.forms import PenaltyForms
from worker.core.records import Array
from worker.core.rows.centre import Centre
from worker.core.rows.moments import Moments, unexplained
from worker.core.rows.problem import Problem
from worker.core.rows.tables import DenseRows
from worker.core.training.ridge_rows import (
    centred_rows,
    dense_rows,
    loss_about_reference,
    loss_of_rows,
    score_weights_or_none,
    training_rows,
)
from worker.core.weights import ExampleWeights

NEARLY_EXACT_FRACTION = 1e-4  # unexplained fraction of the variance of y below which moments of y lose too many digits
MOST_SCORED_VALUES = 4096  # of validation rows that are scored themselves, at no more cost than through their moments


@dataclass(frozen=True, slots=True)
class RidgeSystems:
    """Makes systems of splits with these penalties.

    `scale` gives the factor of each coefficient in its penalty from the variances of the columns; None for ones.
    """

    forms: PenaltyForms
    scale: Callable[[Float[Array, " p"]], Float[Array, " p"]] | None
    intercept: bool

    def primal(
        self,
        problem: Problem,
        train: Moments,
        validation: Moments,
        rows: Int[Array, " m"],
        loss: ResidualLoss,
        lower: Float[Array, " k"],
        *,
        score_rows: bool,
    ) -> PrimalRidge:
        """From the moments of the training rows. With `score_rows` the validation rows themselves are scored.

        `lower` are hyperparameters at which moments would lose most digits.
        """
        centre = self.centre(train.mean)
        M, p = train.about(centre), problem.X.shape[1]
        M /= train.weight
        penalty = self.penalty(train.variance()[:-1])
        quadratic = penalty, centre, float(M[-1, -1]), M[:-1, :-1], M[:-1, -1].copy()
        if score_rows or len(rows) < p or len(rows) * p <= MOST_SCORED_VALUES:
            return PrimalRidge(loss_of_rows(problem, rows, centre, loss), *quadratic)
        distance = validation.mean.minus(centre)
        scored = SquaredErrorOfMoments(validation.weight, validation.S, distance, np.zeros(p))
        system = PrimalRidge(scored, *quadratic)
        fit = system.fit(lower) if unexplained(train) < NEARLY_EXACT_FRACTION else None
        if fit is None:
            return system
        return replace(system, loss=loss_about_reference(scored, problem, rows, centre, fit.theta))

    def orthogonal(
        self,
        problem: Problem,
        train: Int[Array, " m"],
        validation: Int[Array, " v"],
        loss: ResidualLoss,
    ) -> OrthogonalRidge:
        """From a factorization of the training rows."""
        w, mean, variance = training_rows(problem, train)
        Z, y = dense_rows(problem, train, mean)
        root = np.sqrt(w / w.sum())
        Z, y = root[:, None] * Z, root * y
        if not self.intercept:
            Z, y = np.vstack([mean.high[:-1], Z]), np.append(mean.high[-1], y)
        centre = self.centre(mean)
        scored = loss_of_rows(problem, validation, centre, loss)
        return OrthogonalRidge(scored, self.penalty(variance), centre, float(y @ y), Z, y, root)

    def dual(
        self,
        problem: Problem,
        train: Int[Array, " m"],
        validation: Int[Array, " v"],
        loss: ResidualLoss,
        *,
        orthogonal: bool,
    ) -> DualRidge:
        """From the n x n matrix of the training rows."""
        w, mean, variance = training_rows(problem, train)
        centre = self.centre(mean)
        root_weights = np.sqrt(len(w) / w.sum() * w)
        X, y = centred_rows(problem, train, centre)
        y *= root_weights
        scored = loss_of_rows(problem, validation, centre, loss)
        return DualRidge(
            scored, self.penalty(variance), centre, float(y @ y) / len(y), X, y, root_weights,
            centred=self.intercept,
            orthogonal=orthogonal,
        )  # fmt: skip

    def weighted(
        self,
        problem: Problem,
        split: Problem,
        train: Int[Array, " m"],
        validation: Int[Array, " v"],
        weights: ExampleWeights,
        loss: ResidualLoss,
        *,
        orthogonal: bool,
    ) -> WeightedRidge:
        """With example weights as hyperparameters; the split has its missing values filled."""
        ones = int(self.intercept)
        base, mean, variance = training_rows(split, train)  # of this split, as another may hold an outlier
        origin, penalty = self.centre(mean), self.penalty(variance)
        Z, y = dense_rows(split, train, origin, ones)
        Z_scored, y_scored = dense_rows(split, validation, origin, ones)
        scored = LossOfRows(DenseRows(Z_scored), y_scored, loss, score_weights_or_none(problem, validation))
        return WeightedRidge(
            scored, penalty.after_intercept() if ones else penalty, origin, self.intercept,
            Z, y, base, weights.weighting(problem, train),
            orthogonal=orthogonal,
        )  # fmt: skip

    def centre(self, mean: Centre) -> Centre:
        """The origin of the rows: their mean if there is an intercept."""
        return mean if self.intercept else Centre.zero(len(mean.high))

    def penalty(self, variance: Float[Array, " p"]) -> PenaltyForms:
        """The penalties of columns with these variances."""
        return self.forms if self.scale is None else self.forms.scaled(self.scale(variance))
