"""Validation losses as functions of theta: sums over the validation rows of one split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from worker.core.records import Array
from worker.core.tables import Rows


@runtime_checkable
class ValidationLoss(Protocol):
    """A summed loss over the validation rows of one split. `theta` is what the split's training system fits."""

    @property
    def n(self) -> int:
        """Number of validation rows."""

    def value(self, theta: Float[Array, " p"]) -> float:
        """Sum of the losses."""

    def value_and_gradient(self, theta: Float[Array, " p"]) -> tuple[float, Float[Array, " p"]]:
        """Sum of the losses and its derivative in theta, for little more than the price of the value."""

    def hessian_form(self, D: Float[Array, "p f"], theta: Float[Array, " p"]) -> Float[Array, "f f"]:
        """`D^T E'' D` with the second derivative `E''` of the sum in theta."""


@dataclass(frozen=True, slots=True)
class SquaredErrorOfMoments:
    """Sum of `(y - eta)^2` from second moments: `z^T M z` with `z = (theta - reference, -1)`; no rows needed.

    `M` holds the moments of `[X, y - X reference]`. The relative error is about machine epsilon times (sum of squares
    of that last column) / value: a reference near theta saves the digits of a nearly perfect fit; else zero will do.
    """

    n: int
    M: Float[Array, "p1 p1"]
    reference: Float[Array, " p"]

    def value(self, theta: Float[Array, " p"]) -> float:
        """`z^T M z`."""
        return self.value_and_gradient(theta)[0]

    def value_and_gradient(self, theta: Float[Array, " p"]) -> tuple[float, Float[Array, " p"]]:
        """`z^T M z`, and `2 M z` without its last entry."""
        z = np.append(theta - self.reference, -1.0)
        Mz = self.M @ z
        return float(max(z @ Mz, 0.0)), 2.0 * Mz[:-1]

    def hessian_form(self, D: Float[Array, "p f"], theta: Float[Array, " p"]) -> Float[Array, "f f"]:
        """`2 D^T M D` over the columns of X."""
        del theta  # quadratic: the second derivative is constant
        return 2.0 * (D.T @ (self.M[:-1, :-1] @ D))


@dataclass(frozen=True, slots=True)
class SquaredErrorOfRows:
    """Sum of `(y - eta)^2` from the rows themselves: cheaper than moments where there are fewer rows than columns."""

    X: Rows
    y: Float[Array, " n"]

    @property
    def n(self) -> int:
        """Number of validation rows."""
        return len(self.y)

    def value(self, theta: Float[Array, " p"]) -> float:
        """`|X theta - y|^2`."""
        r = self.X @ theta - self.y
        return float(r @ r)

    def value_and_gradient(self, theta: Float[Array, " p"]) -> tuple[float, Float[Array, " p"]]:
        """`|r|^2` and `2 X^T r` with `r = X theta - y`."""
        r = self.X @ theta - self.y
        return float(r @ r), 2.0 * (r @ self.X)

    def hessian_form(self, D: Float[Array, "p f"], theta: Float[Array, " p"]) -> Float[Array, "f f"]:
        """`2 |X D|^2` as a Gram matrix."""
        del theta
        eta_dot = self.X @ D
        return 2.0 * (eta_dot.T @ eta_dot)
