"""Penalized least squares through the Cholesky factor of the p x p Hessian of the training criterion."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from worker.core.inner.least_squares.in_penalties import InPenalties
from worker.core.inner.least_squares.of_inverse import ByInverse
from worker.core.inner.protocols import Criterion, InRho, OfFactor
from worker.core.inner.theta_fit import FitOfQuadratic
from worker.core.linalg import cholesky
from worker.core.linalg.cholesky import solve_bar
from worker.core.losses.over_rows import SumOfResiduals
from worker.core.penalties.forms import Penalized, PenaltyForms
from worker.core.records import Array
from worker.core.rows.centre import Centre

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

    def about_centre(self, theta: Float[Array, "p f"]) -> tuple[Float[Array, " f"], Float[Array, "p f"]]:
        """No level, as the centre has that of the target, and slopes."""
        return np.zeros(theta.shape[1]), theta

    def from_rows(self, levels: Float[Array, " f"], slopes: Float[Array, "p f"]) -> Float[Array, "p f"]:
        """The slopes."""
        return slopes


@dataclass(frozen=True, slots=True)
class PenalizedFit(FitOfQuadratic, ABC):
    """The base of fits of least squares: a minimizer theta, and the derivatives of C in rho there."""

    theta: Float[Array, " p"]
    in_rho: InRho

    @property
    def penalty(self) -> Penalized:
        """The total penalty."""
        return self.in_rho.penalty

    def contract(self, u: Float[Array, " p"]) -> Float[Array, " k"]:
        """`u^T g_j` for each hyperparameter."""
        return self.in_rho.contract(u)

    def curvature(self, u: Float[Array, " p"]) -> Float[Array, "k k"]:
        """`u^T g_jl` for each pair."""
        return self.in_rho.curvature(u)

    def contract_columns(self, u: Float[Array, " p"], D: Float[Array, "p f"]) -> Float[Array, "k f"]:
        """`u^T H_j D_l` for each hyperparameter j and each column of D."""
        return self.in_rho.contract_columns(u, D)

    def criterion(self) -> Criterion:
        """The criterion at its minimum, with its derivatives in rho at fixed theta."""
        return self.in_rho.criterion(self._value())

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
        minimum = (self.yy - float(self.b @ theta)) / 2
        return PrimalFit(theta, InPenalties(penalty, theta), L, self.H0, self.b, minimum)


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
        """`dtheta/drho_j = -H^-1 g_j` for the chosen hyperparameters."""
        if self.in_rho.one_entry_each and 3 * len(chosen) > len(self.theta):
            return cholesky.inverse(self.L)[:, chosen] * (-self.penalty.diagonal * self.theta)[chosen]
        return -self.solve(self.in_rho.columns(chosen))

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

    @property
    def of_inverse(self) -> ByInverse:
        """From the inverse."""
        return ByInverse(self)

    def sweep(self, bar: Float[Array, " p"], of_factor: OfFactor | None = None) -> Float[Array, " k"]:
        """`rho_bar` from the cotangent of theta, and of L if the criterion depends on it."""
        L_bar, b_bar = solve_bar(self.L, self.b, self.theta, bar)
        total = L_bar if of_factor is None else L_bar + of_factor(self.L)
        return self.in_rho.contract_system(cholesky.pullback(self.L, total), b_bar)

    def _value(self) -> float:
        return self.minimum
