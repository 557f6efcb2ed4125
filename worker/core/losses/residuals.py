"""Selection losses of a residual `r = y - eta`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Gt, Lt
from jaxtyping import Float, Int
from scipy.special import expit

from worker.core.hyperparameters import Positive
from worker.core.losses.relative import Delta, Length, RelativeDelta
from worker.core.losses.score import ResidualLoss
from worker.core.records import Array
from worker.core.rows.problem import Problem


@dataclass(frozen=True, slots=True)
class SquaredError(ResidualLoss):
    """`r^2` with the residual `r = y - eta`: the usual choice; the mean minimizes it."""

    kind: Literal["squared_error"] = "squared_error"

    length: ClassVar[None] = None
    by_moments: ClassVar[bool] = True

    def of(self, r: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, " n"]]:
        """The loss of each residual with its first and second derivative in r."""
        return r**2, 2.0 * r, np.full_like(r, 2.0)

    def in_units(self, problem: Problem, rows: Int[Array, " m"]) -> ResidualLoss:
        """Itself: it has no length."""
        return self


@dataclass(frozen=True, slots=True)
class Huber(ResidualLoss):
    """`r^2` up to `|r| = delta`, `2 delta |r| - delta^2` beyond (Huber 1964, times 2).

    It is the squared error for small residuals, and less sensitive to outliers. `delta` is a number in units of the
    target, or relative to the spread of the target in all rows that the splits use.
    """

    delta: Delta = RelativeDelta()  # noqa: RUF009 - frozen
    kind: Literal["huber"] = "huber"

    def of(self, r: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, " n"]]:
        """The loss of each residual with its first and second derivative in r."""
        delta = self.length.number
        if delta is None:
            raise TypeError("a relative delta has no length before the target is known: see `in_units`")
        inside = np.clip(r, -delta, delta)
        return inside * (2.0 * r - inside), 2.0 * inside, np.where(np.abs(r) <= delta, 2.0, 0.0)

    @property
    def length(self) -> Length:
        """Delta."""
        return Length.given(self.delta)

    def in_units(self, problem: Problem, rows: Int[Array, " m"]) -> ResidualLoss:
        """The same with its delta as a number."""
        return replace(self, delta=self.length.of(problem, rows))


@dataclass(frozen=True, slots=True)
class AbsoluteError(ResidualLoss):
    """`sqrt(r^2 + s^2) - s`: the absolute error, smoothed within about `s = smoothing` (units of the target)."""

    smoothing: Positive = 0.01
    kind: Literal["absolute_error"] = "absolute_error"

    length: ClassVar[None] = None

    def of(self, r: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, " n"]]:
        """The loss of each residual with its first and second derivative in r."""
        length = np.hypot(r, self.smoothing)
        return r**2 / (length + self.smoothing), r / length, (self.smoothing / length) ** 2 / length

    def in_units(self, problem: Problem, rows: Int[Array, " m"]) -> ResidualLoss:
        """Itself: its smoothing is a number."""
        return self


@dataclass(frozen=True, slots=True)
class QuantileError(ResidualLoss):
    """`q r + s log(1 + exp(-r / s))`: the pinball loss of the quantile q, smoothed within `s = smoothing`."""

    quantile: Annotated[float, Gt(0), Lt(1)] = 0.5
    smoothing: Positive = 0.01
    kind: Literal["quantile_error"] = "quantile_error"

    length: ClassVar[None] = None

    def of(self, r: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, " n"]]:
        """The loss of each residual with its first and second derivative in r."""
        z = r / self.smoothing
        value = self.quantile * r + self.smoothing * np.logaddexp(0.0, -z)
        return value, self.quantile - expit(-z), expit(z) * expit(-z) / self.smoothing

    def in_units(self, problem: Problem, rows: Int[Array, " m"]) -> ResidualLoss:
        """Itself: its smoothing is a number."""
        return self


ResidualScore = SquaredError | Huber | AbsoluteError | QuantileError
