"""The hinge of two classes with a parabola at its kink."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from worker.core.losses.derivatives import Elementwise
from worker.core.losses.elementary import Column, PerRow
from worker.core.losses.links import IdentityLink, Link
from worker.core.losses.training_loss import MachineLoss
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class HuberizedHingeLoss(MachineLoss):
    """The hinge `max(0, 1 - z)` with a parabola of half width `h` at its kink, `z = s eta`, `s = 2 y - 1`.

    `(1 + h - z)^2 / (4 h)` for `|1 - z| <= h` (Chapelle 2007, section 2.2).
    """

    h: float

    link: ClassVar[Link] = IdentityLink()
    is_likelihood: ClassVar[bool] = False
    straight_beyond: ClassVar[None] = None

    @property
    def largest_curvature(self) -> float:
        """The curvature of the parabola."""
        return 0.5 / self.h

    @property
    def kinks(self) -> tuple[float, ...]:
        """The ends of the parabola."""
        return 1.0 - self.h, 1.0 + self.h

    def kinks_of(self, y: PerRow) -> Float[Array, "q n"]:
        """The predictors of each row at which its curvature jumps."""
        return np.outer(self.kinks, 2.0 * y - 1.0)

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """Losses and derivatives; at the ends of the parabola the curvature counts as zero."""
        sign = 2.0 * y - 1.0
        shortfall = 1.0 - sign * eta[:, 0]
        on_parabola, from_flat_end = np.abs(shortfall) < self.h, np.clip(shortfall + self.h, 0.0, 2.0 * self.h)
        losses = np.where(on_parabola, from_flat_end**2 / (4.0 * self.h), np.maximum(shortfall, 0.0))
        return Elementwise(
            losses, -sign * from_flat_end / (2.0 * self.h), on_parabola / (2.0 * self.h), np.zeros_like(shortfall), w
        )
