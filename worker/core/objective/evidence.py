"""The outer objective of the evidence of ridge regression: marginal likelihood and REML."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from worker.core.hypergradient import ExactHypergradient
from worker.core.hypergradient.hessian_dependence import HessianDependence
from worker.core.inner.least_squares.accurate import AccurateFit, AccurateKind
from worker.core.inner.protocols import LeastSquaresFit
from worker.core.objective.arithmetic_of_mean import Digits
from worker.core.objective.fits import DirectFits
from worker.core.objective.mean_of_splits import residuals_of
from worker.core.objective.objective import Found, Residuals
from worker.core.objective.whole_sample import Sample
from worker.core.records import Array

SMALLEST_NOISE_FRACTION = 1e-6  # noise variance relative to the variance of the target; below it a remark warns
INTERPOLATED = (
    "The fit leaves next to no noise: `evidence`, which takes the intercept as known, grows without bound as a penalty "
    "goes to zero where there are as many features as rows. Use reml, which integrates over the intercept, or "
    "leave_one_out."
)


@dataclass(slots=True)
class EvidenceFormula:
    """Minus the log marginal likelihood (MacKay 1992; Wood 2011 for REML), in nats, of `theta ~ N(0, s2 / n P^-1)`.

    `2 J = (n - M) log(2 pi s2) + 2 n C / s2 + log |H| - log |P|_+ + M log n - sum_i log(n s_i)`

    with the noise variance `s2` and the shares `s_i` of the rows in C: a row of weight w_i has the variance s2 / w_i.
    The likelihood is integrated over M unpenalized parameters; `integrate_intercept` counts the intercept among them.
    With `noise`, `log s2` is the last hyperparameter. Without, s2 minimizes J: `s2 = 2 n C / (n - M)`.
    """

    fits: DirectFits[LeastSquaresFit]
    digits: Digits
    hypergradient: ExactHypergradient
    sample: Sample
    base: Float[Array, " n"]
    noise: bool = False
    integrate_intercept: bool = False
    recomputed_from: AccurateKind = "residuals"
    log_shares: float | None = field(default=None, init=False)  # cache of `_log_shares` for fixed weights

    def noise_variance(self, rho: Float[Array, " k"]) -> float | None:
        """The noise variance at `rho`."""
        fits = self.fits.at(rho)
        return None if fits is None else self._noise_and_slope(rho, fits[0])[0]

    def remarks(self, rho: Float[Array, " k"]) -> tuple[str, ...]:
        """A warning if the fit interpolates: J then falls without bound instead of having a minimum."""
        fits, noise, loss = self.fits.at(rho), self.noise_variance(rho), self.fits.systems[0].loss
        if fits is None or noise is None or self.integrate_intercept or not self.sample.has_intercept:
            return ()
        if (p := len(fits[0].theta)) < self.sample.rows - 1:
            return ()
        return (INTERPOLATED,) if noise < SMALLEST_NOISE_FRACTION * loss.value(np.zeros(p)) / loss.weight else ()

    def value(self, rho: Float[Array, " k"]) -> float:
        """J alone; infinite if training is singular."""
        fits = self.fits.at(rho)
        return np.inf if fits is None else self._value(rho, fits[0])

    def found(self, rho: Float[Array, " k"]) -> Found | None:
        """J and `dJ/drho`."""
        fits = self.fits.at(rho)
        if fits is None:
            return None
        fit, value = fits[0], self._value(rho, fits[0])
        C, (s2, nu_bar) = fit.criterion(), self._noise_and_slope(rho, fits[0])
        gradient = self.hypergradient(fit, np.zeros(len(fit.theta)), self._log_determinant_dependence(fit))
        gradient += self.sample.rows * C.rho_bar / s2
        gradient[: self.sample.penalties] -= fit.in_rho.penalty.log_determinant.gradient / 2
        if self._tunes_weights:
            shares, used = fit.in_rho.shares_of(self.base), self.base > 0
            gradient -= (shares.w_dot[used] / shares.w[used, None]).sum(axis=0) / 2
        if self.noise:
            gradient = np.append(gradient, nu_bar)
        return Found(value, gradient, np.array([value]))

    def residuals(self, rho: Float[Array, " k"]) -> Residuals | None:
        """The relative residuals of training and of the adjoint at this point."""
        return residuals_of(self.fits, rho)

    def kept(self, rho: Float[Array, " k"]) -> float:
        """The smallest fraction that subtractions have left of a number in J; zero if training is singular."""
        return self.digits.kept(rho)

    def hessian(self, rho: Float[Array, " k"], chosen: Int[Array, " f"]) -> Float[Array, "f f"] | None:
        """`d2J/drho2` in the chosen hyperparameters; `C_jl = d2C/drho_j drho_l - D_j^T H D_l` at the minimum."""
        fits = self.fits.at(rho)
        if fits is None:
            return None
        fit, (s2, _) = fits[0], self._noise_and_slope(rho, fits[0])
        C, k = fit.criterion(), len(fit.contract(fit.theta))
        D = fit.sensitivity(np.arange(k))
        C_jl = C.second() - D.T @ fit.apply(D)
        n = self.sample.rows
        total = n * C_jl / s2 + fit.of_inverse.log_determinant_hessian() / 2
        total[: self.sample.penalties, : self.sample.penalties] -= fit.in_rho.penalty.log_determinant_hessian() / 2
        if self._tunes_weights:
            shares, used = fit.in_rho.shares_of(self.base), self.base > 0
            slope = shares.w_dot[used] / shares.w[used, None]
            reciprocal = np.divide(1.0, shares.w, out=np.zeros(len(used)), where=used)
            total -= (shares.second(reciprocal) - slope.T @ slope) / 2
        if self.noise:
            noise_column = -n * C.rho_bar[:, None] / s2
            total = np.block([[total, noise_column], [noise_column.T, np.array([[n * C.value / s2]])]])
        else:  # s2 follows from C
            total -= np.outer(C.rho_bar, C.rho_bar) * n / (s2 * C.value)
        return total[np.ix_(chosen, chosen)]

    def _unpenalized(self, fit: LeastSquaresFit) -> int:
        """M: the unpenalized parameters that the likelihood is integrated over."""
        explicit = len(fit.theta) - fit.in_rho.penalty.log_determinant.rank
        count = explicit + self.sample.eliminated
        return count if self.integrate_intercept else count - self.sample.has_intercept

    def _noise_and_slope(
        self, rho: Float[Array, " k"], fit: LeastSquaresFit, minimum: float | None = None
    ) -> tuple[float, float]:
        """The noise variance and `dJ/d log s2`, which is zero if s2 follows from C (or `minimum`)."""
        minimum = fit.criterion().value if minimum is None else minimum
        twice_nC, degrees = 2.0 * self.sample.rows * minimum, self.sample.rows - self._unpenalized(fit)
        if not self.noise:
            return twice_nC / degrees if degrees > 0 and twice_nC > 0 else np.nan, 0.0
        s2 = float(self.fits.box.natural(rho)[-1])
        return s2, (degrees - twice_nC / s2) / 2

    def recomputed(self, rho: Float[Array, " k"], fits: list[AccurateFit]) -> float:
        """J from an accurate fit."""
        known = self.fits.at(rho)
        return np.nan if known is None else self._value(rho, known[0], fits[0].minimum, fits[0].log_determinant)

    def _value(
        self,
        rho: Float[Array, " k"],
        fit: LeastSquaresFit,
        minimum: float | None = None,
        log_determinant: float | None = None,
    ) -> float:
        """J; from more accurate numbers in place of those of the fit, if they are given."""
        minimum = fit.criterion().value if minimum is None else minimum
        log_determinant = fit.log_determinant() if log_determinant is None else log_determinant
        s2, _ = self._noise_and_slope(rho, fit, minimum)
        n, M = self.sample.rows, self._unpenalized(fit)
        twice_J = (n - M) * np.log(2.0 * np.pi * s2) + 2.0 * n * minimum / s2
        twice_J += log_determinant - fit.in_rho.penalty.log_determinant.value + M * np.log(n)
        return float(twice_J - self._log_shares(fit)) / 2

    @property
    def _tunes_weights(self) -> bool:
        """Whether hyperparameters beyond penalties and noise change the shares of the rows."""
        return len(self.fits.box.names) - self.noise > self.sample.penalties

    def _log_shares(self, fit: LeastSquaresFit) -> float:
        """`sum_i log(n s_i)`; computed once for fixed weights, as nothing else here passes over the rows."""
        if self.log_shares is None or self._tunes_weights:
            w = fit.in_rho.shares_of(self.base).w if self._tunes_weights else self.base / self.base.sum()
            self.log_shares = float(np.log(self.sample.rows * w[self.base > 0]).sum())
        return self.log_shares

    def _log_determinant_dependence(self, fit: LeastSquaresFit) -> HessianDependence:
        def L_bar(L: Float[Array, "p p"]) -> Float[Array, "p p"]:
            return np.diag(1.0 / np.diag(L))

        return HessianDependence(lambda: fit.of_inverse.log_determinant_gradient() / 2, L_bar)
