"""The squared hinge of two classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from worker.core.losses.derivatives import Elementwise
from worker.core.losses.elementary import Column, PerRow, reached, refuse_binary
from worker.core.losses.links import IdentityLink, Link
from worker.core.losses.training_loss import MachineLoss, TrainingLoss
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class SquaredHingeLoss(TrainingLoss, MachineLoss):
    """`max(0, 1 - s eta)^2 / 2` with `s = 2 y - 1`, y in {0, 1}: for support vector machines.

    The slope is continuous, with a kink; there the second and third derivatives count as zero.
    """

    outputs: ClassVar[int] = 1
    concordance: ClassVar[float | None] = None
    link: ClassVar[Link] = IdentityLink()
    is_likelihood: ClassVar[bool] = False
    example_targets: ClassVar[tuple[float, ...]] = (0.0, 1.0)
    straight_beyond: ClassVar[None] = None
    largest_curvature: ClassVar[float] = 1.0
    kinks: ClassVar[tuple[float, ...]] = (1.0,)

    @property
    def straight(self) -> MachineLoss:
        """Itself."""
        return self

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """Losses and derivatives: slope `-s max(0, 1 - s eta)`, second 1 if the slope is not zero, third 0."""
        sign = 2.0 * y - 1.0
        shortfall = np.maximum(1.0 - sign * eta[:, 0], 0.0)
        with np.errstate(over="ignore"):
            losses = shortfall**2 / 2
        flat = np.zeros_like(shortfall)
        return Elementwise(losses, -sign * shortfall, (shortfall > 0).astype(float), flat, w, np.ones_like(shortfall))

    def kinks_of(self, y: PerRow) -> Float[Array, "q n"]:
        """The predictors of each row at which its curvature jumps."""
        return np.outer(self.kinks, 2.0 * y - 1.0)

    def excess(self, y: PerRow, eta: Column, losses: PerRow) -> PerRow:
        """The losses themselves, as the smallest loss is zero."""
        return losses

    def normalizer(self, y: PerRow) -> PerRow:
        """NaN: there is no likelihood."""
        return np.full(len(y), np.nan)

    def check(self, y: PerRow) -> None:
        """Raises ValueError unless y holds zeros and ones."""
        refuse_binary(y)

    def lacks(self, y: PerRow, w: PerRow, rows: str) -> None:
        """None: the minimum is finite."""

    def constant(self, y: PerRow, w: PerRow) -> Float[Array, " 1"]:
        """The weighted fraction of class 1 minus the weighted fraction of class 0."""
        total = w.sum()
        return np.array([(w / total) @ (2.0 * y - 1.0)]) if total > 0 else np.zeros(1)

    def curvature_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """1 for rows that can reach the kink within the radius, else 0."""
        distance = np.abs(1.0 - (2.0 * y - 1.0) * eta[:, 0])
        return reached(distance, radius, 1.0 + np.abs(eta[:, 0]))

    def slope_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """Largest change of `max(0, 1 - s eta)`, caused by a move away from the margin."""
        shortfall = 1.0 - (2.0 * y - 1.0) * eta[:, 0]
        return np.maximum(shortfall + radius, 0.0) - np.maximum(shortfall, 0.0)
