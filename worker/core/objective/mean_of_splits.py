"""J as a mean over the validation rows of all splits, with its exact gradient and Hessian."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from worker.core.hypergradient import ExactHypergradient
from worker.core.inner.smooth.error_bound import Adjoint, bounds
from worker.core.inner.smooth.fit import EXACT_SOLVE_TOLERANCE, EXACT_TOLERANCE
from worker.core.objective.anchor import Anchor
from worker.core.objective.fits import AnchoredFits, Fits, HeldFits
from worker.core.objective.objective import Found, Residuals, means
from worker.core.records import Array


@dataclass(frozen=True)  # without slots, for what is computed once
class MeanOfSplits:
    """Weighted mean of the selection loss over all validation rows, pooled over the splits.

    `J = sum_s f_s sum_i w_i loss_i / sum_s f_s sum_i w_i` with the weights `f` of the splits and `w` of the rows.
    """

    fits: Fits
    hypergradient: ExactHypergradient
    split_weights: Float[Array, " splits"] | None = None

    @cached_property
    def factors(self) -> Float[Array, " splits"]:
        """The factor of each split's sum of losses in J."""
        return factors_of(self.fits, self.split_weights)

    @cached_property
    def weights(self) -> Float[Array, " splits"]:
        """The total weight of the scored rows of each split."""
        return np.array([system.loss.weight for system in self.fits.systems])

    def value(self, rho: Float[Array, " k"]) -> float:
        """J alone; infinite if training is singular."""
        total = 0.0
        for factor, system, fit in zip(self.factors, self.fits.systems, self.fits.each(rho), strict=True):
            if fit is None:
                return np.inf
            total += factor * system.loss.value(fit.scored)
        return float(total)

    def found(self, rho: Float[Array, " k"]) -> Found | None:
        """J and `dJ/drho`."""
        factors, systems = self.factors, self.fits.systems
        sums, gradient = np.empty(len(systems)), np.zeros(len(rho))
        for i, fit in enumerate(self.fits.each(rho)):
            if fit is None:
                return None
            sums[i], bar = systems[i].loss.value_and_gradient(fit.scored)
            gradient += self.hypergradient(fit, factors[i] * bar)
        return Found(float(factors @ sums), gradient, means(sums, self.weights))

    def residuals(self, rho: Float[Array, " k"]) -> Residuals | None:
        """The relative residuals of training and of the adjoint at this point."""
        return residuals_of(self.fits, rho)


def residuals_of(fits: Fits, rho: Float[Array, " k"]) -> Residuals | None:
    """The relative residuals of training, and of the adjoint of the loss over the rows that are scored."""
    inner, adjoint = 0.0, 0.0
    for system, fit in zip(fits.systems, fits.each(rho), strict=True):
        if fit is None:
            return None
        _, bar = system.loss.value_and_gradient(fit.scored)
        adjoint = max(adjoint, fit.adjoint_residual(bar))
        inner = max(inner, fit.inner_gradient_norm())
    return Residuals(inner, adjoint)


def factors_of(fits: Fits, split_weights: Float[Array, " splits"] | None) -> Float[Array, " splits"]:
    """The factor of each split's sum of losses in J."""
    weights = np.ones(len(fits.systems)) if split_weights is None else split_weights
    return weights / sum(f * system.loss.weight for f, system in zip(weights, fits.systems, strict=True))


@dataclass(frozen=True, slots=True)
class HessianOfMean:
    """The Hessian of `MeanOfSplits`, where all fits are held and theta is scored."""

    fits: HeldFits
    split_weights: Float[Array, " splits"] | None = None

    def __call__(self, rho: Float[Array, " k"], chosen: Int[Array, " f"]) -> Float[Array, "f f"] | None:
        """`d2J/drho2` in the chosen hyperparameters, up to rounding symmetric.

        With `D = dtheta/drho`, the adjoint u and the gradient g of the training criterion:
        `J_jl = D_j^T E'' D_l - u^T H_j D_l - u^T H_l D_j - u^T g_jl - C'''[u, D_j, D_l]`.
        """
        fits = self.fits.at(rho)
        if fits is None:
            return None
        total = np.zeros((len(chosen), len(chosen)))
        factors, tangents = factors_of(self.fits, self.split_weights), self.fits.tangents(rho, chosen)
        for factor, system, fit, D in zip(factors, self.fits.systems, fits, tangents, strict=True):
            u = fit.solve(system.loss.value_and_gradient(fit.theta)[1])
            cross = fit.contract_columns(u, D)[chosen]
            curvature = fit.curvature(u)[np.ix_(chosen, chosen)] + fit.third(u, D)
            total += factor * (system.loss.hessian_form(D, fit.theta) - cross - cross.T - curvature)
        return total


@dataclass(frozen=True, slots=True)
class InexactMean:
    """`MeanOfSplits` from fits and adjoints of any accuracy, with rigorous bounds of their errors."""

    fits: AnchoredFits
    split_weights: Float[Array, " splits"] | None = None

    def __call__(self, rho: Float[Array, " k"], accuracy: float) -> Found | None:
        """J and `dJ/drho` with the bounds of the errors."""
        self.fits.release()
        parts: list[_Approximation] = []
        lam, factors = self.fits.box.natural(rho), factors_of(self.fits, self.split_weights)
        for split in range(len(self.fits.systems)):
            part = self._of_split(split, rho, lam, accuracy)
            if part is None:
                return None
            parts.append(part)
        sums, gradients = np.array([part.value for part in parts]), np.array([part.gradient for part in parts])
        errors = factors @ np.array([part.errors for part in parts])
        value, gradient = float(factors @ sums), factors @ gradients
        if np.isfinite(value) and np.isfinite(gradient).all():
            thetas, adjoints = tuple(part.theta for part in parts), tuple(part.u for part in parts)
            self.fits.reached(Anchor(rho.copy(), thetas, adjoints=adjoints))
        weights = np.array([system.loss.weight for system in self.fits.systems])
        value_error, gradient_error = errors.tolist()
        return Found(value, gradient, means(sums, weights), (value_error, gradient_error))

    def _of_split(
        self, split: int, rho: Float[Array, " k"], lam: Float[Array, " k"], accuracy: float
    ) -> _Approximation | None:
        system, fit = self.fits.systems[split], self.fits.fit(split, rho, lam, accuracy)
        if fit is None:
            return None
        eta = system.loss.predictor(fit.theta)
        scored = system.loss.score.at(system.loss.y, eta, system.loss.w)
        theta_bar = system.loss.design.back(scored.slope[:, :, None])[:, 0]
        anchor = self.fits.anchor
        start = None if anchor is None else anchor.predicted_adjoint(split, rho)
        u = fit.solve(theta_bar, max(accuracy, EXACT_SOLVE_TOLERANCE), start)
        adjoint = Adjoint(u, theta_bar, -fit.residual(u, theta_bar))
        errors = bounds(system, fit, adjoint, eta)
        if errors is None:  # unknown: zero only at the best accuracy there is
            errors = (0.0, 0.0) if accuracy <= EXACT_TOLERANCE else (np.inf, np.inf)
        return _Approximation(scored.value, -fit.contract(u), errors, fit.theta, u)


@dataclass(frozen=True, slots=True)
class _Approximation:
    """The sum of scores of one split, its hypergradient, and bounds of their errors."""

    value: float
    gradient: Float[Array, " k"]
    errors: tuple[float, float]
    theta: Float[Array, " mq"]
    u: Float[Array, " mq"]
