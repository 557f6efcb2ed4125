"""Rows of a linear predictor, in memory or read in chunks, and the products with them that training needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from worker.core.records import Array
from worker.core.rows.held import DenseHeld, HeldRows, SparseHeld
from worker.core.rows.tables import CHUNK_VALUES, Table, rows_at_a_time, take

HELD_PREDICTORS = 16_000_000  # changes of predictors along many directions that are held at once
Blocks = Iterable[tuple[int, int, Float[Array, " n"]]]


@dataclass(frozen=True, slots=True)
class Design:
    """Rows `z_i = (1, x_i - origin)`, without the 1 where there is no intercept; `q` columns.

    `theta` has an entry for each output and column, the outputs one after the other: `eta_ia = z_i^T theta_a`. Rows of
    `held` are in memory; the others are read from the table at each product. Sparse rows have the origin zero.
    """

    table: Table | csr_array
    rows: Int[Array, " n"]
    origin: Float[Array, " p"]
    intercept: bool
    held: HeldRows | None = None

    @classmethod
    def build(
        cls,
        table: Table | csr_array,
        rows: Int[Array, " n"],
        origin: Float[Array, " p"],
        *,
        intercept: bool,
        hold: bool,
    ) -> Design:
        """The given rows (ascending) of the table; dense ones in memory if `hold`, sparse ones always."""
        design = cls(table, rows, origin, intercept)
        if isinstance(table, csr_array):
            return cls(table, rows, origin, intercept, SparseHeld.of_table(table, rows, intercept=intercept))
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
        for part, Z in self._chunks():
            out[part] = _along(Z, D, self.q)
        return out

    def columns_at_once(self, D: Float[Array, "mq f"]) -> int:
        """How many columns of D `along` may take, so that it gives no more than `HELD_PREDICTORS` values."""
        rows = len(self) if self.held is None else self.held.passed
        return max(1, HELD_PREDICTORS * self.q // (rows * len(D) or 1))

    def pieces(self, D: Float[Array, "mq f"]) -> Iterator[tuple[slice, Float[Array, "c m f"]]]:
        """`along` for some rows after the other, no more than `HELD_PREDICTORS` values at once."""
        for part, Z in self._parts(max(1, HELD_PREDICTORS * self.q // (D.size or 1))):
            yield part, _along(Z, D, self.q)

    def back(self, G: Float[Array, "n m f"]) -> Float[Array, "mq f"]:
        """`sum_i z_i G_ia` for each output a, one column for each f: the transpose of `along`."""
        _, m, f = G.shape
        flat = G.reshape(len(self), m * f)
        if self.held is not None:
            out = self.held.back(flat)
        else:
            out = np.zeros((self.q, m * f))
            for part, Z in self._chunks():
                out += Z.back(flat[part])
        return np.ascontiguousarray(out.reshape(self.q, m, f).transpose(1, 0, 2)).reshape(m * self.q, f)

    def gram(self, blocks: Blocks, m: int) -> Float[Array, "mq mq"]:
        """The symmetric matrix with the blocks `sum_i w_i z_i z_i^T` of each pair of outputs `a <= b`."""
        q = self.q
        H = np.zeros((m * q, m * q), order="F")
        weights = list(blocks)
        for part, Z in self._chunks():
            for a, b, w in weights:
                cross = Z.cross(w[part])
                H[a * q : (a + 1) * q, b * q : (b + 1) * q] += cross
                if a != b:
                    H[b * q : (b + 1) * q, a * q : (a + 1) * q] += cross
        return H

    def diagonal(self, blocks: Blocks, m: int) -> Float[Array, " mq"]:
        """The diagonal of `gram`."""
        W, out = np.zeros((len(self), m)), np.zeros((self.q, m))
        for a, b, w in blocks:
            if a == b:
                W[:, a] = w
        for part, Z in self._chunks():
            out += Z.squares_back(W[part])
        return out.T.ravel()

    def norms(self, scale: Float[Array, " mq"]) -> Float[Array, "n m"]:
        """`sqrt(sum_j z_ij^2 scale_aj)` for each row and output."""
        per_output = np.ascontiguousarray(scale.reshape(-1, self.q).T)
        out = np.empty((len(self), per_output.shape[1]))
        for part, Z in self._chunks():
            out[part] = Z.squares_times(per_output)
        return np.sqrt(out)

    def forms(self, P: Float[Array, "q q"]) -> Float[Array, " n"]:
        """`z_i^T P z_i` for each row; dense rows are made of sparse ones a few at a time."""
        out = np.empty(len(self))
        for part, Z in self.dense_chunks():
            out[part] = np.einsum("ij,ij->i", Z @ P, Z)
        return out

    def dense_chunks(self) -> Iterator[tuple[slice, Float[Array, "c q"]]]:
        """Pieces of the rows as dense arrays."""
        for part, Z in self._parts(max(1, CHUNK_VALUES // self.q)):
            yield part, Z.dense()

    def _parts(self, size: int) -> Iterator[tuple[slice, HeldRows]]:
        """So many rows after the other, at the most."""
        for some, Z in self._chunks():
            for begin in range(0, len(Z), size):
                end = min(begin + size, len(Z))
                yield slice(some.start + begin, some.start + end), Z.some(slice(begin, end))

    def _chunks(self) -> Iterator[tuple[slice, HeldRows]]:
        if self.held is not None:
            yield slice(0, len(self)), self.held
            return
        size = rows_at_a_time(self.table, CHUNK_VALUES)
        for begin in range(0, len(self), size):
            part = slice(begin, min(begin + size, len(self)))
            yield part, self._read(self.rows[part])

    def _read(self, rows: Int[Array, " c"]) -> DenseHeld:
        return DenseHeld(np.hstack([np.ones((len(rows), int(self.intercept))), take(self.table, rows) - self.origin]))


def _along(Z: HeldRows, D: Float[Array, "mq f"], q: int) -> Float[Array, "c m f"]:
    """The change of the predictors of some rows along each column of D."""
    m, f = len(D) // q, D.shape[1]
    flat = np.ascontiguousarray(D.reshape(m, q, f).transpose(1, 0, 2)).reshape(q, m * f)
    return Z.times(flat).reshape(len(Z), m, f)
