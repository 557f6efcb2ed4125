"""Hinge losses of two classes, squared or with a parabola at the kink."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from worker.core.losses.derivatives import Elementwise
from worker.core.losses.elementary import Column, PerRow, reached, refuse_binary
from worker.core.losses.links import IdentityLink, Link
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class SquaredHingeLoss:
    """`max(0, 1 - s eta)^2 / 2` with `s = 2 y - 1`, y in {0, 1}: a support vector machine's loss with a slope.

    There is no third derivative at the kink of the slope; it counts as zero.
    """

    outputs: ClassVar[int] = 1
    concordance: ClassVar[float | None] = None
    link: ClassVar[Link] = IdentityLink()
    is_likelihood: ClassVar[bool] = False
    largest_curvature: ClassVar[float] = 1.0
    kinks: ClassVar[tuple[float, ...]] = (1.0,)

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """Losses and derivatives: `-s max(0, 1 - s eta)`, 1 where that is not zero, 0."""
        sign = 2.0 * y - 1.0
        short = np.maximum(1.0 - sign * eta[:, 0], 0.0)
        with np.errstate(over="ignore"):
            losses = short**2 / 2
        flat = np.zeros_like(short)
        return Elementwise(losses, -sign * short, (short > 0).astype(float), flat, w, np.ones_like(short))

    def excess(self, y: PerRow, eta: Column, losses: PerRow) -> PerRow:
        """The losses themselves: the least is zero."""
        return losses

    def check(self, y: PerRow) -> None:
        """Raises ValueError unless y holds zeros and ones."""
        refuse_binary(y)

    def constant(self, y: PerRow, w: PerRow) -> Float[Array, " 1"]:
        """The share of class 1 less that of class 0."""
        total = w.sum()
        return np.array([(w / total) @ (2.0 * y - 1.0)]) if total > 0 else np.zeros(1)

    def curvature_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """1 for rows that can reach the kink, else 0."""
        distance = np.abs(1.0 - (2.0 * y - 1.0) * eta[:, 0])
        return reached(distance, radius, 1.0 + np.abs(eta[:, 0]))

    def slope_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """Largest change of `max(0, 1 - s eta)`: that of a move away from the margin."""
        short = 1.0 - (2.0 * y - 1.0) * eta[:, 0]
        return np.maximum(short + radius, 0.0) - np.maximum(short, 0.0)


@dataclass(frozen=True, slots=True)
class HuberizedHingeLoss:
    """The hinge `max(0, 1 - z)` with a parabola of half width `h` at its kink, `z = s eta`, `s = 2 y - 1`.

    `(1 + h - z)^2 / (4 h)` for `|1 - z| <= h` (Chapelle 2007, section 2.2).
    """

    h: float

    link: ClassVar[Link] = IdentityLink()
    is_likelihood: ClassVar[bool] = False

    @property
    def largest_curvature(self) -> float:
        """The curvature of the parabola."""
        return 0.5 / self.h

    @property
    def kinks(self) -> tuple[float, ...]:
        """The ends of the parabola."""
        return 1.0 - self.h, 1.0 + self.h

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """Losses and derivatives, zero or one-sided at the ends of the parabola."""
        sign = 2.0 * y - 1.0
        short = 1.0 - sign * eta[:, 0]
        bent, reach = np.abs(short) < self.h, np.clip(short + self.h, 0.0, 2.0 * self.h)
        losses = np.where(bent, reach**2 / (4.0 * self.h), np.maximum(short, 0.0))
        return Elementwise(losses, -sign * reach / (2.0 * self.h), bent / (2.0 * self.h), np.zeros_like(short), w)
