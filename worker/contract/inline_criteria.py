"""The matrices and vectors of a request as arrays. Each list is converted once, when its array is first needed."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

from worker.contract.data import MatricesData, SparseMatrix
from worker.core.records import Array


class InlineMatrix:
    """The arrays of a p x p matrix, which was sent row by row or by its entries. Its shape is checked before."""

    def __init__(self, sent: list[list[float]] | SparseMatrix, p: int) -> None:
        self.sent, self.p = sent, p

    @property
    def is_sparse(self) -> bool:
        """Whether the matrix was sent by its entries."""
        return isinstance(self.sent, SparseMatrix)

    @cached_property
    def values(self) -> Array:
        """The matrix (p x p), or its entries (m) if it was sent by them."""
        sent = self.sent
        return np.array(sent.values if isinstance(sent, SparseMatrix) else sent, dtype=np.float64)

    @cached_property
    def places(self) -> dict[str, Array]:
        """`rows` and `columns` of the entries (m each); empty if the matrix was sent row by row."""
        if not isinstance(self.sent, SparseMatrix):
            return {}
        return {name: np.array(getattr(self.sent, name), dtype=np.int64) for name in ("rows", "columns")}

    @cached_property
    def is_symmetric(self) -> bool:
        """Whether the matrix was sent row by row and is symmetric.

        This is far cheaper to see than by a sparse matrix, and a request may bring many matrices.
        """
        return not self.is_sparse and np.array_equal(self.values, self.values.T)

    @cached_property
    def entries(self) -> csr_array:
        """The entries that are not zero, as they were sent; those that were sent twice are added."""
        at = tuple(self.places.values())
        made = csr_array((self.values, at), shape=(self.p, self.p)) if at else csr_array(self.values)
        made.eliminate_zeros()
        made.sort_indices()
        return made

    @cached_property
    def symmetric_part(self) -> csr_array:
        """The symmetric part of the matrix: it differs from what was sent by rounding alone."""
        A = self.entries  # noqa: N806
        if self.is_symmetric or not abs(A - A.T).nnz:
            return A
        part = csr_array(0.5 * (A + A.T))
        part.sort_indices()
        return part


class InlineCriteria:
    """The arrays of a request's own criteria; `data` are the lists that they are made of."""

    def __init__(self, data: MatricesData) -> None:
        self.data = data
        self.p = len(data.vectors[0]) if data.vectors and data.vectors[0] else 0  # number of parameters theta
        self.matrices = tuple(self._matrix(sent) for sent in data.matrices)
        self.Q = self._matrix(data.selection.matrix)

    def _matrix(self, sent: list[list[float]] | SparseMatrix | None) -> InlineMatrix | None:
        return None if sent is None else InlineMatrix(sent, self.p)

    @cached_property
    def vectors(self) -> tuple[Array | None, ...]:
        """`b_0, b_1, ...`; None for a vector that was not sent."""
        return tuple(_vector(sent) for sent in self.data.vectors)

    @cached_property
    def e(self) -> Array | None:
        """The vector of the selection criterion; None if it was not sent."""
        return _vector(self.data.selection.vector)


def _vector(sent: list[float] | None) -> Array | None:
    return None if sent is None else np.array(sent, dtype=np.float64)
