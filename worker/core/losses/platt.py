"""The log-loss of probabilities from Platt scaling: a sigmoid of a line in the decision values (Platt 1999)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from worker.core.losses.elementary import Column, PerRow, refuse_binary
from worker.core.losses.score import Calibrator, ClassScore, Prediction
from worker.core.records import Array

MOST_NEWTON_STEPS = 100
# Decrements are relative to the loss. A decrement is quadratic in the error of the line.
LARGEST_EXACT_DECREMENT = 1e-28  # no further step is worth its cost
LARGEST_ROUNDING_DECREMENT = 1e-14  # below it steps are taken whole: rounding hides the change of the loss
ARMIJO = 1e-4  # smallest fall of the loss relative to the prediction of its slope
SHORTEST_STEP = 1e-10  # fraction of the whole step


@dataclass(frozen=True, slots=True)
class PlattLogLoss(ClassScore):
    """`-t log p - (1 - t) log(1 - p)`, `p = 1 / (1 + e^-(a eta + c))`; a and c minimize it on the scored rows.

    The targets are `t = (m + 1) / (m + 2)` for the m rows of class 1 and `1 / (m + 2)` for the m rows of class 0. They
    keep `a` finite if the classes are separated (Platt 1999). The gradient of J includes the change of a and c.
    """

    kind: Literal["platt_log_loss"] = "platt_log_loss"

    in_nats: ClassVar[bool] = True
    needs: ClassVar[Prediction] = "decision_value"
    by_row: ClassVar[None] = None

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Calibrated:
        """The score with its derivatives."""
        return Calibrated.of(y, eta[:, 0], w)

    def check(self, y: PerRow) -> None:
        """Raises ValueError unless y holds zeros and ones."""
        refuse_binary(y)

    def lacks(self, y: PerRow) -> None:
        """None: Platt's targets keep the line finite for any rows."""

    @property
    def calibrator(self) -> Calibrator:
        """Itself."""
        return self

    def calibration(self, y: PerRow, eta: Column, w: PerRow) -> tuple[float, float]:
        """The line `(a, c)` that minimizes the log-loss of these rows."""
        return self.at(y, eta, w).line


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The log-loss at one point; the derivatives use that `line`, the pair (a, c), is a minimizer."""

    losses: Float[Array, " n"]
    slope: Float[Array, "n 1"]
    line: tuple[float, float]
    eta: Float[Array, " n"]
    p: Float[Array, " n"]
    t: Float[Array, " n"]
    w: Float[Array, " n"]

    @classmethod
    def of(cls, y: PerRow, eta: PerRow, w: PerRow) -> Calibrated:
        """The score at the best line. It is not a number if no line is found, so that J is not finite there."""
        positive, negative = float(w @ y), float(w @ (1.0 - y))
        t = np.where(y > 0, (positive + 1.0) / (positive + 2.0), 1.0 / (negative + 2.0))
        size = float(np.abs(eta).max(initial=0.0)) or 1.0
        Z = np.column_stack([eta / size, np.ones_like(eta)])
        at = _fitted_line(Z, t, w, np.array([0.0, np.log((positive + 1.0) / (negative + 1.0))]))
        z = Z @ at
        p, a = expit(z), float(at[0]) / size
        return cls(_losses(z, t), (w * (p - t) * a)[:, None], (a, float(at[1])), eta, p, t, w)

    @property
    def value(self) -> float:
        """The weighted sum."""
        return float(self.w @ self.losses)

    def bend(self, V: Float[Array, "n 1 f"]) -> Float[Array, "n 1 f"]:
        """The second derivative times each direction, with the change of the best (a, c)."""
        a, curved = self.line[0], self.w * self.p * (1.0 - self.p)
        Z = np.column_stack([self.eta, np.ones_like(self.eta)])
        mixed = (a * curved)[:, None] * Z
        mixed[:, 0] += self.w * (self.p - self.t)
        v = V[:, 0, :]
        back = mixed @ np.linalg.lstsq((Z.T * curved) @ Z, mixed.T @ v, rcond=None)[0]
        return ((a**2 * curved)[:, None] * v - back)[:, None, :]


def _losses(z: PerRow, t: PerRow) -> PerRow:
    return np.logaddexp(0.0, z) - t * z


def _loss(z: PerRow, t: PerRow, w: PerRow) -> float:
    return float(w @ _losses(z, t))


def _fitted_line(Z: Float[Array, "n 2"], t: PerRow, w: PerRow, at: Float[Array, " 2"]) -> Float[Array, " 2"]:
    """The minimizer of the loss of `Z @ at`, which is convex, by damped Newton steps; NaN if the steps do not suffice.

    The derivatives of the score use that the line is a minimizer. A search that ends with a decrement above rounding
    has found none.
    """
    value = _loss(Z @ at, t, w)
    for _ in range(MOST_NEWTON_STEPS):
        p = expit(Z @ at)
        g, H = Z.T @ (w * (p - t)), (Z.T * (w * p * (1.0 - p))) @ Z
        step = -np.linalg.lstsq(H, g, rcond=None)[0]
        slope, scale = float(g @ step), 1.0
        if -slope <= LARGEST_EXACT_DECREMENT * abs(value):
            return at
        whole = -slope <= LARGEST_ROUNDING_DECREMENT * abs(value)
        while not whole and _loss(Z @ (at + scale * step), t, w) > value + ARMIJO * scale * slope:
            scale /= 2
            if scale < SHORTEST_STEP:
                return np.full(2, np.nan)
        at = at + scale * step
        value = _loss(Z @ at, t, w)
    return at if whole else np.full(2, np.nan)
