"""Validation losses: how a residual is scored, and sums of scores over validation rows as functions of theta."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, runtime_checkable

import numpy as np
from annotated_types import Gt, Lt
from jaxtyping import Float
from scipy.special import expit

from worker.core.glm.derivatives import Elementwise
from worker.core.records import Array
from worker.core.tables import Rows

Positive = Annotated[float, Gt(0)]


class _OfResidual(ABC):
    """A loss of the residual `r = y - eta`."""

    __slots__ = ()

    @abstractmethod
    def of(self, r: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, " n"]]:
        """The loss of each residual with its first and second derivative in r."""

    def at(self, y: Float[Array, " n"], eta: Float[Array, "n 1"], w: Float[Array, " n"]) -> Elementwise:
        """The weighted sum of the losses as a function of the predictor; its third derivative is not known here."""
        losses, slopes, curvatures = self.of(y - eta[:, 0])
        return Elementwise(losses, -slopes, curvatures, np.full_like(losses, np.nan), w)

    def slope_change(
        self, y: Float[Array, " n"], eta: Float[Array, "n 1"], radius: Float[Array, " n"]
    ) -> Float[Array, " n"]:
        """Largest change of the slope when eta moves by at most `radius`: at one end, as the loss is convex."""
        r = y - eta[:, 0]
        slope = self.of(r)[1]
        return np.maximum(self.of(r + radius)[1] - slope, slope - self.of(r - radius)[1])


@dataclass(frozen=True, slots=True)
class SquaredError(_OfResidual):
    """`r^2` with the residual `r = y - eta`: the usual choice, which the mean minimizes."""

    kind: Literal["squared_error"] = "squared_error"

    def of(self, r: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, " n"]]:
        """The loss of each residual with its first and second derivative in r."""
        return r**2, 2.0 * r, np.full_like(r, 2.0)


@dataclass(frozen=True, slots=True)
class Huber(_OfResidual):
    """`r^2` up to `|r| = delta`, `2 delta |r| - delta^2` beyond (Huber 1964, times 2); `delta` in units of the target.

    It is the squared error for small residuals, and less impressed by outliers.
    """

    delta: Positive = 1.0
    kind: Literal["huber"] = "huber"

    def of(self, r: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, " n"]]:
        """The loss of each residual with its first and second derivative in r."""
        inside = np.clip(r, -self.delta, self.delta)
        return inside * (2.0 * r - inside), 2.0 * inside, np.where(np.abs(r) <= self.delta, 2.0, 0.0)


@dataclass(frozen=True, slots=True)
class AbsoluteError(_OfResidual):
    """`sqrt(r^2 + s^2) - s`: the absolute error, rounded off within about `s = smoothing` (units of the target)."""

    smoothing: Positive = 0.01
    kind: Literal["absolute_error"] = "absolute_error"

    def of(self, r: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, " n"]]:
        """The loss of each residual with its first and second derivative in r."""
        length = np.hypot(r, self.smoothing)
        return r**2 / (length + self.smoothing), r / length, (self.smoothing / length) ** 2 / length


@dataclass(frozen=True, slots=True)
class QuantileError(_OfResidual):
    """`q r + s log(1 + exp(-r / s))`: the pinball loss of the quantile q, rounded off within `s = smoothing`."""

    quantile: Annotated[float, Gt(0), Lt(1)] = 0.5
    smoothing: Positive = 0.01
    kind: Literal["quantile_error"] = "quantile_error"

    def of(self, r: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, " n"]]:
        """The loss of each residual with its first and second derivative in r."""
        z = r / self.smoothing
        value = self.quantile * r + self.smoothing * np.logaddexp(0.0, -z)
        return value, self.quantile - expit(-z), expit(z) * expit(-z) / self.smoothing


ResidualLoss = SquaredError | Huber | AbsoluteError | QuantileError


@runtime_checkable
class ValidationLoss(Protocol):
    """A weighted sum of losses over the validation rows of one split. `theta` is what the split's system fits."""

    @property
    def weight(self) -> float:
        """Sum of the scoring weights: the number of validation rows where they have none."""

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

    weight: float
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
class LossOfRows:
    """Sum of `w_i loss(y_i - x_i^T theta)` from the rows themselves, for any loss."""

    X: Rows
    y: Float[Array, " n"]
    loss: ResidualLoss
    w: Float[Array, " n"] | None = None

    @property
    def weight(self) -> float:
        """Sum of the scoring weights."""
        return float(len(self.y)) if self.w is None else float(self.w.sum())

    def value(self, theta: Float[Array, " p"]) -> float:
        """Sum of the losses."""
        return float(self._weighted(self.loss.of(self.y - self.X @ theta)[0]).sum())

    def value_and_gradient(self, theta: Float[Array, " p"]) -> tuple[float, Float[Array, " p"]]:
        """Sum of the losses, and `-X^T (w loss')`."""
        losses, slopes, _ = self.loss.of(self.y - self.X @ theta)
        return float(self._weighted(losses).sum()), -(self._weighted(slopes) @ self.X)

    def hessian_form(self, D: Float[Array, "p f"], theta: Float[Array, " p"]) -> Float[Array, "f f"]:
        """`(X D)^T diag(w loss'') X D`."""
        curvatures = self._weighted(self.loss.of(self.y - self.X @ theta)[2])
        eta_dot = self.X @ D
        return (eta_dot.T * curvatures) @ eta_dot

    def _weighted(self, a: Float[Array, " n"]) -> Float[Array, " n"]:
        return a if self.w is None else self.w * a
