"""Losses of rows that kernel machines are trained by, beside those of generalized linear models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worker.core.glm.derivatives import Elementwise
from worker.core.glm.elementary import Column, PerRow
from worker.core.glm.losses import LogisticLoss, SquaredHingeLoss


@dataclass(frozen=True, slots=True)
class HalfSquaredError:
    """`(y - eta)^2 / 2`."""

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """Losses and derivatives."""
        e = eta[:, 0] - y
        return Elementwise(e**2 / 2, e, np.ones_like(e), np.zeros_like(e), w)


@dataclass(frozen=True, slots=True)
class HuberizedHingeLoss:
    """The hinge `max(0, 1 - z)` with a parabola of half width `h` at its kink, `z = s eta`, `s = 2 y - 1`.

    `(1 + h - z)^2 / (4 h)` for `|1 - z| <= h` (Chapelle 2007, section 2.2).
    """

    h: float

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """Losses and derivatives, zero or one-sided at the ends of the parabola."""
        sign = 2.0 * y - 1.0
        short = 1.0 - sign * eta[:, 0]
        bent, reach = np.abs(short) < self.h, np.clip(short + self.h, 0.0, 2.0 * self.h)
        losses = np.where(bent, reach**2 / (4.0 * self.h), np.maximum(short, 0.0))
        return Elementwise(losses, -sign * reach / (2.0 * self.h), bent / (2.0 * self.h), np.zeros_like(short), w)


MachineLoss = HalfSquaredError | HuberizedHingeLoss | LogisticLoss | SquaredHingeLoss


def most_curvature(loss: MachineLoss) -> float:
    """The largest second derivative that the loss has anywhere."""
    if isinstance(loss, LogisticLoss):
        return 0.25
    return 0.5 / loss.h if isinstance(loss, HuberizedHingeLoss) else 1.0
