"""The outer objective of leave-one-out cross-validation in closed form, from residuals and leverages of one fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from worker.core.hypergradient import ExactHypergradient
from worker.core.hypergradient.hessian_dependence import HessianDependence
from worker.core.inner.least_squares.accurate import AccurateFit, AccurateKind
from worker.core.inner.protocols import LeastSquaresFit
from worker.core.linalg.triangular import solve_lower
from worker.core.losses import ResidualLoss
from worker.core.objective.arithmetic_of_mean import Digits
from worker.core.objective.fits import DirectFits
from worker.core.objective.linear_tangents import sensitivity_of
from worker.core.objective.mean_of_splits import MeanOfSplits, residuals_of
from worker.core.objective.objective import Found, Residuals, Scores
from worker.core.objective.row_tangents import RowTangents, in_chunks
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem
from worker.core.weights import Weighting


@dataclass(frozen=True, slots=True)
class _Leverages:
    """Residuals and leverages at one fit, and the derivatives of J in them.

    `e_i = r_i / (1 - h_i)` with the leverage `h_i = s_i q_i`. `s_i` is the share of row i in the training criterion,
    `q_i = x_i^T H^-1 x_i` (plus 1 if an intercept was eliminated) and `XP = X H^-1`. If `s_i` is zero, `q_i` and the
    row of XP do not matter; some fits set them to zero.
    """

    fit: LeastSquaresFit
    X: Float[Array, "n p"]
    XP: Float[Array, "n p"]
    q: Float[Array, " n"]
    e: Float[Array, " n"]
    remainders: Float[Array, " n"]
    shares: Weighting
    losses: Float[Array, " n"]
    weights: Float[Array, " n"]
    r_bar: Float[Array, " n"]
    h_bar: Float[Array, " n"]
    rr: Float[Array, " n"]
    rh: Float[Array, " n"]
    hh: Float[Array, " n"]

    @property
    def value(self) -> float:
        return float(self.weights @ self.losses)

    def matrix(self) -> HessianDependence:
        """The dependence on H through `q`."""
        bar = self.h_bar * self.shares.w

        def to_rho() -> Float[Array, " k"]:
            return -self.fit.of_inverse.contract_rows(self.XP, bar)

        def L_bar(L: Float[Array, "p p"]) -> Float[Array, "p p"]:
            """With `q_i` the squared norm of column i of `V = L^-1 X^T`, `V_bar = 2 V diag(bar)`."""
            V = solve_lower(L, np.asfortranarray(self.X.T))
            return -solve_lower(L, np.asfortranarray(2.0 * V * bar), transposed=True) @ V.T

        return HessianDependence(to_rho, L_bar)


@dataclass(frozen=True, slots=True)
class LeaveOneOutFormula:
    """`J = sum_i w_i loss(e_i) / sum_i w_i`, e_i the residual of row i under the fit without it (Allen 1974).

    The fit without row i keeps the total penalty and the weights `base` of the other rows in C. `eliminated`: whether
    the intercept is not part of theta.
    """

    fits: DirectFits[LeastSquaresFit]
    digits: Digits
    hypergradient: ExactHypergradient
    loss: ResidualLoss
    base: Float[Array, " n"]
    eliminated: bool = False
    recomputed_from: AccurateKind = "leverages"

    def value(self, rho: Float[Array, " k"]) -> float:
        """J alone; infinite if training is singular."""
        fits = self.fits.at(rho)
        return np.inf if fits is None else self._leverages(fits[0]).value

    def found(self, rho: Float[Array, " k"]) -> Found | None:
        """J and `dJ/drho`."""
        fits = self.fits.at(rho)
        if fits is None:
            return None
        at = self._leverages(fits[0])
        gradient = self.hypergradient(fits[0], -at.r_bar @ at.X, at.matrix())
        gradient += (at.h_bar * at.q) @ at.shares.w_dot
        return Found(at.value, gradient, np.array([at.value]))

    def residuals(self, rho: Float[Array, " k"]) -> Residuals | None:
        """The relative residuals of training and of the adjoint at this point."""
        return residuals_of(self.fits, rho)

    def hessian(self, rho: Float[Array, " k"], chosen: Int[Array, " f"]) -> Float[Array, "f f"] | None:
        """`d2J/drho2` in the chosen hyperparameters.

        The tangents are `r_dot = -X D` and `h_dot = s q_dot + s_dot q` with `q_j = -w^T H_j w`, w the rows of `X H^-1`.
        The Hessian is the second derivative of J along them, plus `r_bar . r_jl` by the adjoint, plus `h_bar . h_jl`
        with `q_jl = 2 w^T H_j H^-1 H_l w - w^T H_jl w`.
        """
        fits = self.fits.at(rho)
        if fits is None:
            return None
        fit = fits[0]
        at = self._leverages(fit)
        D = fit.sensitivity(np.arange(len(rho)))
        q_dot = -fit.in_rho.forms(at.XP)
        r_dot, h_dot = -at.X @ D, at.shares.w[:, None] * q_dot + at.q[:, None] * at.shares.w_dot
        mixed = (r_dot.T * at.rh) @ h_dot
        total = (r_dot.T * at.rr) @ r_dot + mixed + mixed.T + (h_dot.T * at.hh) @ h_dot
        u = fit.solve(-at.r_bar @ at.X)
        cross = fit.contract_columns(u, D)
        shares_part = at.shares.w_dot.T @ (at.h_bar[:, None] * q_dot)
        total += fit.of_inverse.rows_hessian(at.XP, at.h_bar * at.shares.w)
        total += shares_part + shares_part.T + at.shares.second(at.h_bar * at.q)
        total -= cross + cross.T + fit.curvature(u)
        return total[np.ix_(chosen, chosen)]

    def scores(self, problem: Problem, partition: Partition, rho: Float[Array, " k"]) -> Scores | None:
        """The scores of single rows."""
        fits = self.fits.at(rho)
        if fits is None:
            return None
        at = self._leverages(fits[0])
        return Scores(at.losses, at.weights, partition.rows((0,)))

    def tangents(
        self, problem: Problem, partition: Partition, rho: Float[Array, " k"], chosen: Int[Array, " f"]
    ) -> Iterator[RowTangents] | None:
        """The rows with the predictors `y - e` of the fits without them; None if training is singular.

        `e_dot = (r_dot + e h_dot) / (1 - h)` with the tangents of `hessian`.
        """
        fits = self.fits.at(rho)
        if fits is None:
            return None
        at = self._leverages(fits[0])
        q_dot = -at.fit.in_rho.forms(at.XP)[:, chosen]
        h_dot = at.shares.w[:, None] * q_dot + at.q[:, None] * at.shares.w_dot[:, chosen]
        eta_dot = (at.X @ sensitivity_of(at.fit, chosen) - at.e[:, None] * h_dot) / at.remainders[:, None]
        rows = partition.rows((0,))
        y = problem.y[rows]
        return in_chunks(RowTangents(rows, y, (y - at.e)[:, None], at.weights, eta_dot[:, None], self.loss))

    def kept(self, rho: Float[Array, " k"]) -> float:
        """The smallest fraction that subtractions have left of a number, one minus a leverage among them."""
        fits = self.fits.at(rho)
        if fits is None:
            return 0.0
        at = self._leverages(fits[0])
        remainders = 1.0 - at.shares.w * at.q
        return min(self.digits.kept(rho), float(remainders.min()))

    def recomputed(self, rho: Float[Array, " k"], fits: list[AccurateFit]) -> float:
        """J from an accurate fit."""
        fit = fits[0]
        return float(fit.weights @ self.loss.of(fit.residuals / fit.remainders)[0] / fit.weights.sum())

    def _leverages(self, fit: LeastSquaresFit) -> _Leverages:
        rows = self.digits.losses[0].rows
        assert rows is not None, "leave-one-out needs systems whose losses keep the rows"
        X, shares = rows.X.dense(), fit.in_rho.shares_of(self.base)  # leverages need dense rows
        at = fit.of_inverse.leverages(X, rows.y - X @ fit.theta, shares.w, float(self.eliminated))
        m, e = at.remainders, at.r / at.remainders
        losses, slopes, curvatures = rows.loss.of(e)
        w = np.ones(len(e)) if rows.w is None else rows.w
        w = w / w.sum()
        product_slope = curvatures * e + slopes  # d(e loss'(e)) / de
        return _Leverages(
            fit, X, at.XP, at.q, e, m, shares, losses, w,
            r_bar=w * slopes / m,
            h_bar=w * slopes * e / m,
            rr=w * curvatures / m**2,
            rh=w * product_slope / m**2,
            hh=w * (product_slope + slopes) * e / m**2,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class RefittedRows:
    """The same J from a fit without each row, where the closed form would lose digits: one value, not one a split."""

    mean: MeanOfSplits
    fits: DirectFits[LeastSquaresFit]

    def value(self, rho: Float[Array, " k"]) -> float:
        """J alone; infinite if training is singular."""
        return self.mean.value(rho)

    def found(self, rho: Float[Array, " k"]) -> Found | None:
        """J and `dJ/drho`."""
        at = self.mean.found(rho)
        return None if at is None else replace(at, per_split=np.array([at.value]))

    def residuals(self, rho: Float[Array, " k"]) -> Residuals | None:
        """The relative residuals of training and of the adjoint at this point."""
        return self.mean.residuals(rho)

    def scores(self, problem: Problem, partition: Partition, rho: Float[Array, " k"]) -> Scores | None:
        """The scores of single rows."""
        fits, systems = self.fits.at(rho), self.fits.systems
        if fits is None:
            return None
        sums = [system.loss.value(fit.theta) for system, fit in zip(systems, fits, strict=True)]
        weights = np.array([system.loss.weight for system in systems])
        used = weights > 0
        return Scores(np.array(sums)[used] / weights[used], weights[used] / weights.sum(), partition.rows((0,))[used])
