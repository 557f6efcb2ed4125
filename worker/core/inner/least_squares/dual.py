"""Penalized least squares through the Cholesky factor of an n x n matrix, for more columns than rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from worker.core.inner.least_squares.in_penalties import InPenalties
from worker.core.inner.least_squares.of_inverse import ByInverse
from worker.core.inner.least_squares.orthogonal import Orthogonal
from worker.core.inner.least_squares.primal import CentredSystem, PenalizedFit
from worker.core.inner.protocols import Leverages, OfFactor
from worker.core.linalg import cholesky
from worker.core.linalg.cholesky import solve_bar
from worker.core.linalg.triangular import solve_lower
from worker.core.penalties.forms import Penalized
from worker.core.records import Array
from worker.core.rows.tables import Rows


@dataclass(frozen=True, slots=True)
class DualRidge(CentredSystem):
    """The same minimizer through `K = I + X P^-1 X^T / n`, P the diagonal of the penalty.

    `theta = P^-1 X^T K^-1 y / n`, and `H^-1 = P^-1 - P^-1 X^T K^-1 X P^-1 / n` (Woodbury). The rows are centred. In
    these formulas the rows of the field `X` are multiplied by `root`, the square root of weight / mean weight; the
    field `y` contains this factor already.

    If rows are `centred` at their weighted mean, `root` is an eigenvector of K with the eigenvalue 1, orthogonal to all
    vectors that K is applied to. The factored matrix has a typical eigenvalue there instead. Otherwise the rounding
    error of this one would swamp the small elements of `K^-1`, which leave-one-out needs if the fit is nearly exact.
    """

    X: Rows
    y: Float[Array, " n"]
    root: Float[Array, " n"]
    centred: bool = False
    orthogonal: bool = False  # whether K is factored through the rows
    solver: Literal["dual"] = "dual"

    def fit(self, lam: Float[Array, " k"]) -> DualFit | None:
        """The minimizer, or None if K is not positive definite to working precision."""
        penalty, n = self.penalty.at(lam), len(self.y)
        if self.orthogonal:
            return self._fit_by_rows(penalty)
        L, level = self._factor(penalty)
        if L is None:
            return None
        alpha = cholesky.solve(L, self.y)
        theta = ((self.root * alpha) @ self.X) / (n * penalty.diagonal)
        return DualFit(theta, InPenalties(penalty, theta), self, L, alpha, level)

    def _factor(self, penalty: Penalized) -> tuple[Float[Array, "n n"] | None, float]:
        """The Cholesky factor of K, and the level added along `root`."""
        n = len(self.y)
        K = self.X.gram(n * penalty.diagonal)
        K *= self.root[:, None] * self.root
        cholesky.diagonal_of(K)[...] += 1.0
        level = float(np.mean(cholesky.diagonal_of(K))) if self.centred else 0.0
        if self.centred:
            K += np.outer(level / n * self.root, self.root)
        return cholesky.factor_in_place(K), level

    def _fit_by_rows(self, penalty: Penalized) -> DualFit | None:
        """The same from `[A, I]^T = Q R` with `A = X P^-1/2 / sqrt(n)`, which does not square the condition of A.

        `K = A A^T + I = R^T R`, so that `P^1/2 theta / sqrt(n)` and `alpha` are the parts of `Q R^-T y`.
        """
        n, p = len(self.y), len(penalty.diagonal)
        scale = np.sqrt(n * penalty.diagonal)
        A = (self.X.dense() * self.root[:, None] / scale).T
        level = 1.0 + float((A**2).sum()) / n if self.centred else 0.0
        factors = Orthogonal.of(np.vstack([A, np.eye(n), np.sqrt(level / n) * self.root[None, :]]))
        if factors is None:
            return None
        parts = factors.Q @ factors.solve_transposed(self.y)
        theta = parts[:p] / scale
        return DualFit(theta, InPenalties(penalty, theta), self, factors.lower(), parts[p : p + n], level)


@dataclass(frozen=True, slots=True)
class DualFit(PenalizedFit):
    """A minimizer with the factor of K and the dual solution `alpha = K^-1 y`, the residuals of the (scaled) rows.

    `level` is what the factored matrix adds to the eigenvalue of K along `root`.
    """

    system: DualRidge
    L: Float[Array, "n n"]
    alpha: Float[Array, " n"]
    level: float

    def solve(self, b: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
        """`H^-1 b`; a single b gets one refinement, as Woodbury's difference loses digits if penalties are small.

        If it loses all digits, as for rows far from zero without an intercept, the refinement is no better and dropped.
        """
        x = self._solve(b)
        if b.ndim > 1:
            return x
        residual = b - self.apply(x)
        refined = x + self._solve(residual)
        return refined if np.linalg.norm(b - self.apply(refined)) < np.linalg.norm(residual) else x

    def _solve(self, b: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
        X, P, root = self.system.X, self.penalty.diagonal, self.system.root
        scaled = (b.T / P).T
        inner = cholesky.solve(self.L, np.asfortranarray(((X @ scaled).T * root).T))
        return scaled - (X.back((inner.T * root).T).T / (len(X) * P)).T

    def sensitivity(self, chosen: Int[Array, " f"]) -> Float[Array, "p f"]:
        """`dtheta/drho_j = -H^-1 P_j theta` for the chosen hyperparameters."""
        return -self.solve(self.in_rho.columns(chosen))

    def apply(self, v: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
        """`H v`."""
        X, root = self.system.X, self.system.root
        return X.back(((X @ v).T * root**2).T) / len(X) + self.penalty.apply(v)

    def gradient(self) -> Float[Array, " p"]:
        """`dC/dtheta`, zero up to round-off."""
        system = self.system
        return self.apply(self.theta) - (system.root * system.y) @ system.X / len(system.y)

    def inverse(self) -> Float[Array, "p p"]:
        """`H^-1`."""
        return self.solve(np.eye(len(self.theta)))

    def kept(self) -> float:
        """The eigenvalue 1 of K relative to its largest diagonal entry."""
        return 1.0 / float((np.tril(self.L) ** 2).sum(axis=1).max())

    def log_determinant(self) -> float:
        """`log |H| = log |P| + log |K|`."""
        of_rows = 2.0 * np.log(np.diag(self.L)).sum() - np.log1p(self.level)
        return float(np.log(self.penalty.diagonal).sum() + of_rows)

    @property
    def of_inverse(self) -> ByRows:
        """From the factor of K."""
        return ByRows(self)

    def sweep(self, bar: Float[Array, " p"], of_factor: OfFactor | None = None) -> Float[Array, " k"]:
        """`rho_bar` from the cotangent of theta, through the factorization of K. Raises ValueError with `of_factor`.

        `K_bar` contributes `diag(X^T K_bar X) / n` to the cotangent of `P^-1`, which `d(P^-1)/drho_j` maps to rho.
        """
        if of_factor is not None:
            raise ValueError("the factor of H is not known here: the n x n matrix is factored")
        X, P, n, root = self.system.X, self.penalty.diagonal, len(self.system.y), self.system.root
        through_alpha, _ = solve_bar(self.L, self.system.y, self.alpha, root * (X @ (bar / P)) / n)
        K_bar = cholesky.pullback(self.L, through_alpha)
        K_bar *= root[:, None] * root
        inverse_bar = bar * ((root * self.alpha) @ X) + X.column_forms(K_bar)
        return -self.penalty.contract_diagonal(inverse_bar / (n * P**2))

    def _value(self) -> float:
        penalized = float(self.penalty.apply(self.theta) @ self.theta)
        return (float(self.alpha @ self.alpha) / len(self.alpha) + penalized) / 2  # no terms that cancel


@dataclass(frozen=True, slots=True)
class ByRows:
    """The functions of `protocols.OfInverse` from the factor L of K.

    `A_j = P_j P^-1` are diagonal, `U = L^-1 X P^-1/2 / sqrt(n)` with `P^1/2 H^-1 P^1/2 = I - U^T U`, and `V = L^-T U`.
    Second derivatives take one n x n matrix for each hyperparameter, or p x p matrices if these are smaller.
    """

    fit: DualFit

    def log_determinant_gradient(self) -> Float[Array, " k"]:
        """`<H^-1, P_j>`, from the diagonal of `H^-1` alone."""
        penalty, squares = self.fit.penalty, (self._whitened() ** 2).sum(axis=0)
        return penalty.contract_diagonal((1.0 - squares) / penalty.diagonal)

    def log_determinant_hessian(self) -> Float[Array, "k k"]:
        """`<H^-1, P_j>` on the diagonal, minus `tr(P_j H^-1 P_l H^-1)`.

        With `G_j = U A_j U^T`, the trace is `tr(A_j A_l (I - 2 U^T U)) + <G_j, G_l>`.
        """
        if not self._prefers_row_matrices:
            return ByInverse(self.fit).log_determinant_hessian()
        U, fractions = self._whitened(), self._penalty_fractions()
        squares, G = (U**2).sum(axis=0), _weighted_products(U, fractions, U).reshape(self.fit.penalty.of.k, -1)
        traces = (fractions * (1.0 - 2.0 * squares)) @ fractions.T
        return np.diag(fractions @ (1.0 - squares)) - traces.toarray() - G @ G.T

    def hat_trace(self) -> tuple[float, Float[Array, " k"]]:
        """`tr(I - K^-1)`; its derivatives are `-tr(V A_j V^T)`."""
        L, level, penalty = self.fit.L, self.fit.level, self.fit.penalty
        inverse_trace = float(np.trace(cholesky.inverse(L))) + level / (1.0 + level)
        V = solve_lower(L, self._whitened(), transposed=True)
        return len(L) - inverse_trace, -penalty.contract_diagonal((V**2).sum(axis=0) / penalty.diagonal)

    def hat_trace_hessian(self) -> Float[Array, "k k"]:
        """`2 tr(V A_j A_l V^T) - [j = l] tr(V A_j V^T) - 2 <G_j, G_l>` with `G_j = U A_j V^T`."""
        if not self._prefers_row_matrices:
            return ByInverse(self.fit).hat_trace_hessian()
        U, fractions = self._whitened(), self._penalty_fractions()
        V = solve_lower(self.fit.L, U, transposed=True)
        squares, G = (V**2).sum(axis=0), _weighted_products(U, fractions, V).reshape(self.fit.penalty.of.k, -1)
        return 2.0 * (((fractions * squares) @ fractions.T).toarray() - G @ G.T) - np.diag(fractions @ squares)

    def leverages(
        self, X: Float[Array, "n p"], r: Float[Array, " n"], shares: Float[Array, " n"], level: float
    ) -> Leverages:
        """Residuals, one minus leverages and `X H^-1` without cancellation; zero in XP for rows of weight zero."""
        fit, system, used = self.fit, self.fit.system, shares > 0
        root, n = system.root, len(r)
        diagonal = np.diag(cholesky.inverse(fit.L))[used]
        r, q, remainders = r.copy(), np.zeros(n), np.ones(n)
        r[used] = fit.alpha[used] / root[used]
        remainders[used] = diagonal - root[used] ** 2 / (n * (1.0 + fit.level)) * system.centred
        q[used] = (1.0 - remainders[used]) / shares[used]
        inner = cholesky.solve(fit.L, np.asfortranarray(root[:, None] * X))
        XP = np.divide(inner, root[:, None], out=np.zeros(X.shape), where=root[:, None] > 0) / fit.penalty.diagonal
        return Leverages(XP, r, q, remainders)

    def contract_rows(self, W: Float[Array, "n p"], bar: Float[Array, " n"]) -> Float[Array, " k"]:
        """`sum_i bar_i w_i^T P_j w_i`, without a p x p matrix."""
        return self.fit.penalty.contract_diagonal(bar @ W**2)

    def rows_hessian(self, W: Float[Array, "n p"], bar: Float[Array, " n"]) -> Float[Array, "k k"]:
        """`sum_i bar_i (2 w_i^T P_j H^-1 P_l w_i - [j = l] w_i^T P_j w_i)`.

        With `Z = W P^1/2` the first term is `2 sum_i bar_i z_i^T A_j (I - U^T U) A_l z_i`.
        """
        if not self._prefers_row_matrices:
            return ByInverse(self.fit).rows_hessian(W, bar)
        fractions, Z = self._penalty_fractions(), W * np.sqrt(self.fit.penalty.diagonal)
        G = _weighted_products(self._whitened(), fractions, Z)
        squares = bar @ Z**2
        weighted, k = G * bar, len(G)
        pairs = ((fractions * squares) @ fractions.T).toarray() - weighted.reshape(k, -1) @ G.reshape(k, -1).T
        return 2.0 * pairs - np.diag(fractions @ squares)

    @property
    def _prefers_row_matrices(self) -> bool:
        """Whether one n x n matrix for each hyperparameter takes no more than a p x p matrix."""
        return self.fit.penalty.of.k * len(self.fit.L) ** 2 <= len(self.fit.theta) ** 2

    def _penalty_fractions(self) -> sparse.csr_array:
        """The diagonals of `A_j`, one row each."""
        penalty = self.fit.penalty
        return sparse.csr_array(sparse.csr_array(penalty.of.diagonals) * penalty.lam[:, None] / penalty.diagonal)

    def _whitened(self) -> Float[Array, "n p"]:
        """U."""
        rows, root = self.fit.system.X.dense(), self.fit.system.root
        scaled = np.asfortranarray(root[:, None] * rows / np.sqrt(len(rows) * self.fit.penalty.diagonal))
        return solve_lower(self.fit.L, scaled, overwrite=True)


def _weighted_products(
    U: Float[Array, "n p"], fractions: sparse.csr_array, Z: Float[Array, "m p"]
) -> Float[Array, "k n m"]:
    """`U A_j Z^T` for each j, from the columns with nonzero A_j."""
    out = np.empty((fractions.shape[0], len(U), len(Z)))
    for j in range(len(out)):
        place = slice(fractions.indptr[j], fractions.indptr[j + 1])
        columns = fractions.indices[place]
        out[j] = (U[:, columns] * fractions.data[place]) @ Z[:, columns].T
    return out
