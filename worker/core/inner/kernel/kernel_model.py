"""The fitted kernel machine: `eta = intercept + sum_i coefficient_i k(x_i, x)` over its support rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from worker.core.kernels import KernelFunction, Points
from worker.core.records import Array
from worker.core.rows.problem import Problem
from worker.core.rows.tables import Table, take

MOST_KERNEL_VALUES = 4_000_000  # of a kernel matrix in memory at a time


@dataclass(frozen=True, slots=True)
class Standard:
    """Means and scales of the training rows, which standardize rows for the kernel."""

    mean: Float[Array, " p"]
    scale: Float[Array, " p"]

    def points(self, X: Table | csr_array, rows: Int[Array, " m"]) -> Points:
        """The points of some rows of a table."""
        part = take(X, rows)
        return self.of(part.toarray() if isinstance(part, csr_array) else np.asarray(part))

    def of(self, part: Float[Array, "m p"]) -> Points:
        """The points of rows in original units."""
        original = part - self.mean
        return Points(original if (self.scale == 1.0).all() else original / self.scale, original)


@dataclass(frozen=True, slots=True)
class KernelModel:
    """A kernel machine with its support rows; `lam` are the hyperparameters of the kernel.

    `gradient_norm`: the relative norm of the gradient of its training criterion at these coefficients; NaN if unknown.
    """

    kernel: KernelFunction
    lam: Float[Array, " q"]
    standard: Standard
    support: Points
    coefficients: Float[Array, " s"]
    intercept: float
    gradient_norm: float = np.nan

    @property
    def is_finite(self) -> bool:
        """Whether coefficients and intercept are finite."""
        return bool(np.isfinite(np.append(self.coefficients, self.intercept)).all())

    def predict(self, X: Float[Array, "n p"]) -> Float[Array, " n"]:
        """The predictor of rows in original units."""
        return np.concatenate([np.empty(0), *self.parts(X)])

    def parts(self, X: Float[Array, "n p"]) -> Iterator[Float[Array, " m"]]:
        """As `predict`, a part of the rows after the other: each takes some tenths of a second at most."""
        size = max(1, MOST_KERNEL_VALUES // max(len(self.support), 1))
        for i in range(0, len(X), size):
            yield self._predict(self.standard.of(X[i : i + size]))

    def predictor(self, problem: Problem, rows: Int[Array, " t"]) -> Float[Array, "t 1"]:
        """The predictors of rows of a problem."""
        size = max(1, MOST_KERNEL_VALUES // max(len(self.support), 1))
        parts = [self._predict(self.standard.points(problem.X, rows[i : i + size])) for i in range(0, len(rows), size)]
        return np.concatenate(parts)[:, None]

    def _predict(self, X: Points) -> Float[Array, " n"]:
        return self.kernel.at(X, self.support, self.lam).K @ self.coefficients + self.intercept
