"""Rows of a linear predictor, dense, sparse or read in chunks, and the products with them that training needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from worker.core.records import Array
from worker.core.tables import CHUNK_VALUES, SPARSE_CHUNK_VALUES, Table, rows_at_a_time, take

HELD_PREDICTORS = 16_000_000  # changes of predictors along many directions that are held at once

Blocks = Iterable[tuple[int, int, Float[Array, " n"]]]


@dataclass(frozen=True, slots=True)
class Design:
    """Rows `z_i = (1, x_i - origin)`, without the 1 where there is no intercept; `q` columns.

    `theta` has an entry for each output and column, the outputs one after the other: `eta_ia = z_i^T theta_a`. Rows of
    `held` are in memory; the others are read from the table at each product. Sparse rows have the origin zero.
    """

    table: Table | sparse.csr_array
    rows: Int[Array, " n"]
    origin: Float[Array, " p"]
    intercept: bool
    held: Any = None

    @classmethod
    def build(
        cls,
        table: Table | sparse.csr_array,
        rows: Int[Array, " n"],
        origin: Float[Array, " p"],
        *,
        intercept: bool,
        hold: bool,
    ) -> Design:
        """The given rows (ascending) of the table, in memory if `hold`."""
        design = cls(table, rows, origin, intercept)
        return cls(table, rows, origin, intercept, design._read(rows)) if hold else design

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def q(self) -> int:
        """Columns, that of the intercept included."""
        return self.table.shape[1] + self.intercept

    def predictor(self, theta: Float[Array, " mq"]) -> Float[Array, "n m"]:
        """`eta`."""
        return self.along(theta[:, None])[:, :, 0]

    def along(self, D: Float[Array, "mq f"]) -> Float[Array, "n m f"]:
        """The change of eta along each column of D."""
        out = np.empty((len(self), len(D) // self.q, D.shape[1]))
        for some, Z in self._chunks():
            out[some] = _times(Z, D, self.q)
        return out

    def columns_at_once(self, D: Float[Array, "mq f"]) -> int:
        """How many columns of D `along` may take, so that it gives no more than `HELD_PREDICTORS` values."""
        return max(1, HELD_PREDICTORS * self.q // (len(self) * len(D) or 1))

    def pieces(self, D: Float[Array, "mq f"]) -> Iterator[tuple[slice, Float[Array, "c m f"]]]:
        """`along` for some rows after the other, no more than `HELD_PREDICTORS` values at once."""
        size = max(1, HELD_PREDICTORS * self.q // (D.size or 1))
        for some, Z in self._chunks():
            for begin in range(0, Z.shape[0], size):
                part = Z[begin : begin + size]
                first = some.start + begin
                yield slice(first, first + part.shape[0]), _times(part, D, self.q)

    def back(self, G: Float[Array, "n m f"]) -> Float[Array, "mq f"]:
        """`sum_i z_i G_ia` for each output a, one column for each f: the transpose of `along`."""
        _, m, f = G.shape
        flat = G.reshape(len(self), m * f)
        out = np.zeros((self.q, m * f))
        for some, Z in self._chunks():
            out += Z.T @ flat[some]
        return np.ascontiguousarray(out.reshape(self.q, m, f).transpose(1, 0, 2)).reshape(m * self.q, f)

    def gram(self, blocks: Blocks, m: int) -> Float[Array, "mq mq"]:
        """The symmetric matrix with the blocks `sum_i w_i z_i z_i^T` of each pair of outputs `a <= b`."""
        q = self.q
        H = np.zeros((m * q, m * q), order="F")
        weights = list(blocks)
        for some, Z in self._chunks():
            for a, b, w in weights:
                part = _cross(Z, w[some])
                H[a * q : (a + 1) * q, b * q : (b + 1) * q] += part
                if a != b:
                    H[b * q : (b + 1) * q, a * q : (a + 1) * q] += part
        return H

    def diagonal(self, blocks: Blocks, m: int) -> Float[Array, " mq"]:
        """The diagonal of `gram`."""
        out = np.zeros((m, self.q))
        weights = [(a, w) for a, b, w in blocks if a == b]
        for some, squares in self._squares():
            for a, w in weights:
                out[a] += w[some] @ squares
        return out.ravel()

    def norms(self, scale: Float[Array, " mq"]) -> Float[Array, "n m"]:
        """`sqrt(sum_j z_ij^2 scale_aj)` for each row and output."""
        per_output = scale.reshape(-1, self.q).T
        out = np.empty((len(self), per_output.shape[1]))
        for some, squares in self._squares():
            out[some] = squares @ per_output
        return np.sqrt(out)

    def forms(self, P: Float[Array, "q q"]) -> Float[Array, " n"]:
        """`z_i^T P z_i` for each row; dense rows are made of sparse ones a few at a time."""
        out = np.empty(len(self))
        for some, Z in self.dense_chunks():
            out[some] = np.einsum("ij,ij->i", Z @ P, Z)
        return out

    def dense_chunks(self) -> Iterator[tuple[slice, Float[Array, "c q"]]]:
        """Pieces of the rows as dense arrays."""
        for some, Z in self._pieces(max(1, CHUNK_VALUES // self.q)):
            yield some, Z.toarray() if isinstance(Z, sparse.csr_array) else Z

    def _squares(self) -> Iterator[tuple[slice, Any]]:
        """The squares of all entries, some rows after the other."""
        for some, Z in self._pieces(rows_at_a_time(self.table, SPARSE_CHUNK_VALUES)):
            yield some, Z.power(2) if isinstance(Z, sparse.csr_array) else Z**2

    def _pieces(self, size: int) -> Iterator[tuple[slice, Any]]:
        for some, Z in self._chunks():
            for begin in range(0, Z.shape[0], size):
                part = Z[begin : begin + size]
                yield slice(some.start + begin, some.start + begin + part.shape[0]), part

    def _chunks(self) -> Iterator[tuple[slice, Any]]:
        if self.held is not None:
            yield slice(0, len(self)), self.held
            return
        size = rows_at_a_time(self.table, CHUNK_VALUES)
        for begin in range(0, len(self), size):
            some = slice(begin, min(begin + size, len(self)))
            yield some, self._read(self.rows[some])

    def _read(self, rows: Int[Array, " c"]) -> Any:
        part = take(self.table, rows)
        ones = np.ones((len(rows), int(self.intercept)))
        if isinstance(part, sparse.csr_array):
            return sparse.csr_array(sparse.hstack([sparse.csr_array(ones), part])) if self.intercept else part
        return np.hstack([ones, part - self.origin])


def _times(Z: Any, D: Float[Array, "mq f"], q: int) -> Float[Array, "c m f"]:
    """The change of the predictors of some rows along each column of D."""
    m, f = len(D) // q, D.shape[1]
    flat = np.ascontiguousarray(D.reshape(m, q, f).transpose(1, 0, 2)).reshape(q, m * f)
    return (Z @ flat).reshape(Z.shape[0], m, f)


def _cross(Z: Any, w: Float[Array, " c"]) -> Float[Array, "q q"]:
    """`Z^T diag(w) Z`."""
    if isinstance(Z, sparse.csr_array):
        scaled = sparse.csr_array((Z.data * np.repeat(w, np.diff(Z.indptr)), Z.indices, Z.indptr), shape=Z.shape)
        return (Z.T @ scaled).toarray()
    if (w >= 0).all():
        root = Z * np.sqrt(w)[:, None]
        return root.T @ root  # a symmetric product, at half the price
    return (Z.T * w) @ Z
