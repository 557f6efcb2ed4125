"""A training loss that the product does not have: one class is all that a new loss takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from scipy.special import expit, gammaln

from worker.core.losses.derivatives import Elementwise
from worker.core.losses.elementary import Column, PerRow, half_a_row, refuse
from worker.core.losses.links import Link, LogLink
from worker.core.losses.logistic import LogisticLoss
from worker.core.losses.training_loss import TrainingLoss
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class NegativeBinomialLoss(TrainingLoss):
    """Counts with the mean `mu = e^eta` and the variance `mu + mu^2 / k`: `(y + k) log(1 + mu / k) - y eta`."""

    k: float

    outputs: ClassVar[int] = 1
    concordance: ClassVar[float | None] = 1.0
    link: ClassVar[Link] = LogLink()
    is_likelihood: ClassVar[bool] = True
    example_targets: ClassVar[tuple[float, ...]] = (0.0, 1.0, 7.0, 1e4)
    straight: ClassVar[None] = None
    straight_beyond: ClassVar[None] = None

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """Losses and derivatives: those of a softplus of `eta - log k`, less `y eta`."""
        t = eta[:, 0] - np.log(self.k)
        s, rest = expit(t), expit(-t)
        losses = np.where(t > 0, self.k * t, -y * t) + (y + self.k) * np.log1p(np.exp(-np.abs(t))) - y * np.log(self.k)
        second = (y + self.k) * s * rest
        return Elementwise(losses, self.k * s - y * rest, second, second * -np.tanh(t / 2), w)

    def normalizer(self, y: PerRow) -> PerRow:
        """The logarithm of the binomial coefficient, and of `k^y`."""
        return gammaln(y + 1.0) + gammaln(self.k) - gammaln(y + self.k) + y * np.log(self.k)

    def excess(self, y: PerRow, eta: Column, losses: PerRow) -> PerRow:  # noqa: ARG002 - the losses suffice
        """The losses less those at `mu = y`."""
        best = self.at(y, np.log(np.maximum(y, 1e-300))[:, None], np.ones(len(y))).losses
        return np.maximum(losses - np.where(y > 0, best, 0.0), 0.0)

    def check(self, y: PerRow) -> None:
        """Raises RowError if a target is negative."""
        refuse(~((y >= 0) & np.isfinite(y)), y, "the negative binomial loss takes counts, zero or more")

    def lacks(self, y: PerRow, w: PerRow, rows: str) -> str | None:
        """A sentence if there is no event."""
        return None if (w * y).any() else f"all counts that {rows} trains on are zero; use other folds"

    def constant(self, y: PerRow, w: PerRow) -> Float[Array, " 1"]:
        """Logarithm of the mean."""
        total = w.sum()
        return np.log([max(w @ y, half_a_row(w)) / total]) if total > 0 else np.zeros(1)

    def curvature_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """That of a softplus."""
        return (y + self.k) * LogisticLoss().curvature_change(y, eta - np.log(self.k), radius)

    def slope_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """That of a softplus."""
        return (y + self.k) * LogisticLoss().slope_change(y, eta - np.log(self.k), radius)
