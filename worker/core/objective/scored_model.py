"""The scores of rows under a trained model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from worker.core.losses.score import PredictorScore
from worker.core.objective.clustered import error_of_mean
from worker.core.records import Array
from worker.core.rows.problem import Problem


@runtime_checkable
class Predicts(Protocol):
    """A trained model."""

    def predictor(self, problem: Problem, rows: Int[Array, " t"]) -> Float[Array, "t m"]:
        """The linear predictors of rows of a problem."""


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """The weighted mean score of some rows, NaN if all weights are zero; `losses` is None if it is no mean loss."""

    value: float
    losses: Float[Array, " t"] | None
    weights: Float[Array, " t"]

    def standard_error(self, clusters: Int[Array, " t"]) -> float | None:
        """Of the mean; None for a single cluster, and if the score is no mean over rows."""
        if self.losses is None or not self.weights.any():
            return None
        return error_of_mean(self.losses, self.weights / self.weights.sum(), clusters)


def scored_by(model: Predicts, score: PredictorScore, problem: Problem, rows: Int[Array, " t"]) -> ScoredRows:
    """The scores of the rows."""
    weights = problem.score_weights(rows)
    if not weights.any():
        return ScoredRows(np.nan, None, weights)
    at = score.at(problem.y[rows], model.predictor(problem, rows), weights)
    return ScoredRows(at.value / float(weights.sum()), at.losses, weights)
