"""The Poisson loss of counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln

from worker.core.losses.derivatives import Elementwise
from worker.core.losses.elementary import Column, PerRow, exp_less_line, growth, half_a_row, refuse
from worker.core.losses.links import Link, LogLink
from worker.core.losses.training_loss import TrainingLoss
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class PoissonLoss(TrainingLoss):
    """`e^eta - y eta`: counts (fractions such as rates allowed) with the mean `e^eta`; infinite beyond about 709."""

    outputs: ClassVar[int] = 1
    concordance: ClassVar[float | None] = 1.0
    link: ClassVar[Link] = LogLink()
    is_likelihood: ClassVar[bool] = True
    example_targets: ClassVar[tuple[float, ...]] = (0.0, 2.5, 1e6)
    straight: ClassVar[None] = None
    straight_beyond: ClassVar[None] = None

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """Losses and derivatives: `e^eta - y`, `e^eta`, `e^eta`."""
        mu = self.link.mean(eta)[:, 0]
        return Elementwise(mu - y * np.minimum(eta[:, 0], 1e3), mu - y, mu, mu, w)

    def normalizer(self, y: PerRow) -> PerRow:
        """`log y!`."""
        return gammaln(y + 1.0)

    def excess(self, y: PerRow, eta: Column, losses: PerRow) -> PerRow:
        """`mu - y + y log(y / mu)`, which is `y (e^t - 1 - t)` with `t = eta - log y`."""
        mu = self.link.mean(eta)[:, 0]
        t = np.minimum(eta[:, 0], 1e3) - np.log(np.where(y > 0, y, 1.0))
        near = (y > 0) & (np.abs(t) <= 0.5)
        return np.where(near, y * exp_less_line(np.where(near, t, 0.0)), mu - y - y * t)

    def check(self, y: PerRow) -> None:
        """Raises ValueError if a target is negative."""
        refuse(~((y >= 0) & np.isfinite(y)), y, "the Poisson loss takes counts, zero or more")

    def lacks(self, y: PerRow, w: PerRow, rows: str) -> str | None:
        """A sentence if there is no event: the intercept then has no finite value."""
        if (w * y).any():
            return None
        return (
            f"all counts that {rows} trains on are zero, so that the intercept has no finite value; use other "
            "folds, leave these rows out, or set intercept to false"
        )

    def constant(self, y: PerRow, w: PerRow) -> Float[Array, " 1"]:
        """Logarithm of the mean; without any event, of half an event in the lightest row."""
        total = w.sum()
        return np.log([max(w @ y, half_a_row(w)) / total]) if total > 0 else np.zeros(1)

    def curvature_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """`e^(eta + r) - e^eta`."""
        return growth(eta[:, 0], radius)

    def slope_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """The same as `curvature_change`: slope and curvature are `e^eta`, up to a constant."""
        return self.curvature_change(y, eta, radius)
