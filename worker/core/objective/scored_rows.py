"""The validation rows of all splits at a point: the loss of each, or their predictors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from worker.core.losses import ResidualLoss
from worker.core.losses.derivatives import ScoreDerivatives
from worker.core.losses.measures import Pooled
from worker.core.objective.fits import Fits, HeldFits
from worker.core.objective.mean_of_splits import factors_of
from worker.core.objective.objective import Scores
from worker.core.records import Array
from worker.core.rows.filled import split_problems
from worker.core.rows.problem import Partition, Problem
from worker.core.rows.tables import CHUNK_VALUES, rows_at_a_time, take


@runtime_checkable
class LossOfEta(Protocol):
    """A selection loss that holds its rows and scores their predictors."""

    @property
    def y(self) -> Float[Array, " n"]:
        """The targets."""

    @property
    def w(self) -> Float[Array, " n"]:
        """The scoring weights."""

    def predictor(self, scored: Float[Array, " q"]) -> Float[Array, "n m"]:
        """`eta` of the rows."""

    def at(self, scored: Float[Array, " q"]) -> ScoreDerivatives:
        """The score with its derivatives in eta."""


@dataclass(frozen=True, slots=True)
class PredictedRows:
    """The validation rows of models whose losses hold them; `losses` has one for each split."""

    fits: Fits
    losses: Sequence[LossOfEta]
    split_weights: Float[Array, " splits"] | None = None

    def scores(self, problem: Problem, partition: Partition, rho: Float[Array, " k"]) -> Scores | None:
        """The losses of the rows; None if the score is not a mean over rows."""
        losses, weights = [], []
        for factor, loss, fit in zip(self._factors, self.losses, self.fits.each(rho), strict=True):
            row_losses = None if fit is None else loss.at(fit.scored).losses
            if row_losses is None:
                return None
            losses.append(row_losses)
            weights.append(factor * loss.w)
        rows = np.concatenate([partition.rows(validation) for _, validation in partition.splits])
        return Scores(np.concatenate(losses), np.concatenate(weights), rows)

    def pooled(self, rho: Float[Array, " k"]) -> Pooled | None:
        """The rows of all splits with their predictors; None if training has no minimizer."""
        parts = []
        for factor, loss, fit in zip(self._factors, self.losses, self.fits.each(rho), strict=True):
            if fit is None:
                return None
            parts.append((loss.y, loss.predictor(fit.scored), factor * loss.w))
        return Pooled.of_parts(parts)

    @property
    def _factors(self) -> Float[Array, " splits"]:
        return factors_of(self.fits, self.split_weights)


@dataclass(frozen=True, slots=True)
class ReadRows:
    """The validation rows of linear models that are fitted from moments: they are read from the table."""

    fits: HeldFits
    loss: ResidualLoss
    split_weights: Float[Array, " splits"] | None = None

    def scores(self, problem: Problem, partition: Partition, rho: Float[Array, " k"]) -> Scores | None:
        """The losses of the rows, in one pass over the table for all splits."""
        fits = self.fits.at(rho)
        if fits is None:
            return None
        factors = factors_of(self.fits, self.split_weights)
        models = [system.coefficients(fit.theta) for system, fit in zip(self.fits.systems, fits, strict=True)]
        tables = [split.X for split in split_problems(problem, partition)]
        validation = [partition.rows(blocks) for _, blocks in partition.splits]
        ends = np.cumsum([len(rows) for rows in validation])
        scores = Scores(np.empty(ends[-1]), np.empty(ends[-1]), np.concatenate(validation))
        size = rows_at_a_time(problem.X, CHUNK_VALUES)
        parts = list(zip(ends, validation, tables, models, factors, strict=True))
        for begin in range(0, len(problem.y), size):
            for end, rows, X, (constant, slopes), factor in parts:
                low, high = np.searchsorted(rows, (begin, begin + size))
                if low < high:
                    chunk, place = rows[low:high], slice(end - len(rows) + low, end - len(rows) + high)
                    scores.losses[place] = self.loss.of(problem.y[chunk] - constant - take(X, chunk) @ slopes)[0]
                    scores.weights[place] = factor * problem.score_weights(chunk)
        return scores
