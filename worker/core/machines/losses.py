"""Losses of rows that kernel machines are trained by, beside those of generalized linear models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from worker.core.glm.derivatives import Elementwise
from worker.core.glm.elementary import Column, PerRow
from worker.core.glm.losses import LogisticLoss, SquaredHingeLoss
from worker.core.records import Array

CURVED = 1e-20  # of the largest curvature that a row can have, below which it counts as straight


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


@dataclass(frozen=True, slots=True)
class RowLosses:
    """The losses of the training rows as functions of their predictors; `shares` sum to one."""

    loss: MachineLoss
    y: Float[Array, " n"]
    shares: Float[Array, " n"]

    def at(self, f: Float[Array, " n"]) -> Elementwise:
        """Losses and derivatives at these predictors."""
        return self.loss.at(self.y, f[:, None], self.shares)

    def curvatures(self, at: Elementwise) -> Float[Array, " n"]:
        """The second derivatives, zero for a row that is straight to working precision."""
        D = at.w * at.second
        D[CURVED * self._most_curved * self.shares >= D] = 0.0
        return D

    @property
    def kinks(self) -> Float[Array, "q n"]:
        """The predictors of each row between which its loss is a parabola or straight; none of a smooth loss."""
        sign = 2.0 * self.y - 1.0
        if isinstance(self.loss, HuberizedHingeLoss):
            return np.outer([1.0 - self.loss.h, 1.0 + self.loss.h], sign)
        return sign[None] if isinstance(self.loss, SquaredHingeLoss) else np.empty((0, len(sign)))

    @property
    def _most_curved(self) -> float:
        if isinstance(self.loss, LogisticLoss):
            return 0.25
        return 0.5 / self.loss.h if isinstance(self.loss, HuberizedHingeLoss) else 1.0
