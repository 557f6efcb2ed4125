"""The outer objective of Gaussian-process evidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from worker.core.objective.one_kernel_fit import KernelSolution, OneKernelFit
from worker.core.records import Array


@dataclass(slots=True)
class GaussianProcessEvidence(OneKernelFit):
    """Minus the log marginal likelihood in nats of `y = b + f + noise`, `f ~ N(0, s2 / (n lam) K)` (MacKay 1992).

    `N = s2 / (n lam) A` is the covariance of y where row i has the noise variance `s2 / (n s_i)`. An intercept b is
    the best one, or integrated out with a flat prior; s2 the best one for the rest, or the last hyperparameter.
    """

    noise: bool = False
    integrate_intercept: bool = False

    def unit(self, value: float) -> float:
        """Nats a row."""
        return float(len(self.split.y))

    @property
    def is_mean_loss(self) -> bool:
        """No: one value of the whole sample."""
        return False

    def noticeable(self, standard_error: float | None) -> float | None:
        """Half a nat."""
        return 0.5

    def noise_variance(self, rho: Float[Array, " k"]) -> float | None:
        """`s2`."""
        at = self._solve(rho)
        return None if at is None else self._noise(rho, at)

    def _alone(self, constant: Float[Array, " k"]) -> float:
        """With the noise variance that is best then; not known of a target without any."""
        best = float(self.split.shares @ self._y**2)
        if not self.noise or best == 0:
            return np.nan if best == 0 else self.value(constant)
        return self.value(np.append(constant[:-1], np.log(best)))

    @property
    def _degrees(self) -> int:
        return len(self.split.y) - (self.split.intercept and self.integrate_intercept)

    def _noise(self, rho: Float[Array, " k"], at: KernelSolution) -> float:
        lam = self._of_training(rho)
        if self.noise:
            return float(self.hyperparameters.natural(rho)[-1])
        fitted = lam[0] * float(self._y @ at.theta) * len(self.split.y) / self._degrees
        return fitted if fitted > 0 else np.nan

    def _value(self, rho: Float[Array, " k"], at: KernelSolution) -> float:
        n, lam, s2 = len(self.split.y), self._of_training(rho)[0], self._noise(rho, at)
        scale = s2 / (n * lam)
        twice = n * np.log(2.0 * np.pi * scale) + 2.0 * np.log(np.diag(at.L)).sum() + self._y @ at.theta / scale
        if self._degrees < n:
            twice += np.log(at.total / scale) - np.log(2.0 * np.pi)
        return float(twice) / 2

    def _pullback(self, rho: Float[Array, " k"], at: KernelSolution) -> tuple[Float[Array, "n n"], Float[Array, " k"]]:
        """`2 A_bar = A^-1 - theta theta^T n lam / s2`, with P for `A^-1` where the intercept is integrated out."""
        n, lam, s2 = len(self.split.y), self._of_training(rho)[0], self._noise(rho, at)
        scale = s2 / (n * lam)
        A_bar = at.inverse()
        if self._degrees < n:
            A_bar -= np.outer(at.a, at.a / at.total)
        A_bar -= np.outer(at.theta, at.theta / scale)
        A_bar /= 2
        direct = np.zeros(len(rho))
        of_scale = (self._degrees - float(self._y @ at.theta) / scale) / 2  # dJ / d log scale
        direct[0] = -of_scale
        if self.noise:  # otherwise s2 is the best one, and J does not change with it
            direct[-1] = of_scale
        return A_bar, direct
