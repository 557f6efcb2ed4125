"""What selection criteria need of the inverse Hessian, from the inverse itself: p x p matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from worker.core.inner.protocols import InRho, Leverages
from worker.core.records import Array


@runtime_checkable
class Inverted(Protocol):
    """A fit of least squares with the inverse of its Hessian."""

    @property
    def in_rho(self) -> InRho:
        """The derivatives of H and b in rho."""

    def solve(self, b: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
        """`H^-1 b`."""

    def inverse(self) -> Float[Array, "p p"]:
        """`H^-1`."""


@dataclass(frozen=True, slots=True)
class ByInverse:
    """The functions of `protocols.OfInverse` by products of p x p matrices, for any dependence of H on rho."""

    fit: Inverted

    def log_determinant_gradient(self) -> Float[Array, " k"]:
        """`<H^-1, H_j>`."""
        return self.fit.in_rho.contract_matrix(self.fit.inverse())

    def log_determinant_hessian(self) -> Float[Array, "k k"]:
        """`<H^-1, H_jl> - tr(H_j H^-1 H_l H^-1)`."""
        inverse, in_rho = self.fit.inverse(), self.fit.in_rho
        return in_rho.curvature_matrix(inverse) - in_rho.pairs(inverse, inverse)

    def hat_trace(self) -> tuple[float, Float[Array, " k"]]:
        """`tau = tr(H^-1 (H - P))`, and `tau_j = <Q, H_j> - <H^-1, P_j>` with `Q = H^-1 P H^-1`."""
        inverse, Q = self._inverse_and_trace_bar()
        in_rho = self.fit.in_rho
        penalty_part, gradient = in_rho.penalty.contract_matrix(inverse), in_rho.contract_matrix(Q)
        gradient[: len(penalty_part)] -= penalty_part
        return len(inverse) - float(penalty_part.sum()), gradient

    def hat_trace_hessian(self) -> Float[Array, "k k"]:
        """`<H^-1, H_j H^-1 P_l + H_l H^-1 P_j - P_jl> + <Q, H_jl> - 2 tr(H_j H^-1 H_l Q)`."""
        inverse, Q = self._inverse_and_trace_bar()
        in_rho = self.fit.in_rho
        out = in_rho.curvature_matrix(Q) - 2.0 * in_rho.pairs(inverse, Q)
        is_penalty = (np.arange(len(out)) < in_rho.penalty.of.k).astype(float)
        out += in_rho.pairs(inverse, inverse) * (is_penalty[:, None] + is_penalty)
        return out - in_rho.curvature_matrix(inverse) * np.outer(is_penalty, is_penalty)

    def leverages(
        self, X: Float[Array, "n p"], r: Float[Array, " n"], shares: Float[Array, " n"], level: float
    ) -> Leverages:
        """From `X H^-1`, a solve for each row."""
        XP = np.ascontiguousarray(self.fit.solve(np.asfortranarray(X.T)).T)
        q = np.einsum("ij,ij->i", XP, X) + level
        return Leverages(XP, r, q, 1.0 - shares * q)

    def contract_rows(self, W: Float[Array, "n p"], bar: Float[Array, " n"]) -> Float[Array, " k"]:
        """`<W^T diag(bar) W, H_j>`."""
        return self.fit.in_rho.contract_matrix((W.T * bar) @ W)

    def rows_hessian(self, W: Float[Array, "n p"], bar: Float[Array, " n"]) -> Float[Array, "k k"]:
        """`sum_i bar_i (2 w_i^T H_j H^-1 H_l w_i - w_i^T H_jl w_i)`."""
        inner, in_rho = (W.T * bar) @ W, self.fit.in_rho
        return 2.0 * in_rho.pairs(self.fit.inverse(), inner) - in_rho.curvature_matrix(inner)

    def _inverse_and_trace_bar(self) -> tuple[Float[Array, "p p"], Float[Array, "p p"]]:
        """`H^-1`, and `Q = H^-1 P H^-1`, the cotangent of H in the trace of the hat matrix."""
        inverse = self.fit.inverse()
        Q = inverse @ self.fit.in_rho.penalty.apply(inverse)
        return inverse, (Q + Q.T) / 2
