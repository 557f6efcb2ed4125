"""The rows of a linear predictor, in memory or read in chunks, and the products with them that training needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from worker.core.records import Array
from worker.core.rows.held import DenseHeld, HeldRows, SparseHeld
from worker.core.rows.tables import CHUNK_VALUES, Table, rows_at_a_time, shifted, take

HELD_PREDICTORS = 16_000_000  # values of the changes of eta that are held at once: 128 MB
Blocks = Iterable[tuple[int, int, Float[Array, " n"]]]


@dataclass(frozen=True, slots=True)
class Design:
    """Rows `z_i = (1, x_i - origin)` with `q` columns; without an intercept the 1 is left out.

    `theta` has an entry for each output and column, ordered by output: `eta_ia = z_i^T theta_a`. With `held` the rows
    are in memory; without it each product reads them from the table. Of sparse rows the origin is zero in most columns.
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
        """The given rows (ascending) of the table: dense rows in memory if `hold`, sparse rows always."""
        design = cls(table, rows, origin, intercept)
        if isinstance(table, csr_array):
            if origin.any():
                held = SparseHeld(shifted(take(table, rows), origin), int(intercept))
                return cls(table, rows, origin, intercept, held)
            return cls(table, rows, origin, intercept, SparseHeld.of_table(table, rows, intercept=intercept))
        return cls(table, rows, origin, intercept, design._read(rows)) if hold else design

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def q(self) -> int:
        """Number of columns, including the intercept."""
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
        """How many columns of D `along` may take at once to make at most `HELD_PREDICTORS` values."""
        rows = len(self) if self.held is None else self.held.passed
        return max(1, HELD_PREDICTORS * self.q // (rows * len(D) or 1))

    def pieces(self, D: Float[Array, "mq f"], rows: int | None = None) -> Iterator[tuple[slice, Float[Array, "c m f"]]]:
        """`along` by chunks of at most so many rows; by default, of at most `HELD_PREDICTORS` values."""
        for part, Z in self._chunks_of(rows or max(1, HELD_PREDICTORS * self.q // (D.size or 1))):
            yield part, _along(Z, D, self.q)

    def back(self, G: Float[Array, "n m f"]) -> Float[Array, "mq f"]:
        """`sum_i z_i G_iaf` for each output a and direction f: the transpose of `along`."""
        _, m, f = G.shape
        flat = G.reshape(len(self), m * f)
        if self.held is not None:
            out = self.held.back(flat)
        else:
            out = np.zeros((self.q, m * f))
            for part, Z in self._chunks():
                out += Z.back(flat[part])
        return np.ascontiguousarray(out.reshape(self.q, m, f).transpose(1, 0, 2)).reshape(m * self.q, f)

    def back_by_group(self, G: Float[Array, "n m"], groups: Int[Array, " n"], count: int) -> Float[Array, "m q g"]:
        """`sum_i z_i G_ia` over the rows of each of `count` groups, for each column a of G."""
        out = np.zeros((G.shape[1], self.q, count))
        for part, Z in self.dense_chunks():
            members = (groups[part, None] == np.arange(count)).astype(float)
            for a, weights in enumerate(G[part].T):
                out[a] += (Z.T * weights) @ members
        return out

    def gram(self, blocks: Blocks, m: int) -> Float[Array, "mq mq"]:
        """The symmetric matrix with a block `sum_i w_i z_i z_i^T` for each pair of outputs `a <= b`."""
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
        """`z_i^T P z_i` for each row; sparse rows are made dense chunk by chunk."""
        out = np.empty(len(self))
        for part, Z in self.dense_chunks():
            out[part] = np.einsum("ij,ij->i", Z @ P, Z)
        return out

    def dense_chunks(self) -> Iterator[tuple[slice, Float[Array, "c q"]]]:
        """Chunks of the rows as dense arrays."""
        for part, Z in self._chunks_of(max(1, CHUNK_VALUES // self.q)):
            yield part, Z.dense()

    def _chunks_of(self, size: int) -> Iterator[tuple[slice, HeldRows]]:
        """Chunks of at most `size` rows."""
        for chunk, Z in self._chunks():
            for begin in range(0, len(Z), size):
                end = min(begin + size, len(Z))
                yield slice(chunk.start + begin, chunk.start + end), Z.some(slice(begin, end))

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
    """The change of eta of the rows Z along each column of D."""
    m, f = len(D) // q, D.shape[1]
    flat = np.ascontiguousarray(D.reshape(m, q, f).transpose(1, 0, 2)).reshape(q, m * f)
    return Z.times(flat).reshape(len(Z), m, f)
