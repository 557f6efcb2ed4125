"""How many digits a mean over splits has, from fits of least squares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from worker.core.inner.least_squares.accurate import AccurateFit, AccurateKind
from worker.core.inner.protocols import LeastSquaresFit
from worker.core.losses import ResidualLoss
from worker.core.losses.over_rows import SumOfResiduals
from worker.core.objective.fits import DirectFits
from worker.core.objective.mean_of_splits import factors_of
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class Digits:
    """What subtractions leave of the digits of fits of least squares, and of the `losses` over their scored rows."""

    fits: DirectFits[LeastSquaresFit]
    losses: Sequence[SumOfResiduals]

    def kept(self, rho: Float[Array, " k"]) -> float:
        """The smallest fraction that they have left of a number; zero if training is singular."""
        fits = self.fits.at(rho)
        if fits is None:
            return 0.0
        return min(min(fit.kept(), loss.kept(fit.theta)) for fit, loss in zip(fits, self.losses, strict=True))


@dataclass(frozen=True, slots=True)
class ArithmeticOfMean:
    """The arithmetic of `MeanOfSplits` for ridge regression."""

    digits: Digits
    loss: ResidualLoss
    split_weights: Float[Array, " splits"] | None = None
    recomputed_from: AccurateKind = "residuals"

    def kept(self, rho: Float[Array, " k"]) -> float:
        """The smallest fraction that subtractions have left of a number in J; zero if training is singular."""
        return self.digits.kept(rho)

    def recomputed(self, rho: Float[Array, " k"], fits: list[AccurateFit]) -> float:
        """J from accurate fits, one for each split."""
        sums = [float(fit.weights @ self.loss.of(fit.residuals)[0]) for fit in fits]
        return float(factors_of(self.digits.fits, self.split_weights) @ np.array(sums))
