"""Penalized least squares with example weights that are hyperparameters, from the rows themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import block_diag

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

    The rows Z are relative to `origin` (in original units, near the mean). Their first column is ones for an intercept,
    which depends on the weights and so cannot be eliminated beforehand. Hyperparameters of the penalty come first, then
    those of the weights.
    """

    loss: SumOfResiduals
    penalty: PenaltyForms
    origin: Centre
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

    def fit(self, lam: Float[Array, " k"]) -> WeightedFit | None:
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
        return WeightedFit(
            penalty, theta, L, H0, b, squares / 2, shares, self.Z, self.Z @ theta - self.y, self.y
        )  # fmt: skip

    def coefficients(self, theta: Float[Array, " q"]) -> tuple[float, Float[Array, " p"]]:
        """Intercept and slopes in original units."""
        if not self.intercept:
            return 0.0, theta
        return float(theta[0]) - self.origin.times(np.append(theta[1:], -1.0)), theta[1:]


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
class WeightedFit(PrimalFit):
    """A minimizer whose H and b depend on penalties and on example weights: `dH_a = Z^T diag(ds_a) Z`."""

    shares: Weighting
    Z: Float[Array, "n q"]
    residual: Float[Array, " n"]
    y: Float[Array, " n"]

    def contract(self, u: Float[Array, " q"]) -> Float[Array, " k"]:
        """`u^T (dH_j theta - db_j)`; for the weights from `(z_t^T u) (z_t^T theta - y_t)` of each row."""
        by_row = (self.Z @ u) * self.residual
        return np.append(self.penalty.contract(u, self.theta), by_row @ self.shares.w_dot)

    def curvature(self, u: Float[Array, " q"]) -> Float[Array, "k k"]:
        """`u^T (d2H_jl theta - d2b_jl)` for each pair."""
        by_row = (self.Z @ u) * self.residual
        return block_diag(np.diag(self.penalty.contract(u, self.theta)), self.shares.second(by_row))

    def sensitivity(self, chosen: Int[Array, " f"]) -> Float[Array, "q f"]:
        """`dtheta/drho_j = -H^-1 (dH_j theta - db_j)` for the chosen hyperparameters."""
        k = self.penalty.of.k
        penalties, weights = chosen[chosen < k], chosen[chosen >= k] - k
        columns = self.penalty.products(self.theta, penalties)
        by_row = self.shares.w_dot[:, weights] * self.residual[:, None]
        return -self.solve(np.asfortranarray(np.hstack([columns, self.Z.T @ by_row])))

    def contract_columns(self, u: Float[Array, " q"], D: Float[Array, "q f"]) -> Float[Array, "k f"]:
        """`u^T dH_j D_l` for each hyperparameter j and each column of D."""
        by_row = (self.Z @ u)[:, None] * (self.Z @ D)
        return np.vstack([self.penalty.contract_columns(u, D), self.shares.w_dot.T @ by_row])

    def contract_matrix(self, H_bar: Float[Array, "q q"]) -> Float[Array, " k"]:
        """`<H_bar, dH_j>` for each hyperparameter."""
        return np.append(self.penalty.contract_matrix(H_bar), self._row_forms(H_bar) @ self.shares.w_dot)

    def curvature_matrix(self, H_bar: Float[Array, "q q"]) -> Float[Array, "k k"]:
        """`<H_bar, d2H_jl>` for each pair."""
        return block_diag(np.diag(self.penalty.contract_matrix(H_bar)), self.shares.second(self._row_forms(H_bar)))

    def forms(self, W: Float[Array, "n q"]) -> Float[Array, "n k"]:
        """`w_i^T dH_j w_i` for each row of W and each hyperparameter."""
        parts = np.array_split(W, max(1, len(W) * len(self.Z) // MOST_ROW_PRODUCTS))
        weights = np.vstack([(part @ self.Z.T) ** 2 @ self.shares.w_dot for part in parts])
        return np.hstack([self.penalty.forms(W), weights])

    def shares_of(self, base: Float[Array, " n"]) -> Weighting:
        """The share of each training row in the criterion, with its derivatives in all hyperparameters."""
        assert len(base) == len(self.y)
        n, k = len(base), self.penalty.of.k
        no_penalties = np.zeros((k, k))
        w_dot = np.hstack([np.zeros((n, k)), self.shares.w_dot])
        return Weighting(self.shares.w, w_dot, lambda a: block_diag(no_penalties, self.shares.second(a)))

    def pairs(self, P: Float[Array, "q q"], S: Float[Array, "q q"]) -> Float[Array, "k k"]:
        """The symmetric part of `tr(dH_j P dH_l S)`; P and S symmetric."""
        k, m = self.penalty.of.k, self.shares.w_dot.shape[1]
        out = block_diag(self.penalty.pairs(P, S), np.zeros((m, m)))
        for a in range(m):
            inner = S @ (self.Z.T * self.shares.w_dot[:, a]) @ self.Z @ P
            row = self.contract_matrix((inner + inner.T) / 2)
            out[k + a] = row
            out[:, k + a] = row
        return out

    def criterion(self) -> Criterion:
        """The criterion at its minimum, with its derivatives in rho at fixed theta."""
        explicit = self.penalty.contract(self.theta, self.theta) / 2
        square = self.residual**2 / 2

        def second() -> Float[Array, "k k"]:
            return block_diag(np.diag(explicit), self.shares.second(square))

        return Criterion(self._value(), np.append(explicit, square @ self.shares.w_dot), second)

    def _row_forms(self, H_bar: Float[Array, "q q"]) -> Float[Array, " n"]:
        return np.einsum("ij,ij->i", self.Z @ H_bar, self.Z)

    def _to_rho(self, H_bar: Float[Array, "q q"], b_bar: Float[Array, " q"]) -> Float[Array, " k"]:
        """The weights act through H, whose off-diagonal pairs count twice, and through b."""
        weights = np.zeros(self.penalty.of.k), ((self.Z @ b_bar) * self.y) @ self.shares.w_dot
        return self.contract_matrix(H_bar) + np.concatenate(weights)
