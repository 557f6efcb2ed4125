"""Training by a quadratic criterion that the caller brings: H and b are sums of given matrices and vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.sparse import csr_array

from worker.core.inner.protocols import OfFactor, Sweep
from worker.core.inner.theta_fit import FitOfQuadratic
from worker.core.linalg import cholesky
from worker.core.linalg.assembled import Assembly, Factor, Shape
from worker.core.linalg.cholesky import solve_bar
from worker.core.records import Array
from worker.core.rows.matrices import Criteria


@dataclass(frozen=True, slots=True)
class QuadraticLoss:
    """`E = constant + e^T theta + theta^T Q theta / 2`."""

    Q: csr_array
    e: Float[Array, " p"]
    constant: float
    weight: float = 1.0

    def value(self, theta: Float[Array, " p"]) -> float:
        """E."""
        return self.value_and_gradient(theta)[0]

    def value_and_gradient(self, theta: Float[Array, " p"]) -> tuple[float, Float[Array, " p"]]:
        """E, and `e + Q theta`."""
        half = self.Q @ theta / 2
        return float(self.constant + self.e @ theta + theta @ half), self.e + 2.0 * half

    def hessian_form(self, D: Float[Array, "p f"], theta: Float[Array, " p"]) -> Float[Array, "f f"]:
        """`D^T Q D`."""
        return D.T @ (self.Q @ D)


@dataclass(frozen=True, slots=True)
class SumSystem:
    """`H theta = b` with `H = A_0 + sum_j f_j A_j`, `b = b_0 + sum_j f_j b_j`.

    `stack` holds the A_j stacked vertically, from A_0 on; `log` marks the hyperparameters with `rho_j = log(f_j)`.
    """

    loss: QuadraticLoss
    assembly: Assembly
    stack: csr_array
    vectors: Float[Array, "p k1"]
    log: Bool[Array, " k"]

    @classmethod
    def build(cls, criteria: Criteria, log: Bool[Array, " k"], shape: Shape | None = None) -> SumSystem:
        """From the caller's criteria; `shape=None` chooses the cheapest factorization."""
        loss = QuadraticLoss(criteria.Q, criteria.e, criteria.constant)
        stack = csr_array(sparse.vstack(criteria.matrices, format="csr"))
        return cls(loss, Assembly.build(criteria.matrices, shape), stack, criteria.vectors, log)

    @property
    def solver(self) -> Shape:
        """How H is factored."""
        return self.assembly.shape

    def fit(self, lam: Float[Array, " k"]) -> SumFit | None:
        """The minimizer at natural hyperparameters, or None if H is not positive definite to working precision."""
        h = np.append(1.0, lam)
        factor = self.assembly.factor(h)
        if factor is None:
            return None
        theta = factor.solve(self.vectors @ h)
        residuals = self.products(theta) - self.vectors.T
        slope, bend = np.where(self.log, lam, 1.0), np.where(self.log, lam, 0.0)
        return SumFit(theta, factor, self, h, residuals[1:], slope, bend)

    def coefficients(self, theta: Float[Array, " p"]) -> tuple[float, Float[Array, " p"]]:
        """A zero intercept, and theta."""
        return 0.0, theta

    def products(self, v: Float[Array, " p *m"]) -> Float[Array, "k1 p *m"]:
        """`A_j v` for each `j >= 0`."""
        return (self.stack @ v).reshape(self.vectors.shape[1], *v.shape)

    def contract_matrix(self, H_bar: Float[Array, "p p"]) -> Float[Array, " k1"]:
        """`<H_bar, A_j>` for each `j >= 0`."""
        entries = self.stack.tocoo()
        j, rows = np.divmod(entries.coords[0], len(self.vectors))
        return np.bincount(j, entries.data * H_bar[rows, entries.coords[1]], minlength=self.vectors.shape[1])


@dataclass(frozen=True, slots=True)
class SumFit(FitOfQuadratic):
    """A minimizer theta with the factor of H. `residuals[j - 1]` is `A_j theta - b_j`; slope and bend are f', f''."""

    theta: Float[Array, " p"]
    factor: Factor
    of: SumSystem
    h: Float[Array, " k1"]
    residuals: Float[Array, "k p"]
    slope: Float[Array, " k"]
    bend: Float[Array, " k"]

    def solve(self, b: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
        """`H^-1 b`."""
        return self.factor.solve(b)

    def apply(self, v: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
        """`H v`."""
        return np.tensordot(self.h, self.of.products(v), axes=1)

    def gradient(self) -> Float[Array, " p"]:
        """`dC/dtheta`, zero up to round-off."""
        return self.apply(self.theta) - self.of.vectors @ self.h

    def contract(self, u: Float[Array, " p"]) -> Float[Array, " k"]:
        """`u^T (dH_j theta - db_j)` for each hyperparameter."""
        return self.slope * (self.residuals @ u)

    def curvature(self, u: Float[Array, " p"]) -> Float[Array, "k k"]:
        """`u^T (d2H_jl theta - d2b_jl)` for each pair."""
        return np.diag(self.bend * (self.residuals @ u))

    def sensitivity(self, chosen: Int[Array, " f"]) -> Float[Array, "p f"]:
        """`dtheta/drho_j = -H^-1 (dH_j theta - db_j)` for the chosen hyperparameters."""
        return -self.solve(np.asfortranarray((self.slope[:, None] * self.residuals)[chosen].T))

    def contract_columns(self, u: Float[Array, " p"], D: Float[Array, "p f"]) -> Float[Array, "k f"]:
        """`u^T dH_j D_l` for each hyperparameter j and each column of D."""
        return self.slope[:, None] * (self.of.products(u)[1:] @ D)

    @property
    def sweep(self) -> Sweep | None:
        """Through a dense factorization; None through others."""
        L = self.factor.L
        if L is None:
            return None

        def swept(bar: Float[Array, " p"], of_factor: OfFactor | None = None) -> Float[Array, " k"]:
            L_bar, b_bar = solve_bar(L, self.of.vectors @ self.h, self.theta, bar)
            total = L_bar if of_factor is None else L_bar + of_factor(L)
            to_h = self.of.contract_matrix(cholesky.pullback(L, total)) + b_bar @ self.of.vectors
            return self.slope * to_h[1:]

        return swept
