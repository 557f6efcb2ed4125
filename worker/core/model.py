"""The fitted model: the refit on given rows, and its score on others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from worker.core.losses import ScoreLoss
from worker.core.records import Array, Problem
from worker.core.statistics import CHUNK_VALUES
from worker.core.tables import rows_at_a_time, take
from worker.core.training import Training


@dataclass(frozen=True, slots=True)
class Model:
    """A linear model in original units: `eta = intercept + X @ coefficients`."""

    intercept: float
    coefficients: Float[Array, " p"]

    def predict(self, X: Float[Array, "n p"] | csr_array) -> Float[Array, " n"]:
        """The linear predictor of each row."""
        return self.intercept + X @ self.coefficients

    def score(self, loss: ScoreLoss, problem: Problem, rows: Int[Array, " t"]) -> float:
        """The weighted mean of the loss over the rows."""
        size = rows_at_a_time(problem.X, CHUNK_VALUES)
        eta = [self.predict(take(problem.X, rows[begin : begin + size])) for begin in range(0, len(rows), size)]
        losses, weights = loss.of(problem.y[rows] - np.concatenate(eta))[0], problem.score_weights(rows)
        return float(weights @ losses / weights.sum())


def refit(training: Training, problem: Problem, rows: Int[Array, " m"], lam: Float[Array, " k"]) -> Model | None:
    """The model of the given rows, whose missing values are filled; None where training is singular."""
    system = training.refit(problem, rows)
    fit = system.fit(lam)
    return None if fit is None else Model(*system.coefficients(fit.theta))
