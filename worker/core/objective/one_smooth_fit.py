"""The base of criteria from one fit of a generalized linear model: approximate leave-one-out, Laplace evidence.

Both depend on the Hessian H of the training criterion at its minimum. H depends on theta, so the adjoint equation has
a term with the third derivative of the loss. `Q_i = Z_i^T H^-1 Z_i` is a matrix over the outputs of row i. If its
cotangent is `A_i`, the cotangent of H is `-M` with `M = H^-1 (sum_i Z_i A_i Z_i^T) H^-1`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from worker.core.inner.smooth.fit import GeneralizedLinear, GeneralizedLinearFit
from worker.core.linalg import cholesky
from worker.core.objective.warm_started import WarmObjective
from worker.core.records import Array, Evaluation, Outcome
from worker.core.rows.design import Design


@dataclass(slots=True)
class OneSmoothFit(WarmObjective, ABC):
    """An objective of one fit on all rows, with a gradient but no Hessian of J."""

    @property
    def has_hessian(self) -> bool:
        """No: it would take fourth derivatives of the loss."""
        return False

    def approximate(self, rho: Float[Array, " k"], accuracy: float) -> Evaluation:
        """Exact: the cost lies in the factor of H, not in the accuracy of theta."""
        return self.evaluate(rho)

    def value(self, rho: Float[Array, " k"]) -> float:
        """J alone; infinite if training has no minimizer."""
        fit = self._single_fit(rho)
        return np.inf if fit is None else self._value(fit)

    def hessian(self, rho: Float[Array, " k"], chosen: Int[Array, " f"] | None = None) -> Float[Array, "f f"]:
        """Not available."""
        raise ValueError("this criterion has no exact Hessian; use lbfgs")

    @property
    def _system(self) -> GeneralizedLinear:
        system = self.systems[0]
        assert isinstance(system, GeneralizedLinear)
        return system

    def _single_fit(self, rho: Float[Array, " k"]) -> GeneralizedLinearFit | None:
        fits = self.fits(rho)
        if fits is None:
            return None
        assert isinstance(fits[0], GeneralizedLinearFit)
        return fits[0]

    def _evaluation(self, rho: Float[Array, " k"], value: float, gradient: Float[Array, " k"]) -> Evaluation:
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            return self._failed(rho, Outcome.NON_FINITE)
        return Evaluation(rho.copy(), value, gradient, np.array([value]))

    @abstractmethod
    def _value(self, fit: GeneralizedLinearFit) -> float: ...


def row_forms(design: Design, P: Float[Array, "mq mq"], m: int) -> Float[Array, "n m m"]:
    """`z_i^T P_ab z_i` for each row and pair of outputs; P symmetric."""
    q = design.q
    out = np.empty((len(design), m, m))
    for a, b in output_pairs(m):
        block = P[a * q : (a + 1) * q, b * q : (b + 1) * q]
        out[:, a, b] = out[:, b, a] = design.forms(block)
    return out


def output_pairs(m: int) -> Iterator[tuple[int, int]]:
    """Each pair of outputs `a <= b`."""
    return ((a, b) for a in range(m) for b in range(a, m))


def inverse_hessian(fit: GeneralizedLinearFit) -> Float[Array, "mq mq"]:
    """`H^-1`, or `T (T^T H T)^-1 T^T` with tied intercepts, as `fit.solve`; NaN if H is singular."""
    L = fit.factor()
    if L is None:
        return np.full((len(fit.theta), len(fit.theta)), np.nan)
    P = cholesky.inverse(L)
    if fit.ties is not None:
        P[fit.intercepts, fit.intercepts] -= np.eye(fit.at.of.m)
    return P


def contract_penalties(fit: GeneralizedLinearFit, M: Float[Array, "mq mq"]) -> Float[Array, " k"]:
    """`<M, P_j>` for each penalty, zero for the other hyperparameters."""
    return np.append(fit.penalty.contract_matrix(M), np.zeros(fit.shares.w_dot.shape[1]))
