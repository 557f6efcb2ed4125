"""The outer objective of the evidence in Laplace's approximation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from worker.core.inner.smooth.fit import GeneralizedLinearFit
from worker.core.objective.objective import Scores
from worker.core.objective.one_smooth_fit import OneSmoothFit, contract_penalties, inverse_hessian, row_forms
from worker.core.records import Array, Evaluation, Outcome
from worker.core.rows.problem import Partition, Problem


@dataclass(slots=True)
class LaplaceObjective(OneSmoothFit):
    """Minus the log evidence in Laplace's approximation (MacKay 1992), in nats, up to a constant of the data.

    `J = n C - log |P|_+ / 2 + log |H| / 2 + M log(n) / 2` with the prior `theta ~ N(0, (n P)^-1)`. n is the sum of
    the weights; the M unpenalized coefficients have a flat prior.
    """

    total: float = 1.0

    @property
    def is_mean_loss(self) -> bool:
        """No: one value of the whole sample."""
        return False

    def unit(self, value: float) -> float:
        """One nat for each row: J has no natural zero."""
        return self.total

    def noticeable(self, standard_error: float | None) -> float | None:
        """Half a nat: one standard deviation of a Gaussian."""
        return 0.5

    def evaluate(self, rho: Float[Array, " k"]) -> Evaluation:
        """J and `dJ/drho`. Since theta minimizes C, the derivative of J in theta comes from H alone."""
        fit = self._single_fit(rho)
        if fit is None:
            return self._failed(rho, Outcome.SINGULAR)
        at, P = fit.at, inverse_hessian(fit)
        Q = row_forms(at.of.design, P, at.of.m)
        eta_bar = fit.shares.w[:, None] * at.rows.third_contract(Q) / 2
        gradient = -fit.contract(fit.solve(at.of.design.back(eta_bar[:, :, None])[:, 0]))
        gradient[: fit.penalty.of.k] += self.total * fit.penalty.contract(fit.theta, fit.theta) / 2
        gradient[: fit.penalty.of.k] -= fit.penalty.log_determinant.gradient / 2
        gradient += contract_penalties(fit, P) / 2
        return self._evaluation(rho, self._value(fit), gradient)

    def row_scores(self, problem: Problem, partition: Partition, rho: Float[Array, " k"]) -> Scores | None:
        """None: J is not a mean over rows."""
        return None

    def _value(self, fit: GeneralizedLinearFit) -> float:
        L, prior = fit.factor(), fit.penalty.log_determinant
        if L is None or fit.holds:
            return np.inf
        M = len(fit.theta) - prior.rank
        half_log_determinant = float(np.log(np.diag(L)).sum())
        return self.total * fit.at.value + half_log_determinant - prior.value / 2 + M * float(np.log(self.total)) / 2
