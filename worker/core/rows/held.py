"""Dense and sparse rows of a linear predictor in memory, and the products with them that training needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from worker.core.records import Array
from worker.core.rows.tables import SPARSE_CHUNK_VALUES, consecutive, rows_at_a_time, take, transposed, view

MAX_COPIED_BYTES = 2**24  # sparse tables up to this size are copied for each split: products with a copy are faster
MIN_SHARED_FRACTION = 0.25  # from this fraction of the rows of a larger table on, products use all rows without a copy


class HeldRows(ABC):
    """The rows Z, n x q."""

    __slots__ = ()

    @abstractmethod
    def __len__(self) -> int:
        """Number of rows."""

    @property
    @abstractmethod
    def passed(self) -> int:
        """Number of rows that a product passes over."""

    @abstractmethod
    def times(self, V: Float[Array, "q f"]) -> Float[Array, "n f"]:
        """`Z V`."""

    @abstractmethod
    def back(self, G: Float[Array, "n f"]) -> Float[Array, "q f"]:
        """`Z^T G`."""

    @abstractmethod
    def cross(self, w: Float[Array, " n"]) -> Float[Array, "q q"]:
        """`Z^T diag(w) Z`."""

    @abstractmethod
    def squares_back(self, W: Float[Array, "n f"]) -> Float[Array, "q f"]:
        """`sum_i w_i z_ij^2` for each column of W."""

    @abstractmethod
    def squares_times(self, V: Float[Array, "q f"]) -> Float[Array, "n f"]:
        """`sum_j z_ij^2 v_j` for each column of V."""

    @abstractmethod
    def some(self, part: slice) -> HeldRows:
        """The rows of a slice."""

    @abstractmethod
    def dense(self) -> Float[Array, "n q"]:
        """All rows as an array."""


@dataclass(frozen=True, slots=True)
class DenseHeld(HeldRows):
    """Rows as a dense array."""

    Z: Float[Array, "n q"]

    def __len__(self) -> int:
        return len(self.Z)

    @property
    def passed(self) -> int:
        """All rows."""
        return len(self.Z)

    def times(self, V: Float[Array, "q f"]) -> Float[Array, "n f"]:
        """`Z V`."""
        return self.Z @ V

    def back(self, G: Float[Array, "n f"]) -> Float[Array, "q f"]:
        """`Z^T G`."""
        return self.Z.T @ G

    def cross(self, w: Float[Array, " n"]) -> Float[Array, "q q"]:
        """`Z^T diag(w) Z`."""
        if (w >= 0).all():
            root = self.Z * np.sqrt(w)[:, None]
            return root.T @ root  # a symmetric product costs half
        return (self.Z.T * w) @ self.Z

    def squares_back(self, W: Float[Array, "n f"]) -> Float[Array, "q f"]:
        """By chunks of rows, so that their squares stay in the cache."""
        out = np.zeros((self.Z.shape[1], W.shape[1]))
        for part in self._chunks():
            out += (self.Z[part] ** 2).T @ W[part]
        return out

    def squares_times(self, V: Float[Array, "q f"]) -> Float[Array, "n f"]:
        """By chunks of rows, like `squares_back`."""
        return np.concatenate([self.Z[part] ** 2 @ V for part in self._chunks()])

    def some(self, part: slice) -> DenseHeld:
        """The rows of a slice."""
        return DenseHeld(self.Z[part])

    def dense(self) -> Float[Array, "n q"]:
        """The array."""
        return self.Z

    def _chunks(self) -> list[slice]:
        size = max(1, SPARSE_CHUNK_VALUES // max(self.Z.shape[1], 1))
        return [slice(begin, begin + size) for begin in range(0, max(len(self.Z), 1), size)]


@dataclass(frozen=True, slots=True)
class SparseHeld(HeldRows):
    """Rows `(1, s_i)` of a sparse table; the 1 is left out if `ones` is 0.

    They are all rows of S, or its rows `place`. With `place` S is shared with others instead of copied, and products
    pass over all its rows.
    """

    S: sparse.csr_array
    ones: int
    place: Int[Array, " n"] | None = None
    ST: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ST", transposed(self.S))

    @classmethod
    def of_table(cls, table: sparse.csr_array, rows: Int[Array, " n"], *, intercept: bool) -> SparseHeld:
        """The given rows (ascending), copied unless they are consecutive or many rows of a large table."""
        large = table.data.nbytes + table.indices.nbytes > MAX_COPIED_BYTES
        if large and consecutive(rows) is None and len(rows) >= MIN_SHARED_FRACTION * table.shape[0]:
            return cls(table, int(intercept), rows)
        return cls(take(table, rows), int(intercept))

    def __len__(self) -> int:
        return int(self.S.shape[0]) if self.place is None else len(self.place)

    @property
    def passed(self) -> int:
        """Number of all rows of S."""
        return int(self.S.shape[0])

    def times(self, V: Float[Array, "q f"]) -> Float[Array, "n f"]:
        """`Z V`."""
        out = self._own_rows(self.S @ V[self.ones :])
        if self.ones:
            out += V[0]
        return out

    def back(self, G: Float[Array, "n f"]) -> Float[Array, "q f"]:
        """`Z^T G`."""
        return self._with_ones(G.sum(axis=0), self.ST @ self._scattered(G))

    def cross(self, w: Float[Array, " n"]) -> Float[Array, "q q"]:
        """`Z^T diag(w) Z`."""
        S, i = self.S, self.ones
        scattered = self._scattered(w)
        scaled = sparse.csr_array(
            (S.data * np.repeat(scattered, np.diff(S.indptr)), S.indices, S.indptr), shape=S.shape
        )
        inner = (self.ST @ scaled).toarray()
        if not i:
            return inner
        out = np.empty((len(inner) + 1, len(inner) + 1))
        out[0, 0], out[1:, 1:] = w.sum(), inner
        out[0, 1:] = out[1:, 0] = self.ST @ scattered
        return out

    def squares_back(self, W: Float[Array, "n f"]) -> Float[Array, "q f"]:
        """By chunks of rows, so that their squares take little memory."""
        scattered, out = self._scattered(W), np.zeros((self.S.shape[1], W.shape[1]))
        for part, squares in self._squares():
            out += squares.T @ scattered[part]
        return self._with_ones(W.sum(axis=0), out)

    def squares_times(self, V: Float[Array, "q f"]) -> Float[Array, "n f"]:
        """By chunks of rows, like `squares_back`."""
        out = np.empty((self.S.shape[0], V.shape[1]))
        for part, squares in self._squares():
            out[part] = squares @ V[self.ones :]
        out = self._own_rows(out)
        if self.ones:
            out += V[0]
        return out

    def some(self, part: slice) -> SparseHeld:
        """The rows of a slice."""
        if self.place is None:
            return SparseHeld(view(self.S, part), self.ones)
        return SparseHeld(take(self.S, self.place[part]), self.ones)

    def dense(self) -> Float[Array, "n q"]:
        """All rows as an array."""
        rows = self.S if self.place is None else take(self.S, self.place)
        return np.hstack([np.ones((len(self), self.ones)), rows.toarray()])

    def _own_rows(self, A: Float[Array, "t f"]) -> Float[Array, "n f"]:
        return A if self.place is None else A[self.place]

    def _scattered(self, A: Float[Array, " n *f"]) -> Float[Array, " t *f"]:
        """A at these rows of S, zero at the others."""
        if self.place is None:
            return A
        out = np.zeros((self.S.shape[0], *A.shape[1:]))
        out[self.place] = A
        return out

    def _with_ones(self, first: Float[Array, " f"], rest: Float[Array, "p f"]) -> Float[Array, "q f"]:
        return np.vstack([first, rest]) if self.ones else rest

    def _squares(self) -> Iterator[tuple[slice, sparse.csr_array]]:
        """The squared entries of S, by chunks of rows."""
        size = rows_at_a_time(self.S, SPARSE_CHUNK_VALUES)
        for begin in range(0, self.S.shape[0], size):
            part = slice(begin, min(begin + size, self.S.shape[0]))
            rows = view(self.S, part)
            rows.data = rows.data**2
            yield part, rows
