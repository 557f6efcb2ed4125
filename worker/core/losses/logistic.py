"""The log-loss of two classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from worker.core.losses.derivatives import Elementwise
from worker.core.losses.elementary import Column, PerRow, log_shares, logistic_fall, refuse_binary
from worker.core.losses.links import Link, LogitLink
from worker.core.losses.training_loss import MachineLoss, TrainingLoss
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class LogisticLoss(TrainingLoss, MachineLoss):
    """`log(1 + e^eta) - y eta` with y in {0, 1}: the negative log-likelihood of `P(y = 1) = 1 / (1 + e^-eta)`."""

    outputs: ClassVar[int] = 1
    concordance: ClassVar[float | None] = 1.0
    link: ClassVar[Link] = LogitLink()
    is_likelihood: ClassVar[bool] = True
    example_targets: ClassVar[tuple[float, ...]] = (0.0, 1.0)
    straight: ClassVar[None] = None
    straight_beyond: ClassVar[None] = None
    largest_curvature: ClassVar[float] = 0.25

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """Losses and derivatives; with `sigma = mean(eta)` the first two are `sigma - y` and `sigma (1 - sigma)`."""
        sign, size = 2.0 * y - 1.0, np.abs(eta[:, 0])
        wrong = -sign * eta[:, 0]
        e = np.exp(-size)
        second = e / (1.0 + e) ** 2
        first = -sign * np.where(wrong > 0, 1.0, e) / (1.0 + e)
        return Elementwise(np.maximum(wrong, 0.0) + np.log1p(e), first, second, -second * np.tanh(eta[:, 0] / 2), w)

    def kinks_of(self, y: PerRow) -> Float[Array, "q n"]:
        """None: the curvature is continuous."""
        return np.empty((0, len(y)))

    def normalizer(self, y: PerRow) -> PerRow:
        """Zero: the loss is minus the logarithm of the probability."""
        return np.zeros(len(y))

    def excess(self, y: PerRow, eta: Column, losses: PerRow) -> PerRow:
        """The losses: their minimum is zero."""
        return losses

    def check(self, y: PerRow) -> None:
        """Raises ValueError unless y holds zeros and ones."""
        refuse_binary(y)

    def lacks(self, y: PerRow, w: PerRow, rows: str) -> None:
        """None: only classes without rows have no finite intercept."""

    def constant(self, y: PerRow, w: PerRow) -> Float[Array, " 1"]:
        """The log-odds of class 1; a class without rows counts as half the lightest row."""
        return np.diff(log_shares(np.array([w @ (1.0 - y), w @ y]), w))

    def curvature_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """Largest change of `sigma (1 - sigma)`: at one end of the move, because it falls with the distance from 0."""
        size = np.abs(eta[:, 0])
        inwards = np.minimum(radius, size)
        return np.maximum(logistic_fall(size - inwards, size, inwards), logistic_fall(size, size + radius, radius))

    def slope_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """Largest change of `sigma`: by a move towards 0."""
        size = np.abs(eta[:, 0])
        return expit(radius - size) * expit(size) * -np.expm1(-radius)
