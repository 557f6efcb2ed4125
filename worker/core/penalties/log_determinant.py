"""The log-determinant of a penalty on its range, accurate for any hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import qr, svd

from worker.core.records import Array

LARGEST_ZERO_SINGULAR_VALUE = 1e-10  # of stacked roots with largest entries 1, relative to the largest singular value


@dataclass(frozen=True, slots=True)
class LogDeterminant:
    """`log |P|_+` with its gradient in `rho`, and the rank of P."""

    value: float
    gradient: Float[Array, " k"]
    rank: int


@dataclass(frozen=True, slots=True)
class SolvedComponent:
    """`log |P|_+` of a component, and `P^-1 P_j` in a basis of its range for each of its hyperparameters j."""

    value: float
    solved: dict[int, Float[Array, "r r"]]


@dataclass(frozen=True, slots=True)
class Component:
    """The stacked roots B of all S_j on some columns; `owner` is the hyperparameter of each row.

    The rank depends neither on the scales of the columns nor on the hyperparameters: it is the one of the given roots.
    """

    B: Float[Array, "r m"]
    owner: Int[Array, " r"]
    rank: int

    @classmethod
    def build(
        cls,
        owners: Sequence[int],
        given: Sequence[Float[Array, "_ m"]],
        scaled: Sequence[Float[Array, "_ m"]],
        first_rank: int,
    ) -> Component:
        """The roots of each owner, as given and with scaled columns; `first_rank` is the rank of the first one."""
        rank = first_rank
        if len(given) > 1:
            values = svd(np.vstack([root / np.abs(root).max() for root in given]), compute_uv=False)
            rank = int(np.count_nonzero(values > LARGEST_ZERO_SINGULAR_VALUE * values[0]))
        owner = np.repeat(owners, [len(root) for root in given])
        return cls(np.vstack(scaled), owner, rank)

    def at(self, lam: Float[Array, " k"]) -> SolvedComponent:
        """By a QR decomposition `Q R` of the stacked roots B of all P_j: `P = B^T B`.

        With pivots, and the longest rows first, each row keeps its own digits, however different the rows are (Cox and
        Higham 1998). The determinant is the one of `R R^T`. `P^-1 P_j` is `Q_j^T Q_j` in the basis `R^-1`, with Q_j the
        rows of j.
        """
        B = np.sqrt(lam[self.owner, None]) * self.B
        order = np.argsort(-np.abs(B).max(axis=1), kind="stable")
        Q, R, _ = qr(B[order], mode="economic", pivoting=True)
        owner, R = self.owner[order], R[: self.rank]
        corner = R if self.rank == R.shape[1] else qr(R.T, mode="r")[0]
        parts = {int(j): Q[owner == j, : self.rank] for j in np.unique(owner)}
        value = 2.0 * float(np.log(np.abs(np.diag(corner))).sum())
        return SolvedComponent(value, {j: part.T @ part for j, part in parts.items()})
