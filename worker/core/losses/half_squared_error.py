"""Half the squared error of residuals."""

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
class HalfSquaredError(MachineLoss):
    """`(y - eta)^2 / 2`: the negative log-likelihood of a normal distribution of unit variance."""

    link: ClassVar[Link] = IdentityLink()
    is_likelihood: ClassVar[bool] = True
    straight_beyond: ClassVar[None] = None
    largest_curvature: ClassVar[float] = 1.0

    def kinks_of(self, y: PerRow) -> Float[Array, "q n"]:
        """None: the curvature is continuous."""
        return np.empty((0, len(y)))

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """Losses and derivatives."""
        e = eta[:, 0] - y
        return Elementwise(e**2 / 2, e, np.ones_like(e), np.zeros_like(e), w)
