"""Selection criteria of a generalized linear model from one fit: approximate leave-one-out, Laplace evidence.

Both depend on the Hessian H of the training criterion at its minimum, which depends on theta in turn, so the adjoint
equation gets a part from the third derivative of the loss. With `A_i` the cotangent of `Q_i = Z_i^T H^-1 Z_i`, a
matrix over the outputs of row i, and `M = H^-1 (sum_i Z_i A_i Z_i^T) H^-1`, the cotangent of H is `-M`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from worker.core import cholesky
from worker.core.glm.design import Design
from worker.core.glm.fit import GeneralizedLinear, GeneralizedLinearFit
from worker.core.glm.objective import WarmObjective
from worker.core.outer_objective import Scores
from worker.core.records import Array, Evaluation, Outcome, Partition, Problem


@dataclass(slots=True)
class _OneFit(WarmObjective, ABC):
    """What both share: the one system, and a gradient without a Hessian of J."""

    @property
    def has_hessian(self) -> bool:
        """No: it would take fourth derivatives of the loss."""
        return False

    def approximate(self, rho: Float[Array, " k"], accuracy: float) -> Evaluation:
        """Exact: the price is in the factor of H, not in the accuracy of theta."""
        del accuracy
        return self.evaluate(rho)

    def value(self, rho: Float[Array, " k"]) -> float:
        """J alone; infinite where training has no minimizer."""
        fit = self._only(rho)
        return np.inf if fit is None else self._value(fit)

    def hessian(self, rho: Float[Array, " k"], chosen: Int[Array, " f"] | None = None) -> Float[Array, "f f"]:
        """Not available."""
        del rho, chosen
        raise ValueError("this criterion has no exact Hessian; use lbfgs")

    @property
    def _system(self) -> GeneralizedLinear:
        system = self.systems[0]
        assert isinstance(system, GeneralizedLinear)
        return system

    def _only(self, rho: Float[Array, " k"]) -> GeneralizedLinearFit | None:
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


@dataclass(frozen=True, slots=True)
class _LeftOut:
    """The predictors of each row under the fit without it, to the first order, and what their derivatives take.

    `eta_i + b_i`, `b_i = K_i^-1 Q_i a_i`, `K_i = I - Q_i C_i`, with slope a and curvature C of the row's share of the
    training criterion: one Newton step from theta for the criterion without the row.
    """

    Q: Float[Array, "n m m"]
    C: Float[Array, "n m m"]
    K: Float[Array, "n m m"]
    a: Float[Array, "n m"]
    b: Float[Array, "n m"]

    @classmethod
    def build(cls, fit: GeneralizedLinearFit) -> _LeftOut:
        at = fit.at
        Q = row_forms(at.of.design, _inverse(fit), at.of.m)
        C = fit.shares.w[:, None, None] * at.rows.curvatures()
        a = fit.shares.w[:, None] * at.rows.slope
        K = np.eye(at.of.m) - Q @ C
        return cls(Q, C, K, a, np.linalg.solve(K, Q @ a[:, :, None])[:, :, 0])


@dataclass(slots=True)
class ApproximateLeaveOneOutObjective(_OneFit):
    """`J = sum_i w_i score(y_i, eta_i without row i) / sum_i w_i`, approximately (Rad and Maleki 2018; Burn 2020).

    The fit without a row keeps the total penalty and the shares of the other rows. Exact for squared loss.
    """

    def evaluate(self, rho: Float[Array, " k"]) -> Evaluation:
        """J and `dJ/drho`."""
        fit = self._only(rho)
        if fit is None:
            return self._failed(rho, Outcome.SINGULAR)
        at, out = fit.at, _LeftOut.build(fit)
        loss = self._system.loss
        scored = loss.score.at(loss.y, at.eta + out.b, loss.w)
        e = scored.slope / loss.weight
        f = np.linalg.solve(out.K.transpose(0, 2, 1), e[:, :, None])[:, :, 0]
        g, r = _times(out.Q, f), out.a + _times(out.C, out.b)
        M = _sandwiched(fit, _symmetric(f, r))
        m_rows, bent = row_forms(at.of.design, M, at.of.m), _symmetric(g, out.b)
        eta_bar = e + _times(out.C, g) + fit.shares.w[:, None] * at.rows.third_contract(bent - m_rows)
        gradient = -fit.contract(fit.solve(at.of.design.back(eta_bar[:, :, None])[:, 0]))
        gradient -= _of_penalty(fit, M)
        of_shares = np.sum(g * at.rows.slope, axis=1)
        of_shares += np.einsum("nab,nab->n", bent - m_rows, at.rows.curvatures())
        gradient += _of_weights(fit, of_shares)
        return self._evaluation(rho, scored.value / loss.weight, gradient)

    def row_scores(self, problem: Problem, partition: Partition, rho: Float[Array, " k"]) -> Scores | None:
        """The scores of single rows."""
        del problem, partition
        fit = self._only(rho)
        if fit is None:
            return None
        loss = self._system.loss
        losses = loss.score.at(loss.y, fit.at.eta + _LeftOut.build(fit).b, loss.w).losses
        return None if losses is None else Scores(losses, loss.w / loss.weight)

    def _value(self, fit: GeneralizedLinearFit) -> float:
        loss = self._system.loss
        return loss.score.at(loss.y, fit.at.eta + _LeftOut.build(fit).b, loss.w).value / loss.weight


@dataclass(slots=True)
class LaplaceObjective(_OneFit):
    """Minus the log evidence in Laplace's approximation (MacKay 1992), in nats, up to a constant of the data.

    `J = n C - log |P|_+ / 2 + log |H| / 2 + M log(n) / 2` with the prior `theta ~ N(0, (n P)^-1)`, the sum n of the
    weights, and M unpenalized coefficients, which have a flat prior.
    """

    total: float = 1.0

    @property
    def is_mean_loss(self) -> bool:
        """No: one value of the whole sample."""
        return False

    def unit(self, value: float) -> float:
        """One nat for each row: J has no natural zero."""
        del value
        return self.total

    def noticeable(self, standard_error: float | None) -> float | None:
        """Half a nat: one standard deviation of a Gaussian."""
        del standard_error
        return 0.5

    def evaluate(self, rho: Float[Array, " k"]) -> Evaluation:
        """J and `dJ/drho`; theta minimizes C, so that J depends on it through H alone."""
        fit = self._only(rho)
        if fit is None:
            return self._failed(rho, Outcome.SINGULAR)
        at, P = fit.at, _inverse(fit)
        Q = row_forms(at.of.design, P, at.of.m)
        eta_bar = fit.shares.w[:, None] * at.rows.third_contract(Q) / 2
        gradient = -fit.contract(fit.solve(at.of.design.back(eta_bar[:, :, None])[:, 0]))
        gradient[: fit.penalty.of.k] += self.total * fit.penalty.contract(fit.theta, fit.theta) / 2
        gradient[: fit.penalty.of.k] -= fit.penalty.log_determinant.gradient / 2
        gradient += _of_penalty(fit, P) / 2
        return self._evaluation(rho, self._value(fit), gradient)

    def row_scores(self, problem: Problem, partition: Partition, rho: Float[Array, " k"]) -> Scores | None:
        """None: the criterion is no mean of scores of rows."""
        del problem, partition, rho
        return None

    def _value(self, fit: GeneralizedLinearFit) -> float:
        L, prior = fit.factor(), fit.penalty.log_determinant
        if L is None or fit.holds:
            return np.inf
        free = len(fit.theta) - prior.rank
        half = float(np.log(np.diag(L)).sum())
        return self.total * fit.at.value + half - prior.value / 2 + free * float(np.log(self.total)) / 2


def row_forms(design: Design, P: Float[Array, "mq mq"], m: int) -> Float[Array, "n m m"]:
    """`z_i^T P_ab z_i` for each row and pair of outputs; P symmetric."""
    q = design.q
    out = np.empty((len(design), m, m))
    for a, b in _pairs(m):
        block = P[a * q : (a + 1) * q, b * q : (b + 1) * q]
        out[:, a, b] = out[:, b, a] = design.forms(block)
    return out


def _sandwiched(fit: GeneralizedLinearFit, A: Float[Array, "n m m"]) -> Float[Array, "mq mq"]:
    """`H^-1 (sum_i Z_i A_i Z_i^T) H^-1` for symmetric A."""
    G = fit.at.of.design.gram(((a, b, A[:, a, b]) for a, b in _pairs(fit.at.of.m)), fit.at.of.m)
    half = fit.solve(G)
    M = fit.solve(np.asfortranarray(half.T))
    return (M + M.T) / 2


def _pairs(m: int) -> Iterator[tuple[int, int]]:
    return ((a, b) for a in range(m) for b in range(a, m))


def _inverse(fit: GeneralizedLinearFit) -> Float[Array, "mq mq"]:
    L = fit.factor()
    if L is None:
        return np.full((len(fit.theta), len(fit.theta)), np.nan)
    P = cholesky.inverse(L)
    P[fit.held] = P[:, fit.held] = 0.0
    return P


def _symmetric(a: Float[Array, "n m"], b: Float[Array, "n m"]) -> Float[Array, "n m m"]:
    """The symmetric part of `a_i b_i^T`."""
    outer = a[:, :, None] * b[:, None, :]
    return (outer + outer.transpose(0, 2, 1)) / 2


def _times(A: Float[Array, "n m m"], v: Float[Array, "n m"]) -> Float[Array, "n m"]:
    return np.einsum("nab,nb->na", A, v)


def _of_penalty(fit: GeneralizedLinearFit, M: Float[Array, "mq mq"]) -> Float[Array, " k"]:
    """`<M, P_j>` for each penalty, zero for the other hyperparameters."""
    return np.append(fit.penalty.contract_matrix(M), np.zeros(fit.shares.w_dot.shape[1]))


def _of_weights(fit: GeneralizedLinearFit, bar: Float[Array, " n"]) -> Float[Array, " k"]:
    """What the cotangents of the shares are in the hyperparameters of the weights, zero for the penalties."""
    return np.append(np.zeros(fit.penalty.of.k), bar @ fit.shares.w_dot)
