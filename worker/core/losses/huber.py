"""The Huber loss of residuals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from scipy.special import erf

from worker.core.hyperparameters import Positive
from worker.core.losses.derivatives import Elementwise
from worker.core.losses.elementary import Column, PerRow, reached, refuse
from worker.core.losses.links import IdentityLink, Link
from worker.core.losses.training_loss import MachineLoss, TrainingLoss
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class HuberLoss(TrainingLoss, MachineLoss):
    """`r^2 / 2` of the residual `r = y - eta` up to `|r| = delta`, `delta |r| - delta^2 / 2` beyond (Huber 1964).

    `delta` is in units of the target. At the two kinks of the slope the missing third derivative counts as zero.
    """

    delta: Positive

    outputs: ClassVar[int] = 1
    concordance: ClassVar[float | None] = None
    link: ClassVar[Link] = IdentityLink()
    is_likelihood: ClassVar[bool] = True
    example_targets: ClassVar[tuple[float, ...]] = (0.3, -5.0)
    largest_curvature: ClassVar[float] = 1.0

    @property
    def straight(self) -> MachineLoss:
        """Itself."""
        return self

    @property
    def straight_beyond(self) -> float:
        """Delta."""
        return self.delta

    def kinks_of(self, y: PerRow) -> Float[Array, "2 n"]:
        """The predictors of each row at which its curvature jumps."""
        return np.stack([y - self.delta, y + self.delta])

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """Losses and derivatives: `-r` clipped to `+-delta`, 1 inside and 0 outside, 0."""
        r = y - eta[:, 0]
        inside = np.clip(r, -self.delta, self.delta)
        second = (np.abs(r) <= self.delta).astype(float)
        above = self.delta / np.maximum(np.abs(r), self.delta)  # the weights of iteratively reweighted least squares
        return Elementwise(inside * (r - inside / 2), -inside, second, np.zeros_like(r), w, above)

    def normalizer(self, y: PerRow) -> PerRow:
        """`log` of the integral of `e^-loss`: a normal density with exponential tails (Huber 1964)."""
        inside = np.sqrt(2.0 * np.pi) * erf(self.delta / np.sqrt(2.0))
        return np.full(len(y), np.log(inside + 2.0 / self.delta * np.exp(-(self.delta**2) / 2.0)))

    def excess(self, y: PerRow, eta: Column, losses: PerRow) -> PerRow:
        """The losses: their minimum is zero."""
        return losses

    def check(self, y: PerRow) -> None:
        """Raises ValueError if a target is not finite."""
        refuse(~np.isfinite(y), y, "the Huber loss takes finite numbers")

    def lacks(self, y: PerRow, w: PerRow, rows: str) -> None:
        """None: the location of y is finite."""

    def constant(self, y: PerRow, w: PerRow) -> Float[Array, " 1"]:
        """Huber's location of y: the zero of the sum of slopes, which is linear between the kinks `y +- delta`."""
        knots = np.concatenate([y - self.delta, y + self.delta])
        order = np.argsort(knots)
        knots = knots[order]
        inside = np.cumsum(np.concatenate([w, -w])[order])[:-1]
        pull = self.delta * w.sum() - np.append(
            0.0, np.cumsum(inside * np.diff(knots))
        )  # sum of slopes at each knot, decreasing
        last = int(np.argmax(pull <= 0))
        step = pull[last - 1] / inside[last - 1] if last > 0 else 0.0
        return np.array([knots[max(last - 1, 0)] + step])

    def curvature_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """1 for rows that can reach a kink, else 0."""
        distance = np.abs(np.abs(y - eta[:, 0]) - self.delta)
        return reached(distance, radius, np.abs(y) + np.abs(eta[:, 0]) + self.delta)

    def slope_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """Largest change of the clipped residual: by a move towards 0."""
        size = np.abs(y - eta[:, 0])
        return np.minimum(size, self.delta) - np.clip(size - radius, -self.delta, self.delta)
