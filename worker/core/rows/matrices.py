"""Quadratic training and selection criteria that the caller gives instead of a table."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from scipy.sparse import csr_array

from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class Criteria:
    """`C = theta^T H theta / 2 - b^T theta` and `E = constant + e^T theta + theta^T Q theta / 2`.

    `H = A_0 + sum_j f_j A_j` and `b = b_0 + sum_j f_j b_j` with the natural value `f_j` of hyperparameter j. `matrices`
    holds the symmetric `A_0, A_1, ..., A_k`; the columns of `vectors` are `b_0, b_1, ..., b_k`.
    """

    matrices: tuple[csr_array, ...]
    vectors: Float[Array, "p k1"]
    Q: csr_array
    e: Float[Array, " p"]
    constant: float

    @property
    def p(self) -> int:
        """Number of parameters theta."""
        return len(self.vectors)

    @property
    def k(self) -> int:
        """Number of hyperparameters."""
        return len(self.matrices) - 1
