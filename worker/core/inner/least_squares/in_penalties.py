"""The derivatives of a criterion of least squares in its penalties, at a minimizer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from worker.core.inner.protocols import Criterion
from worker.core.penalties.forms import Penalized
from worker.core.records import Array
from worker.core.weights import Weighting


@dataclass(frozen=True, slots=True)
class InPenalties:
    """`dH/drho_j = P_j = lam_j S_j`, and b is constant. The methods are documented in `protocols.InRho`."""

    penalty: Penalized
    theta: Float[Array, " p"]

    @property
    def one_entry_each(self) -> bool:
        """Whether each penalty is of one coefficient, its own."""
        return self.penalty.of.one_column_each

    def contract(self, u: Float[Array, " p"]) -> Float[Array, " k"]:
        """`u^T P_j theta`."""
        return self.penalty.contract(u, self.theta)

    def curvature(self, u: Float[Array, " p"]) -> Float[Array, "k k"]:
        """`u^T P_j theta` on the diagonal."""
        return np.diag(self.contract(u))

    def columns(self, chosen: Int[Array, " f"]) -> Float[Array, "p f"]:
        """`P_j theta`."""
        return self.penalty.products(self.theta, chosen)

    def contract_columns(self, u: Float[Array, " p"], D: Float[Array, "p f"]) -> Float[Array, "k f"]:
        """`u^T P_j D_l`."""
        return self.penalty.contract_columns(u, D)

    def contract_matrix(self, H_bar: Float[Array, "p p"]) -> Float[Array, " k"]:
        """`<H_bar, P_j>`."""
        return self.penalty.contract_matrix(H_bar)

    def contract_system(self, H_bar: Float[Array, "p p"], b_bar: Float[Array, " p"]) -> Float[Array, " k"]:
        """`<H_bar, P_j>`."""
        return self.penalty.contract_matrix(H_bar)

    def curvature_matrix(self, H_bar: Float[Array, "p p"]) -> Float[Array, "k k"]:
        """`<H_bar, P_j>` on the diagonal."""
        return np.diag(self.penalty.contract_matrix(H_bar))

    def forms(self, W: Float[Array, "n p"]) -> Float[Array, "n k"]:
        """`w_i^T P_j w_i`."""
        return self.penalty.forms(W)

    def pairs(self, P: Float[Array, "p p"], S: Float[Array, "p p"]) -> Float[Array, "k k"]:
        """The symmetric part of `tr(P_j P P_l S)`."""
        return self.penalty.pairs(P, S)

    def shares_of(self, base: Float[Array, " n"]) -> Weighting:
        """The fixed weights, normalized."""
        k = self.penalty.of.k
        return Weighting(base / base.sum(), np.zeros((len(base), k)), lambda _: np.zeros((k, k)))

    def criterion(self, value: float) -> Criterion:
        """`theta^T P_j theta / 2`, which is also the second derivative in `rho_j`."""
        explicit = self.penalty.contract(self.theta, self.theta) / 2
        return Criterion(value, explicit, lambda: np.diag(explicit))
