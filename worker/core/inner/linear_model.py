"""The trained model with linear predictors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from worker.core.records import Array
from worker.core.rows.problem import Problem
from worker.core.rows.tables import CHUNK_VALUES, rows_at_a_time, take


@dataclass(frozen=True, slots=True)
class LinearModel:
    """A linear model in original units: `eta = intercept + X @ coefficients`, or one such predictor for each output.

    `gradient_norm`: the relative norm of the gradient of its training criterion at these coefficients; NaN if unknown.
    """

    intercept: float | Float[Array, " m"]
    coefficients: Float[Array, " p"] | Float[Array, "m p"]
    gradient_norm: float = np.nan

    @property
    def is_finite(self) -> bool:
        """Whether intercept and coefficients are finite."""
        return bool(np.isfinite(np.append(self.intercept, self.coefficients)).all())

    def predict(self, X: Float[Array, "n p"] | csr_array) -> Float[Array, " n *m"]:
        """The linear predictor of each row; if there are several outputs, one column for each."""
        return self.intercept + X @ self.coefficients.T

    def predictor(self, problem: Problem, rows: Int[Array, " t"]) -> Float[Array, "t m"]:
        """The linear predictors of rows of a problem, including their offset."""
        size = rows_at_a_time(problem.X, CHUNK_VALUES)
        parts = [self.predict(take(problem.X, rows[begin : begin + size])) for begin in range(0, len(rows), size)]
        eta = np.concatenate(parts).reshape(len(rows), -1)
        return eta if problem.offset is None else eta + problem.offset[rows, None]
