"""The outer objective of Gaussian-process evidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from worker.core.objective.one_kernel_fit import KernelSolution, OneKernelFit
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class GaussianProcessEvidence(OneKernelFit):
    """Minus the log marginal likelihood in nats of `y = b + f + noise`, `f ~ N(0, s2 / (n lam) K)` (MacKay 1992).

    Row i has the noise variance `s2 / (n s_i)`, so that `N = s2 / (n lam) A` is the covariance of y. The intercept b
    maximizes the likelihood or is integrated out with a flat prior; s2 maximizes it or is the last hyperparameter.
    """

    noise: bool = False
    integrate_intercept: bool = False

    def noise_variance(self, rho: Float[Array, " k"]) -> float | None:
        """`s2`."""
        at = self._solve(rho)
        return None if at is None else self._noise_variance(rho, at)

    def value_of_constant(self, rho: Float[Array, " k"]) -> float:
        """J of a constant with its best noise variance; NaN for a constant target."""
        best_variance = float(self.split.shares @ self._y**2)
        if not self.noise or best_variance == 0:
            return np.nan if best_variance == 0 else self.value(rho)
        return self.value(np.append(rho[:-1], np.log(best_variance)))

    @property
    def _degrees(self) -> int:
        return len(self.split.y) - (self.split.intercept and self.integrate_intercept)

    def _noise_variance(self, rho: Float[Array, " k"], at: KernelSolution) -> float:
        lam = self._training_hyperparameters(rho)
        if self.noise:
            return float(self.box.natural(rho)[-1])
        best_variance = lam[0] * float(self._y @ at.theta) * len(self.split.y) / self._degrees
        return best_variance if best_variance > 0 else np.nan

    def _value(self, rho: Float[Array, " k"], at: KernelSolution) -> float:
        n, lam, s2 = len(self.split.y), self._training_hyperparameters(rho)[0], self._noise_variance(rho, at)
        scale = s2 / (n * lam)
        twice_J = n * np.log(2.0 * np.pi * scale) + 2.0 * np.log(np.diag(at.L)).sum() + self._y @ at.theta / scale
        if self._degrees < n:
            twice_J += np.log(at.total / scale) - np.log(2.0 * np.pi)
        return float(twice_J) / 2

    def _pullback(self, rho: Float[Array, " k"], at: KernelSolution) -> tuple[Float[Array, "n n"], Float[Array, " k"]]:
        """`2 A_bar = A^-1 - theta theta^T n lam / s2`, with P for `A^-1` if the intercept is integrated out."""
        n, lam, s2 = len(self.split.y), self._training_hyperparameters(rho)[0], self._noise_variance(rho, at)
        scale = s2 / (n * lam)
        A_bar = at.inverse()
        if self._degrees < n:
            A_bar -= np.outer(at.a, at.a / at.total)
        A_bar -= np.outer(at.theta, at.theta / scale)
        A_bar /= 2
        direct = np.zeros(len(rho))
        log_scale_bar = (self._degrees - float(self._y @ at.theta) / scale) / 2  # dJ / d log scale
        direct[0] = -log_scale_bar
        if self.noise:  # otherwise s2 minimizes J, and dJ/ds2 is zero
            direct[-1] = log_scale_bar
        return A_bar, direct
