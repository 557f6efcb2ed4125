"""Penalized least squares with example weights that are hyperparameters, from the rows themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import block_diag

from worker.core.inner.least_squares.in_penalties import InPenalties
from worker.core.inner.least_squares.orthogonal import least_squares
from worker.core.inner.least_squares.primal import PrimalFit
from worker.core.inner.protocols import Criterion
from worker.core.linalg import cholesky
from worker.core.linalg.triangular import outer_product
from worker.core.losses.over_rows import SumOfResiduals
from worker.core.penalties.forms import Penalized, PenaltyForms
from worker.core.records import Array
from worker.core.rows.centre import Centre
from worker.core.weights import Weighting

MOST_ROW_PRODUCTS = 4_000_000  # inner products of two rows in memory at a time


@dataclass(frozen=True, slots=True)
class WeightedRidge:
    """`C = 1/2 sum_t s_t(rho) (y_t - z_t^T theta)^2 + penalty` with the shares `s_t = w_t / sum w`.

    The rows Z are relative to `centre` (in original units, near the mean). Their first column is ones for an intercept,
    which depends on the weights and so cannot be eliminated beforehand. Hyperparameters of the penalty come first, then
    those of the weights.
    """

    loss: SumOfResiduals
    penalty: PenaltyForms
    centre: Centre
    intercept: bool
    Z: Float[Array, "n q"]
    y: Float[Array, " n"]
    base: Float[Array, " n"]
    weighting: Callable[[Float[Array, " m"]], Weighting]
    orthogonal: bool = False

    @property
    def solver(self) -> Literal["primal", "orthogonal"]:
        """By the Cholesky factor of H, or by an orthogonal factorization of the rows."""
        return "orthogonal" if self.orthogonal else "primal"

    def fit(self, lam: Float[Array, " k"]) -> PrimalFit | None:
        """The minimizer, or None if H is not positive definite to working precision."""
        shares = self.weighting(lam[self.penalty.k :]).normalized(self.base)
        if not np.isfinite(shares.w).all():  # all weights underflow to zero
            return None
        penalty = self.penalty.at(lam[: self.penalty.k])
        root = np.sqrt(shares.w)
        rows = self.Z * root[:, None]
        H0 = outer_product(rows.T)
        np.copyto(H0, np.tril(H0) + np.tril(H0, -1).T)
        b = (shares.w * self.y) @ self.Z
        if self.orthogonal:
            solved = least_squares(np.vstack([rows, penalty.root()]), root * self.y)
        else:
            solved = _through_cholesky(H0, b, float(shares.w @ self.y**2), penalty)
        if solved is None:
            return None
        L, theta, squares = solved
        in_rho = InPenaltiesAndWeights(InPenalties(penalty, theta), shares, self.Z, self.Z @ theta - self.y, self.y)
        return PrimalFit(theta, in_rho, L, H0, b, squares / 2)

    def coefficients(self, theta: Float[Array, " q"]) -> tuple[float, Float[Array, " p"]]:
        """Intercept and slopes in original units."""
        if not self.intercept:
            return 0.0, theta
        return float(theta[0]) - self.centre.times(np.append(theta[1:], -1.0)), theta[1:]

    def about_centre(self, theta: Float[Array, "q f"]) -> tuple[Float[Array, " f"], Float[Array, "p f"]]:
        """Level and slopes of rows relative to the centre."""
        if not self.intercept:
            return np.zeros(theta.shape[1]), theta
        return theta[0], theta[1:]

    def from_rows(self, levels: Float[Array, " f"], slopes: Float[Array, "p f"]) -> Float[Array, "q f"]:
        """Both, if there is an intercept."""
        return np.vstack([levels, slopes]) if self.intercept else slopes


def _through_cholesky(
    H0: Float[Array, "q q"], b: Float[Array, " q"], yy: float, penalty: Penalized
) -> tuple[Float[Array, "q q"], Float[Array, " q"], float] | None:
    """The factor of H, the minimizer, and twice the minimum of C; None if H is not positive definite."""
    H = H0.copy(order="F")
    penalty.add_to(H)
    L = cholesky.factor_in_place(H)
    if L is None:
        return None
    theta = cholesky.solve(L, b)
    return L, theta, yy - float(b @ theta)


@dataclass(frozen=True, slots=True)
class InPenaltiesAndWeights:
    """`H_a = Z^T diag(s_a) Z` and `b_a = Z^T (s_a y)` for the weights, with the derivatives `s_a` of the shares.

    The methods are documented in `protocols.InRho`.
    """

    penalties: InPenalties
    shares: Weighting
    Z: Float[Array, "n q"]
    residual: Float[Array, " n"]
    y: Float[Array, " n"]

    @property
    def penalty(self) -> Penalized:
        """The total penalty."""
        return self.penalties.penalty

    @property
    def one_entry_each(self) -> bool:
        """False: a weight changes all of H."""
        return False

    def contract(self, u: Float[Array, " q"]) -> Float[Array, " k"]:
        """For the weights from `(z_t^T u) (z_t^T theta - y_t)` of each row."""
        by_row = (self.Z @ u) * self.residual
        return np.append(self.penalties.contract(u), by_row @ self.shares.w_dot)

    def curvature(self, u: Float[Array, " q"]) -> Float[Array, "k k"]:
        """From the same number of each row."""
        by_row = (self.Z @ u) * self.residual
        return block_diag(self.penalties.curvature(u), self.shares.second(by_row))

    def columns(self, chosen: Int[Array, " f"]) -> Float[Array, "q f"]:
        """`P_j theta`, and `Z^T (s_a (Z theta - y))`."""
        k = self.penalty.of.k
        penalties, weights = chosen[chosen < k], chosen[chosen >= k] - k
        by_row = self.shares.w_dot[:, weights] * self.residual[:, None]
        return np.asfortranarray(np.hstack([self.penalties.columns(penalties), self.Z.T @ by_row]))

    def contract_columns(self, u: Float[Array, " q"], D: Float[Array, "q f"]) -> Float[Array, "k f"]:
        """For the weights from `(z_t^T u) (z_t^T D_l)` of each row."""
        by_row = (self.Z @ u)[:, None] * (self.Z @ D)
        return np.vstack([self.penalties.contract_columns(u, D), self.shares.w_dot.T @ by_row])

    def contract_matrix(self, H_bar: Float[Array, "q q"]) -> Float[Array, " k"]:
        """For the weights from `z_t^T H_bar z_t` of each row."""
        return np.append(self.penalties.contract_matrix(H_bar), self._row_forms(H_bar) @ self.shares.w_dot)

    def contract_system(self, H_bar: Float[Array, "q q"], b_bar: Float[Array, " q"]) -> Float[Array, " k"]:
        """The weights act through H and through b."""
        weights = np.zeros(self.penalty.of.k), ((self.Z @ b_bar) * self.y) @ self.shares.w_dot
        return self.contract_matrix(H_bar) + np.concatenate(weights)

    def curvature_matrix(self, H_bar: Float[Array, "q q"]) -> Float[Array, "k k"]:
        """From the same number of each row."""
        return block_diag(self.penalties.curvature_matrix(H_bar), self.shares.second(self._row_forms(H_bar)))

    def forms(self, W: Float[Array, "n q"]) -> Float[Array, "n k"]:
        """For the weights from `(w_i^T z_t)^2`."""
        parts = np.array_split(W, max(1, len(W) * len(self.Z) // MOST_ROW_PRODUCTS))
        weights = np.vstack([(part @ self.Z.T) ** 2 @ self.shares.w_dot for part in parts])
        return np.hstack([self.penalties.forms(W), weights])

    def pairs(self, P: Float[Array, "q q"], S: Float[Array, "q q"]) -> Float[Array, "k k"]:
        """The symmetric part of `tr(H_j P H_l S)`."""
        k, m = self.penalty.of.k, self.shares.w_dot.shape[1]
        out = block_diag(self.penalties.pairs(P, S), np.zeros((m, m)))
        for a in range(m):
            inner = S @ (self.Z.T * self.shares.w_dot[:, a]) @ self.Z @ P
            row = self.contract_matrix((inner + inner.T) / 2)
            out[k + a] = row
            out[:, k + a] = row
        return out

    def shares_of(self, base: Float[Array, " n"]) -> Weighting:
        """The shares; penalties do not change them."""
        assert len(base) == len(self.y)
        n, k = len(base), self.penalty.of.k
        no_penalties = np.zeros((k, k))
        w_dot = np.hstack([np.zeros((n, k)), self.shares.w_dot])
        return Weighting(self.shares.w, w_dot, lambda a: block_diag(no_penalties, self.shares.second(a)))

    def criterion(self, value: float) -> Criterion:
        """For the weights from half the square of each row's residual."""
        of_penalties, square = self.penalties.criterion(value), self.residual**2 / 2

        def second() -> Float[Array, "k k"]:
            return block_diag(of_penalties.second(), self.shares.second(square))

        return Criterion(value, np.append(of_penalties.rho_bar, square @ self.shares.w_dot), second)

    def _row_forms(self, H_bar: Float[Array, "q q"]) -> Float[Array, " n"]:
        return np.einsum("ij,ij->i", self.Z @ H_bar, self.Z)
