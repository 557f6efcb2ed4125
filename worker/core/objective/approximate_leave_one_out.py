"""The outer objective of approximate leave-one-out cross-validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from worker.core.inner.smooth.fit import GeneralizedLinearFit
from worker.core.losses.over_rows import LossOfPredictors
from worker.core.objective.fits import AnchoredFits
from worker.core.objective.left_out_tangents import TermsInRho, moved_forms
from worker.core.objective.mean_of_splits import residuals_of
from worker.core.objective.objective import Found, Residuals, Scores
from worker.core.objective.one_smooth_fit import (
    contract_penalties,
    inverse_hessian,
    only_fit,
    output_pairs,
    row_forms,
)
from worker.core.objective.row_tangents import RowTangents, in_chunks
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem


@dataclass(frozen=True, slots=True)
class _LeftOut:
    """The predictors of each row under the fit without it, to first order, and the parts of their derivatives.

    One Newton step from theta on the criterion without row i gives `eta_i + b_i` with `b_i = K_i^-1 Q_i a_i` and
    `K_i = I - Q_i C_i`. `a_i` and `C_i` are slope and curvature of the row's term of C, `Q_i = Z_i^T H^-1 Z_i`.
    """

    Q: Float[Array, "n m m"]
    C: Float[Array, "n m m"]
    K: Float[Array, "n m m"]
    a: Float[Array, "n m"]
    b: Float[Array, "n m"]

    @classmethod
    def build(cls, fit: GeneralizedLinearFit) -> _LeftOut:
        at = fit.at
        Q = row_forms(at.of.design, inverse_hessian(fit), at.of.m)
        C = fit.shares.w[:, None, None] * at.rows.curvatures()
        a = fit.shares.w[:, None] * at.rows.slope
        K = np.eye(at.of.m) - Q @ C
        return cls(Q, C, K, a, _solved(K, _row_products(Q, a)))


@dataclass(frozen=True, slots=True)
class ApproximateLeaveOneOutFormula:
    """`J = sum_i w_i score(y_i, eta_i without row i) / sum_i w_i`, approximately (Rad and Maleki 2018; Burn 2020).

    The fit without row i keeps the total penalty and the weights of the other rows in C. Exact for squared loss.
    """

    fits: AnchoredFits

    def value(self, rho: Float[Array, " k"]) -> float:
        """J alone; infinite if training has no minimizer."""
        fit = only_fit(self.fits, rho)
        if fit is None:
            return np.inf
        value = self._loss.score.at(self._loss.y, fit.at.eta + _LeftOut.build(fit).b, self._loss.w).value
        value /= self._loss.weight
        return float(value) if np.isfinite(value) else np.inf

    def found(self, rho: Float[Array, " k"]) -> Found | None:
        """J and `dJ/drho`."""
        fit = only_fit(self.fits, rho)
        if fit is None:
            return None
        at, out = fit.at, _LeftOut.build(fit)
        loss = self._loss
        scored = loss.score.at(loss.y, at.eta + out.b, loss.w)
        e = scored.slope / loss.weight
        f = _solved(out.K.transpose(0, 2, 1), e)
        g, r = _row_products(out.Q, f), out.a + _row_products(out.C, out.b)
        M = _inverse_sandwich(fit, _symmetric_outer(f, r))
        through_H, direct = row_forms(at.of.design, M, at.of.m), _symmetric_outer(g, out.b)
        eta_bar = e + _row_products(out.C, g) + fit.shares.w[:, None] * at.rows.third_contract(direct - through_H)
        gradient = -fit.contract(fit.solve(at.of.design.back(eta_bar[:, :, None])[:, 0]))
        gradient -= contract_penalties(fit, M)
        shares_bar = np.sum(g * at.rows.slope, axis=1)
        shares_bar += np.einsum("nab,nab->n", direct - through_H, at.rows.curvatures())
        gradient += _contract_shares(fit, shares_bar)
        value = scored.value / loss.weight
        return Found(value, gradient, np.array([value]))

    def residuals(self, rho: Float[Array, " k"]) -> Residuals | None:
        """The relative residuals of training and of the adjoint at this point."""
        return residuals_of(self.fits, rho)

    def scores(self, problem: Problem, partition: Partition, rho: Float[Array, " k"]) -> Scores | None:
        """The scores of single rows."""
        fit = only_fit(self.fits, rho)
        if fit is None:
            return None
        loss = self._loss
        losses = loss.score.at(loss.y, fit.at.eta + _LeftOut.build(fit).b, loss.w).losses
        return None if losses is None else Scores(losses, loss.w / loss.weight, partition.rows((0,)))

    def tangents(
        self, problem: Problem, partition: Partition, rho: Float[Array, " k"], chosen: Int[Array, " f"]
    ) -> Iterator[RowTangents] | None:
        """The rows with their predictors under the fits without them; None if training has no minimizer."""
        fit = only_fit(self.fits, rho)
        if fit is None:
            return None
        loss, out, moving = self._loss, _LeftOut.build(fit), TermsInRho(fit, chosen)
        Q_dot = moved_forms(fit, moving.C_dot, chosen)
        change = np.einsum("nabf,nb->naf", Q_dot, out.a + _row_products(out.C, out.b))
        change += out.Q @ (moving.a_dot + np.einsum("nabf,nb->naf", moving.C_dot, out.b))
        D, eta = moving.eta_dot + np.linalg.solve(out.K, change), fit.at.eta + out.b
        return in_chunks(RowTangents(loss.design.rows, loss.y, eta, loss.w / loss.weight, D, loss.score))

    @property
    def _loss(self) -> LossOfPredictors:
        return self.fits.systems[0].loss


def _inverse_sandwich(fit: GeneralizedLinearFit, A: Float[Array, "n m m"]) -> Float[Array, "mq mq"]:
    """`H^-1 (sum_i Z_i A_i Z_i^T) H^-1` for symmetric A."""
    G = fit.at.of.design.gram(((a, b, A[:, a, b]) for a, b in output_pairs(fit.at.of.m)), fit.at.of.m)
    half = fit.solve(G)
    M = fit.solve(np.asfortranarray(half.T))
    return (M + M.T) / 2


def _symmetric_outer(a: Float[Array, "n m"], b: Float[Array, "n m"]) -> Float[Array, "n m m"]:
    """The symmetric part of `a_i b_i^T`."""
    outer = a[:, :, None] * b[:, None, :]
    return (outer + outer.transpose(0, 2, 1)) / 2


def _row_products(A: Float[Array, "n m m"], v: Float[Array, "n m"]) -> Float[Array, "n m"]:
    """`A_i v_i` for each row."""
    return np.einsum("nab,nb->na", A, v)


def _solved(K: Float[Array, "n m m"], v: Float[Array, "n m"]) -> Float[Array, "n m"]:
    """`K_i^-1 v_i` for each row; NaN if a row's K is singular: it alone determines a part of the fit."""
    try:
        return np.linalg.solve(K, v[:, :, None])[:, :, 0]
    except np.linalg.LinAlgError:
        return np.full_like(v, np.nan)


def _contract_shares(fit: GeneralizedLinearFit, bar: Float[Array, " n"]) -> Float[Array, " k"]:
    """The cotangent in rho of the cotangents of the shares; zero for the penalties."""
    return np.append(np.zeros(fit.penalty.of.k), bar @ fit.shares.w_dot)
