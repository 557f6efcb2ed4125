"""The losses of the training rows of a kernel machine, as functions of their predictors."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float

from worker.core.losses.derivatives import Elementwise
from worker.core.losses.training_loss import MachineLoss
from worker.core.records import Array

LARGEST_STRAIGHT_CURVATURE = 1e-20  # relative to the largest curvature that a row can have; up to it a row is straight


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
        D[LARGEST_STRAIGHT_CURVATURE * self.loss.largest_curvature * self.shares >= D] = 0.0
        return D

    @property
    def kinks(self) -> Float[Array, "q n"]:
        """The predictors of each row at which its loss changes between parabola and line; none for a smooth loss."""
        return self.loss.kinks_of(self.y)
