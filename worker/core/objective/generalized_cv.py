"""The outer objective of generalized cross-validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from worker.core.hypergradient import ExactHypergradient
from worker.core.hypergradient.hessian_dependence import HessianDependence
from worker.core.inner.least_squares.accurate import AccurateFit, AccurateKind
from worker.core.inner.protocols import LeastSquaresFit
from worker.core.linalg.triangular import solve_lower, solve_lower_right
from worker.core.objective.arithmetic_of_mean import Digits
from worker.core.objective.fits import DirectFits
from worker.core.objective.mean_of_splits import residuals_of
from worker.core.objective.objective import Found, Residuals
from worker.core.objective.whole_sample import Sample
from worker.core.records import Array

SMALLEST_REMAINDER = 1e-4  # of `q = 1 - tau / n`; below it a remark warns
NEARLY_INTERPOLATED = (
    "The fit takes nearly as many effective parameters as there are rows: generalized cross-validation is a ratio of "
    "two numbers near zero there, of which few digits are right. Raise the lower bound of the penalty, or use "
    "leave_one_out."
)


@dataclass(frozen=True, slots=True)
class GeneralizedCVFormula:
    """`J = (RSS / W) / q^2`, `q = 1 - tau / n` with the trace tau of the hat matrix, the intercept included."""

    fits: DirectFits[LeastSquaresFit]
    digits: Digits
    hypergradient: ExactHypergradient
    sample: Sample
    recomputed_from: AccurateKind = "leverages"

    def value(self, rho: Float[Array, " k"]) -> float:
        """J alone; infinite if training is singular."""
        fits = self.fits.at(rho)
        if fits is None:
            return np.inf
        loss = self.fits.systems[0].loss
        return loss.value(fits[0].theta) / loss.weight / self._remainder(fits[0].of_inverse.hat_trace()[0]) ** 2

    def found(self, rho: Float[Array, " k"]) -> Found | None:
        """J and `dJ/drho`."""
        fits = self.fits.at(rho)
        if fits is None:
            return None
        fit, loss = fits[0], self.fits.systems[0].loss
        rss, theta_bar = loss.value_and_gradient(fit.theta)
        trace, slope = fit.of_inverse.hat_trace()
        q = self._remainder(trace)
        value, trace_bar = rss / loss.weight / q**2, 2.0 * rss / (loss.weight * self.sample.rows * q**3)
        gradient = self.hypergradient(
            fit, theta_bar / (loss.weight * q**2), self._trace_dependence(fit, slope, trace_bar)
        )
        return Found(value, gradient, np.array([value]))

    def residuals(self, rho: Float[Array, " k"]) -> Residuals | None:
        """The relative residuals of training and of the adjoint at this point."""
        return residuals_of(self.fits, rho)

    def hessian(self, rho: Float[Array, " k"], chosen: Int[Array, " f"]) -> Float[Array, "f f"] | None:
        """`d2J/drho2` in the chosen hyperparameters, from the second derivatives of RSS and of the trace."""
        fits = self.fits.at(rho)
        if fits is None:
            return None
        fit, loss = fits[0], self.fits.systems[0].loss
        rss, theta_bar = loss.value_and_gradient(fit.theta)
        trace, tau_j = fit.of_inverse.hat_trace()
        q, n, W = self._remainder(trace), self.sample.rows, loss.weight
        u, D = fit.solve(theta_bar), fit.sensitivity(np.arange(len(rho)))
        cross = fit.contract_columns(u, D)
        rss_j = -fit.contract(u)
        rss_jl = loss.hessian_form(D, fit.theta) - cross - cross.T - fit.curvature(u)
        mixed = np.outer(rss_j, tau_j)
        total = rss_jl / (W * q**2) + 2.0 / (W * n * q**3) * (
            mixed + mixed.T + rss * fit.of_inverse.hat_trace_hessian()
        )
        total += 6.0 * rss / (W * n**2 * q**4) * np.outer(tau_j, tau_j)
        return total[np.ix_(chosen, chosen)]

    def kept(self, rho: Float[Array, " k"]) -> float:
        """The smallest fraction that subtractions have left of a number, q among them."""
        fits = self.fits.at(rho)
        if fits is None:
            return 0.0
        return min(self.digits.kept(rho), self._remainder(fits[0].of_inverse.hat_trace()[0]))

    def recomputed(self, rho: Float[Array, " k"], fits: list[AccurateFit]) -> float:
        """J from an accurate fit."""
        fit = fits[0]
        q = 1.0 - float((1.0 - fit.remainders).sum()) / self.sample.rows
        return float(fit.weights @ fit.residuals**2 / fit.weights.sum()) / q**2

    def remarks(self, rho: Float[Array, " k"]) -> tuple[str, ...]:
        """A warning if numerator and denominator are both near zero."""
        fits = self.fits.at(rho)
        is_small = fits is not None and self._remainder(fits[0].of_inverse.hat_trace()[0]) < SMALLEST_REMAINDER
        return (NEARLY_INTERPOLATED,) if is_small else ()

    def _remainder(self, trace: float) -> float:
        return 1.0 - (trace + self.sample.eliminated) / self.sample.rows

    def _trace_dependence(self, fit: LeastSquaresFit, slope: Float[Array, " k"], trace_bar: float) -> HessianDependence:
        def on_penalty() -> Float[Array, " k"]:
            return -trace_bar * self.sample.only_penalties(fit.in_rho.contract_matrix(fit.inverse()))

        def L_bar(L: Float[Array, "p p"]) -> Float[Array, "p p"]:
            """`tau = p - tr T` with `T = L^-1 P L^-T`, so `L_bar = 2 trace_bar L^-T T`."""
            half = solve_lower(L, np.asfortranarray(fit.in_rho.penalty.apply(np.eye(len(L)))))
            T = solve_lower_right(L, half, transposed=True)
            return 2.0 * trace_bar * solve_lower(L, T, transposed=True)

        return HessianDependence(lambda: trace_bar * slope, L_bar, on_penalty)
