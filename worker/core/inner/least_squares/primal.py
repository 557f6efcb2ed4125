"""Penalized least squares through the Cholesky factor of the p x p Hessian of the training criterion."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from worker.core.inner.protocols import Criterion
from worker.core.inner.theta_fit import FitOfQuadratic
from worker.core.linalg import cholesky
from worker.core.linalg.cholesky import solve_bar
from worker.core.losses.over_rows import SumOfResiduals
from worker.core.penalties.forms import Penalized, PenaltyForms
from worker.core.records import Array
from worker.core.rows.centre import Centre
from worker.core.weights import Weighting

SMALLEST_KEPT_FRACTION = 5e-7  # of a number after subtractions: nine digits of it are left


@dataclass(frozen=True, slots=True)
class CentredSystem:
    """The base of systems with the intercept eliminated.

    `centre` holds the origin of `[X, y]` in original units: the (weighted) training means, or zero without an
    intercept. `yy` is the mean of `y^2` about it.
    """

    loss: SumOfResiduals
    penalty: PenaltyForms
    centre: Centre
    yy: float

    def coefficients(self, theta: Float[Array, " p"]) -> tuple[float, Float[Array, " p"]]:
        """Intercept and slopes in original units."""
        return -self.centre.times(np.append(theta, -1.0)), theta


@dataclass(frozen=True, slots=True)
class PenalizedFit(FitOfQuadratic, ABC):
    """A minimizer and the derivatives of H and b in the penalties: `dH/drho_j = P_j = lam_j S_j`, b is constant."""

    penalty: Penalized
    theta: Float[Array, " p"]

    def contract(self, u: Float[Array, " p"]) -> Float[Array, " k"]:
        """`u^T (dH_j theta - db_j)` for each hyperparameter."""
        return self.penalty.contract(u, self.theta)

    def curvature(self, u: Float[Array, " p"]) -> Float[Array, "k k"]:
        """`u^T (d2H_jl theta - d2b_jl)` for each pair."""
        return np.diag(self.contract(u))

    def contract_columns(self, u: Float[Array, " p"], D: Float[Array, "p f"]) -> Float[Array, "k f"]:
        """`u^T dH_j D_l` for each hyperparameter j and each column of D."""
        return self.penalty.contract_columns(u, D)

    def third(self, u: Float[Array, " p"], D: Float[Array, "p f"]) -> Float[Array, "f f"]:
        """The third derivative of a quadratic criterion: zero."""
        return np.zeros((D.shape[1], D.shape[1]))

    def contract_matrix(self, H_bar: Float[Array, "p p"]) -> Float[Array, " k"]:
        """`<H_bar, dH_j>` for each hyperparameter."""
        return self.penalty.contract_matrix(H_bar)

    def curvature_matrix(self, H_bar: Float[Array, "p p"]) -> Float[Array, "k k"]:
        """`<H_bar, d2H_jl>` for each pair."""
        return np.diag(self.penalty.contract_matrix(H_bar))

    def forms(self, W: Float[Array, "n p"]) -> Float[Array, "n k"]:
        """`w_i^T dH_j w_i` for each row of W and each hyperparameter."""
        return self.penalty.forms(W)

    def contract_rows(self, W: Float[Array, "n p"], bar: Float[Array, " n"]) -> Float[Array, " k"]:
        """`sum_i bar_i w_i^T dH_j w_i` for each hyperparameter."""
        return self.contract_matrix((W.T * bar) @ W)

    def rows_hessian(self, W: Float[Array, "n p"], bar: Float[Array, " n"]) -> Float[Array, "k k"]:
        """`sum_i bar_i (2 w_i^T dH_j H^-1 dH_l w_i - w_i^T d2H_jl w_i)` for each pair."""
        inner = (W.T * bar) @ W
        return 2.0 * self.pairs(self.inverse(), inner) - self.curvature_matrix(inner)

    def shares_of(self, base: Float[Array, " n"]) -> Weighting:
        """The share of each training row in the criterion, with its derivatives; `base` are the fixed weights."""
        k = self.penalty.of.k
        return Weighting(base / base.sum(), np.zeros((len(base), k)), lambda _: np.zeros((k, k)))

    def pairs(self, P: Float[Array, "p p"], S: Float[Array, "p p"]) -> Float[Array, "k k"]:
        """The symmetric part of `tr(dH_j P dH_l S)`; P and S symmetric."""
        return self.penalty.pairs(P, S)

    def log_determinant_gradient(self) -> Float[Array, " k"]:
        """`<H^-1, dH_j>` for each hyperparameter."""
        return self.contract_matrix(self.inverse())

    def log_determinant_hessian(self) -> Float[Array, "k k"]:
        """`<H^-1, d2H_jl> - tr(dH_j H^-1 dH_l H^-1)` for each pair."""
        inverse = self.inverse()
        return self.curvature_matrix(inverse) - self.pairs(inverse, inverse)

    def hat_trace(self) -> tuple[float, Float[Array, " k"]]:
        """`tau = tr(H^-1 (H - P))`, and `tau_j = <Q, H_j> - <H^-1, P_j>` with `Q = H^-1 P H^-1`."""
        inverse, Q = self._inverse_and_trace_bar()
        penalty_part, gradient = self.penalty.contract_matrix(inverse), self.contract_matrix(Q)
        gradient[: len(penalty_part)] -= penalty_part
        return len(inverse) - float(penalty_part.sum()), gradient

    def hat_trace_hessian(self) -> Float[Array, "k k"]:
        """`<H^-1, H_j H^-1 P_l + H_l H^-1 P_j - P_jl> + <Q, H_jl> - 2 tr(H_j H^-1 H_l Q)`."""
        inverse, Q = self._inverse_and_trace_bar()
        out = self.curvature_matrix(Q) - 2.0 * self.pairs(inverse, Q)
        is_penalty = (np.arange(len(out)) < self.penalty.of.k).astype(float)
        out += self.pairs(inverse, inverse) * (is_penalty[:, None] + is_penalty)
        return out - self.curvature_matrix(inverse) * np.outer(is_penalty, is_penalty)

    def _inverse_and_trace_bar(self) -> tuple[Float[Array, "p p"], Float[Array, "p p"]]:
        """`H^-1`, and `Q = H^-1 P H^-1`, the cotangent of H in the trace of the hat matrix."""
        inverse = self.inverse()
        Q = inverse @ self.penalty.apply(inverse)
        return inverse, (Q + Q.T) / 2

    def criterion(self) -> Criterion:
        """The criterion at its minimum, with its derivatives in rho at fixed theta."""
        explicit = self.penalty.contract(self.theta, self.theta) / 2
        return Criterion(self._value(), explicit, lambda: np.diag(explicit))

    @abstractmethod
    def inverse(self) -> Float[Array, "p p"]:
        """`H^-1`."""

    @abstractmethod
    def _value(self) -> float:
        """The criterion at its minimum."""


@dataclass(frozen=True, slots=True)
class PrimalRidge(CentredSystem):
    """`H theta = b` with `H = H0 + sum_j lam_j S_j`, `H0 = X^T X / n` and `b = X^T y / n` of centred rows."""

    H0: Float[Array, "p p"]
    b: Float[Array, " p"]
    solver: Literal["primal"] = "primal"

    def loses_digits(self, lam: Float[Array, " k"]) -> bool:
        """Whether the factorization at `lam`, or the minimum of C there, has lost more digits than a result may.

        A pivot is what the columns before it leave of a diagonal entry of H.
        """
        penalty = self.penalty.at(lam)
        H = self.H0.copy(order="F")
        penalty.add_to(H)
        entries = np.diag(H).copy()
        L = cholesky.factor_in_place(H)
        if L is None or not (np.diag(L) ** 2 >= SMALLEST_KEPT_FRACTION * entries).all():
            return True
        return self.yy - float(self.b @ cholesky.solve(L, self.b)) < SMALLEST_KEPT_FRACTION * self.yy

    def fit(self, lam: Float[Array, " k"]) -> PrimalFit | None:
        """The minimizer, or None if H is not positive definite to working precision."""
        penalty = self.penalty.at(lam)
        H = self.H0.copy(order="F")
        penalty.add_to(H)
        L = cholesky.factor_in_place(H)
        if L is None:
            return None
        theta = cholesky.solve(L, self.b)
        return PrimalFit(penalty, theta, L, self.H0, self.b, (self.yy - float(self.b @ theta)) / 2)


@dataclass(frozen=True, slots=True)
class PrimalFit(PenalizedFit):
    """A minimizer with the factor of `H = H0 + P`; `minimum` is C there."""

    L: Float[Array, "p p"]
    H0: Float[Array, "p p"]
    b: Float[Array, " p"]
    minimum: float

    def solve(self, b: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
        """`H^-1 b`."""
        return cholesky.solve(self.L, b)

    def sensitivity(self, chosen: Int[Array, " f"]) -> Float[Array, "p f"]:
        """`dtheta/drho_j = -H^-1 (dH_j theta - db_j)` for the chosen hyperparameters."""
        if self.penalty.of.one_column_each and 3 * len(chosen) > len(self.theta):
            return cholesky.inverse(self.L)[:, chosen] * (-self.penalty.diagonal * self.theta)[chosen]
        return -self.solve(self.penalty.products(self.theta, chosen))

    def apply(self, v: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
        """`H v`."""
        return self.H0 @ v + self.penalty.apply(v)

    def gradient(self) -> Float[Array, " p"]:
        """`dC/dtheta`, zero up to round-off."""
        return self.apply(self.theta) - self.b

    def inverse(self) -> Float[Array, "p p"]:
        """`H^-1`."""
        return cholesky.inverse(self.L)

    def log_determinant(self) -> float:
        """`log |H|`."""
        return 2.0 * float(np.log(np.diag(self.L)).sum())

    def kept(self) -> float:
        """The smallest pivot relative to its diagonal entry of H, or C relative to its value at zero, if it is less."""
        pivots = np.diag(self.L) ** 2 / (np.diag(self.H0) + self.penalty.whole_diagonal())
        explained = float(self.b @ self.theta) / 2
        return min(float(pivots.min(initial=1.0)), self.minimum / (self.minimum + explained or 1.0))

    def sweep(self, theta_bar: Float[Array, " p"], L_bar: Float[Array, "p p"] | None = None) -> Float[Array, " k"]:
        """`rho_bar` by the reverse sweep through the factorization (Bengio 2000, section 3).

        `L_bar` is the cotangent of the factor from the direct dependence of the selection criterion on it.
        """
        through_theta, b_bar = solve_bar(self.L, self.b, self.theta, theta_bar)
        total = through_theta if L_bar is None else through_theta + L_bar
        return self._to_rho(cholesky.pullback(self.L, total), b_bar)

    def _to_rho(self, H_bar: Float[Array, "p p"], b_bar: Float[Array, " p"]) -> Float[Array, " k"]:
        return self.contract_matrix(H_bar)

    def _value(self) -> float:
        return self.minimum
