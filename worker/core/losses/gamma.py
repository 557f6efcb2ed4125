"""The gamma loss of positive targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from worker.core.losses.derivatives import Elementwise
from worker.core.losses.elementary import Column, PerRow, exp_less_line, growth, refuse
from worker.core.losses.links import Link, LogLink
from worker.core.losses.training_loss import TrainingLoss
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class GammaLoss(TrainingLoss):
    """`y e^-eta + eta`: positive targets with the mean `e^eta` and a spread proportional to it."""

    outputs: ClassVar[int] = 1
    concordance: ClassVar[float | None] = 1.0
    link: ClassVar[Link] = LogLink()
    is_likelihood: ClassVar[bool] = True
    example_targets: ClassVar[tuple[float, ...]] = (0.7, 1e-3, 1e6)
    straight: ClassVar[None] = None
    straight_beyond: ClassVar[None] = None

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """Losses and derivatives: `1 - y e^-eta`, `y e^-eta`, `-y e^-eta`."""
        with np.errstate(over="ignore"):
            ratio = y * np.exp(-eta[:, 0])
        return Elementwise(ratio + eta[:, 0], 1.0 - ratio, ratio, -ratio, w)

    def normalizer(self, y: PerRow) -> PerRow:
        """Zero: the loss is minus the logarithm of the density of an exponential distribution, a gamma of shape 1."""
        return np.zeros(len(y))

    def excess(self, y: PerRow, eta: Column, losses: PerRow) -> PerRow:
        """`y / mu - 1 - log(y / mu)`."""
        return exp_less_line(np.log(y) - eta[:, 0])

    def check(self, y: PerRow) -> None:
        """Raises ValueError if a target is not positive."""
        refuse(~((y > 0) & np.isfinite(y)), y, "the gamma loss takes positive targets; drop or shift the others")

    def lacks(self, y: PerRow, w: PerRow, rows: str) -> None:
        """None: the logarithm of the mean is finite."""

    def constant(self, y: PerRow, w: PerRow) -> Float[Array, " 1"]:
        """Logarithm of the mean."""
        total = w.sum()
        return np.log([(w / total) @ y]) if total > 0 else np.zeros(1)

    def curvature_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """`y (e^(r - eta) - e^-eta)`."""
        with np.errstate(over="ignore"):
            return y * growth(-eta[:, 0], radius)

    def slope_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """The same as `curvature_change`: slope and curvature are `y e^-eta`, up to sign and a constant."""
        return self.curvature_change(y, eta, radius)
