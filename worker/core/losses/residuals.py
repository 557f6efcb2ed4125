"""Selection losses of a residual `r = y - eta`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeVar

import numpy as np
from annotated_types import Gt, Lt
from jaxtyping import Float, Int
from scipy.special import expit

from worker.core.hyperparameters import Positive
from worker.core.losses.derivatives import Elementwise
from worker.core.losses.relative import Delta, RelativeDelta
from worker.core.records import Array
from worker.core.rows.problem import Problem

S = TypeVar("S")


class _LossOfResidual(ABC):
    """A loss of the residual `r = y - eta`."""

    __slots__ = ()

    @abstractmethod
    def of(self, r: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, " n"]]:
        """The loss of each residual with its first and second derivative in r."""

    def at(self, y: Float[Array, " n"], eta: Float[Array, "n 1"], w: Float[Array, " n"]) -> Elementwise:
        """The weighted sum of the losses as a function of the predictor; its third derivative is NaN."""
        losses, slopes, curvatures = self.of(y - eta[:, 0])
        return Elementwise(losses, -slopes, curvatures, np.full_like(losses, np.nan), w)

    def slope_change(
        self, y: Float[Array, " n"], eta: Float[Array, "n 1"], radius: Float[Array, " n"]
    ) -> Float[Array, " n"]:
        """Largest change of the slope when eta moves by at most `radius`: at one end, because the loss is convex."""
        r = y - eta[:, 0]
        slope = self.of(r)[1]
        return np.maximum(self.of(r + radius)[1] - slope, slope - self.of(r - radius)[1])


@dataclass(frozen=True, slots=True)
class SquaredError(_LossOfResidual):
    """`r^2` with the residual `r = y - eta`: the usual choice; the mean minimizes it."""

    kind: Literal["squared_error"] = "squared_error"

    def of(self, r: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, " n"]]:
        """The loss of each residual with its first and second derivative in r."""
        return r**2, 2.0 * r, np.full_like(r, 2.0)


@dataclass(frozen=True, slots=True)
class Huber(_LossOfResidual):
    """`r^2` up to `|r| = delta`, `2 delta |r| - delta^2` beyond (Huber 1964, times 2).

    It is the squared error for small residuals, and less sensitive to outliers. `delta` is a number in units of the
    target, or relative to the spread of the target in all rows that the splits use.
    """

    delta: Delta = RelativeDelta()  # noqa: RUF009 - frozen
    kind: Literal["huber"] = "huber"

    def of(self, r: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, " n"]]:
        """The loss of each residual with its first and second derivative in r."""
        if isinstance(self.delta, RelativeDelta):
            raise TypeError("a relative delta has no length before the target is known: see in_units_of_target")
        inside = np.clip(r, -self.delta, self.delta)
        return inside * (2.0 * r - inside), 2.0 * inside, np.where(np.abs(r) <= self.delta, 2.0, 0.0)


@dataclass(frozen=True, slots=True)
class AbsoluteError(_LossOfResidual):
    """`sqrt(r^2 + s^2) - s`: the absolute error, smoothed within about `s = smoothing` (units of the target)."""

    smoothing: Positive = 0.01
    kind: Literal["absolute_error"] = "absolute_error"

    def of(self, r: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, " n"]]:
        """The loss of each residual with its first and second derivative in r."""
        length = np.hypot(r, self.smoothing)
        return r**2 / (length + self.smoothing), r / length, (self.smoothing / length) ** 2 / length


@dataclass(frozen=True, slots=True)
class QuantileError(_LossOfResidual):
    """`q r + s log(1 + exp(-r / s))`: the pinball loss of the quantile q, smoothed within `s = smoothing`."""

    quantile: Annotated[float, Gt(0), Lt(1)] = 0.5
    smoothing: Positive = 0.01
    kind: Literal["quantile_error"] = "quantile_error"

    def of(self, r: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, " n"]]:
        """The loss of each residual with its first and second derivative in r."""
        z = r / self.smoothing
        value = self.quantile * r + self.smoothing * np.logaddexp(0.0, -z)
        return value, self.quantile - expit(-z), expit(z) * expit(-z) / self.smoothing


ResidualLoss = SquaredError | Huber | AbsoluteError | QuantileError


def in_units_of_target(score: S, problem: Problem, rows: Int[Array, " m"]) -> S:
    """The score with its delta as a number, for these rows."""
    if isinstance(score, Huber) and isinstance(score.delta, RelativeDelta):
        return replace(score, delta=score.delta.of(problem, rows))
    return score
