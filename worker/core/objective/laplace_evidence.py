"""The outer objective of the evidence in Laplace's approximation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from worker.core.inner.smooth.fit import GeneralizedLinearFit
from worker.core.objective.fits import AnchoredFits
from worker.core.objective.mean_of_splits import residuals_of
from worker.core.objective.objective import Found, Residuals
from worker.core.objective.one_smooth_fit import contract_penalties, inverse_hessian, only_fit, row_forms
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class LaplaceFormula:
    """Minus the log evidence in Laplace's approximation (MacKay 1992), in nats.

    `J = n C + sum_i w_i c(y_i) - log |P|_+ / 2 + log |H| / 2 + M log(n / 2 pi) / 2` with the prior
    `theta ~ N(0, (n P)^-1)` and the normalizers c of the rows' likelihoods. n is the sum of the weights; the M
    unpenalized coefficients have a flat prior. Of several classes the intercepts have the sum zero; flat is the prior
    of their differences from one of them, so that two classes have the evidence of logistic regression.
    """

    fits: AnchoredFits
    total: float

    def value(self, rho: Float[Array, " k"]) -> float:
        """J alone; infinite if training has no minimizer."""
        fit = only_fit(self.fits, rho)
        return np.inf if fit is None else self._value(fit)

    def found(self, rho: Float[Array, " k"]) -> Found | None:
        """J and `dJ/drho`. Since theta minimizes C, the derivative of J in theta comes from H alone."""
        fit = only_fit(self.fits, rho)
        if fit is None:
            return None
        at, P = fit.at, inverse_hessian(fit)
        Q = row_forms(at.of.design, P, at.of.m)
        eta_bar = fit.shares.w[:, None] * at.rows.third_contract(Q) / 2
        gradient = -fit.contract(fit.solve(at.of.design.back(eta_bar[:, :, None])[:, 0]))
        gradient[: fit.penalty.of.k] += self.total * fit.penalty.contract(fit.theta, fit.theta) / 2
        gradient[: fit.penalty.of.k] -= fit.penalty.log_determinant.gradient / 2
        gradient += contract_penalties(fit, P) / 2
        value = self._value(fit)
        return Found(value, gradient, np.array([value]))

    def residuals(self, rho: Float[Array, " k"]) -> Residuals | None:
        """The relative residuals of training and of the adjoint at this point."""
        return residuals_of(self.fits, rho)

    def _value(self, fit: GeneralizedLinearFit) -> float:
        L, prior = fit.factor(), fit.penalty.log_determinant
        if L is None or fit.ties is not None:
            return np.inf
        of, M = fit.at.of, len(fit.theta) - prior.rank
        constants = self.total * float(of.shares @ of.loss.normalizer(of.y))
        if of.tied is not None:  # their sum has the curvature m in H, and differences stretch their plane by sqrt(m)
            M, constants = M - 1, constants - float(np.log(of.m))
        half_log_determinant = float(np.log(np.diag(L)).sum())
        flat = M * float(np.log(self.total / (2.0 * np.pi))) / 2
        return self.total * fit.at.value + constants + half_log_determinant - prior.value / 2 + flat
