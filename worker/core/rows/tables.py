"""Tables of features, whose rows are read a few at a time; sparse rows stay sparse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csc_array, csr_array

from worker.core.linalg.triangular import outer_product
from worker.core.records import Array
from worker.core.rows.centre import Centre

LARGEST_MAGNITUDE = 1e150  # larger values overflow when squared
CHUNK_VALUES = 1_000_000  # float64 values read at a time: 8 MB, which suits the cache and the blocking of syrk
SPARSE_CHUNK_VALUES = 200_000  # stored values of sparse rows read at a time; each needs several temporaries


@runtime_checkable
class Table(Protocol):
    """Rows of features that need not be in memory: an array, a memory map, or columns made when they are read."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    def __getitem__(self, rows: slice | Int[Array, " m"], /) -> Float[Array, "m p"]:
        """The rows of a slice, or those with the given ascending indices."""


@runtime_checkable
class Rows(Protocol):
    """Rows X in memory, n x p, with the products that least squares needs."""

    __array_ufunc__: ClassVar[None]  # so that `array @ rows` calls `__rmatmul__`

    def __len__(self) -> int:
        """Number of rows."""

    def __matmul__(self, v: Float[Array, " p *m"], /) -> Float[Array, " n *m"]:
        """`X v`."""

    def __rmatmul__(self, v: Float[Array, "*m n"], /) -> Float[Array, "*m p"]:
        """`v X`."""

    def back(self, v: Float[Array, " n *m"]) -> Float[Array, " p *m"]:
        """`X^T v`."""

    def dense(self) -> Float[Array, "n p"]:
        """The rows as an array."""

    def gram(self, diagonal: Float[Array, " p"]) -> Float[Array, "n n"]:
        """`X P^-1 X^T`, P = diag(diagonal), at least its lower triangle; Fortran-ordered."""

    def column_forms(self, K: Float[Array, "n n"]) -> Float[Array, " p"]:
        """`x_j^T K x_j` for each column."""


@dataclass(frozen=True, slots=True)
class DenseRows:
    """Rows as an array."""

    X: Float[Array, "n p"]
    __array_ufunc__: ClassVar[None] = None

    def __len__(self) -> int:
        return len(self.X)

    def __matmul__(self, v: Float[Array, " p *m"]) -> Float[Array, " n *m"]:
        return self.X @ v

    def __rmatmul__(self, v: Float[Array, "*m n"]) -> Float[Array, "*m p"]:
        return v @ self.X

    def back(self, v: Float[Array, " n *m"]) -> Float[Array, " p *m"]:
        """`X^T v`."""
        return self.X.T @ v

    def dense(self) -> Float[Array, "n p"]:
        """The array."""
        return self.X

    def gram(self, diagonal: Float[Array, " p"]) -> Float[Array, "n n"]:
        """`X P^-1 X^T`, its lower triangle."""
        return outer_product(np.asfortranarray(self.X / np.sqrt(diagonal)))

    def column_forms(self, K: Float[Array, "n n"]) -> Float[Array, " p"]:
        """`x_j^T K x_j` for each column."""
        return np.einsum("ij,ij->j", self.X, K @ self.X)


@dataclass(frozen=True, slots=True)
class SparseRows:
    """`S - 1 offset^T`: centred rows whose sparse part stays sparse.

    Columns that most rows store are centred inside S, with an offset of zero: see `centred`.
    """

    S: csr_array
    offset: Float[Array, " p"]
    __array_ufunc__: ClassVar[None] = None

    def __len__(self) -> int:
        return int(self.S.shape[0])

    def __matmul__(self, v: Float[Array, " p *m"]) -> Float[Array, " n *m"]:
        return self.S @ v - self.offset @ v

    def __rmatmul__(self, v: Float[Array, "*m n"]) -> Float[Array, "*m p"]:
        sums = v.sum(axis=-1)
        return (transposed(self.S) @ v.T).T - (np.outer(sums, self.offset) if v.ndim == 2 else sums * self.offset)

    def back(self, v: Float[Array, " n *m"]) -> Float[Array, " p *m"]:
        """`X^T v`."""
        return (v.T @ self).T

    def dense(self) -> Float[Array, "n p"]:
        """The rows as an array."""
        return self.S.toarray() - self.offset

    def gram(self, diagonal: Float[Array, " p"]) -> Float[Array, "n n"]:
        """`X P^-1 X^T`, at least its lower triangle, by pieces of `CHUNK_VALUES` entries."""
        S, n = self.S * (1.0 / np.sqrt(diagonal)), len(self)
        K = np.zeros((n, n), order="F")
        begin = 0
        while begin < n:
            end = min(n, begin + max(1, CHUNK_VALUES // (begin + 1)))
            K[begin:end, :end] = (S[begin:end] @ S[:end].T).toarray()
            begin = end
        cross = self.S @ (self.offset / diagonal)
        K -= cross[:, None]
        K -= cross - self.offset @ (self.offset / diagonal)
        return K

    def column_forms(self, K: Float[Array, "n n"]) -> Float[Array, " p"]:
        """`x_j^T K x_j` for each column, by chunks of columns."""
        columns, (n, p) = self.S.tocsc(), self.S.shape
        forms = np.empty(p)
        width = max(1, CHUNK_VALUES // n)
        for begin in range(0, p, width):
            chunk = slice(begin, begin + width)
            dense = columns[:, chunk].toarray() - self.offset[chunk]
            forms[chunk] = np.einsum("ij,ij->j", dense, K @ dense)
        return forms


def take(X: Table | csr_array, rows: Int[Array, " m"]) -> Any:
    """The rows with the given ascending indices, sparse if the table is; consecutive rows as one slice."""
    span = consecutive(rows)
    if span is None:
        return X[rows]
    return view(X, span) if isinstance(X, csr_array) else X[span]


def consecutive(rows: Int[Array, " m"]) -> slice | None:
    """The slice equal to the given ascending rows; None if they have gaps or there are none."""
    if not len(rows) or rows[-1] - rows[0] != len(rows) - 1:
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1)


def transposed(X: csr_array) -> csc_array:
    """The transpose, sharing the arrays of X; scipy's constructor copies the arrays of a view."""
    XT = csc_array(X.shape[::-1], dtype=X.dtype)
    XT.data, XT.indices, XT.indptr = X.data, X.indices, X.indptr
    return XT


def view(X: csr_array, rows: slice) -> csr_array:
    """Consecutive rows of a sparse table, sharing its arrays; scipy's slices and constructors copy them."""
    pointers = X.indptr[rows.start : rows.stop + 1]
    part = csr_array((len(pointers) - 1, X.shape[1]), dtype=X.dtype)
    part.data = X.data[pointers[0] : pointers[-1]]
    part.indices = X.indices[pointers[0] : pointers[-1]]
    part.indptr = pointers - pointers[0]
    return part


def centred(X: Table | csr_array, rows: Int[Array, " m"], centre: Centre) -> Rows:
    """The rows with the given ascending indices minus the centre; sparse rows stay sparse.

    Of sparse rows, columns that at least half of the rows store are centred entry by entry. A product of the others
    with their offset loses at most a factor of two to cancellation.
    """
    part = take(X, rows)
    if not isinstance(part, csr_array):
        return DenseRows(centre.subtracted_from(part))
    full, dense, rest = without_full_columns(part)
    offset = centre.high + centre.low
    if not len(full):
        return SparseRows(part, offset)
    offset[full] = 0.0
    return SparseRows(_with_columns(rest, full, centre.of(full).subtracted_from(dense)), offset)


def shifted(part: csr_array, origin: Float[Array, " p"]) -> csr_array:
    """Sparse rows minus an origin that is zero in most columns; the others get an entry in each row."""
    columns = np.flatnonzero(origin)
    dense, rest = _columns_apart(part, columns)
    return _with_columns(rest, columns, dense - origin[columns])


def _with_columns(rest: csr_array, columns: Int[Array, " f"], dense: Float[Array, "m f"]) -> csr_array:
    """The sparse rows with these columns, which they have no entries of."""
    n, width = dense.shape
    stored = csr_array((dense.ravel(), np.tile(columns, n), np.arange(n + 1) * width), shape=rest.shape)
    return csr_array(rest + stored)


def without_full_columns(part: csr_array) -> tuple[Int[Array, " f"], Float[Array, "m f"], csr_array]:
    """Columns that at least half of the rows store, as a dense array, and the rows without their entries."""
    n, p = part.shape
    full = np.flatnonzero(2 * np.bincount(part.indices, minlength=p) >= max(n, 1))
    return (full, *_columns_apart(part, full)) if len(full) else (full, np.empty((n, 0)), part)


def _columns_apart(part: csr_array, columns: Int[Array, " f"]) -> tuple[Float[Array, "m f"], csr_array]:
    """The chosen columns as a dense array, and the rows without their entries."""
    n, p = part.shape
    place = np.full(p, -1)
    place[columns] = np.arange(len(columns))
    position, row = place[part.indices], np.repeat(np.arange(n), np.diff(part.indptr))
    is_full = position >= 0
    dense = np.zeros((n, len(columns)))
    dense[row[is_full], position[is_full]] = part.data[is_full]
    kept = ~is_full
    ends = np.append(0, np.cumsum(np.bincount(row[kept], minlength=n)))
    return dense, csr_array((part.data[kept], part.indices[kept], ends), shape=part.shape)


def rows_at_a_time(X: Table | csr_array, values: int) -> int:
    """How many rows hold about `values` stored values."""
    n, p = X.shape
    stored = X.nnz // max(n, 1) if isinstance(X, csr_array) else p
    return max(1, values // (stored + 2))


def mean_and_variance(
    X: Table | csr_array, rows: Int[Array, " m"], weights: Float[Array, " m"]
) -> tuple[Centre, Float[Array, " p"]]:
    """Weighted means and variances of the columns over the given rows; a constant column has variance exactly zero.

    Reads the rows in two passes, in chunks.
    """
    relative = weights / weights.sum()
    if isinstance(X, csr_array):
        return _sparse_mean_and_variance(X, rows, relative)
    size = rows_at_a_time(X, CHUNK_VALUES)
    pieces = [slice(begin, begin + size) for begin in range(0, len(rows), size)]
    p = X.shape[1]
    mean, low, high = np.zeros(p), np.full(p, np.inf), np.full(p, -np.inf)
    for piece in pieces:
        part = take(X, rows[piece])
        mean += relative[piece] @ part
        used = part[relative[piece] > 0]
        low, high = np.minimum(low, used.min(axis=0, initial=np.inf)), np.maximum(high, used.max(0, initial=-np.inf))
    mean = np.clip(mean, low, high)  # of a constant column, the constant
    left, squares = np.zeros(p), np.zeros(p)
    for piece in pieces:
        deviations = take(X, rows[piece]) - mean
        left += relative[piece] @ deviations
        squares += relative[piece] @ deviations**2
    return Centre.at(mean).moved(left), np.where(high > low, squares - left**2, 0.0)


def _sparse_mean_and_variance(
    X: csr_array, rows: Int[Array, " m"], relative: Float[Array, " m"]
) -> tuple[Centre, Float[Array, " p"]]:
    """A column that all rows store gets the mean of its deviations from the rounded mean, like a dense one."""
    p, size = X.shape[1], rows_at_a_time(X, SPARSE_CHUNK_VALUES)
    pieces = [slice(begin, begin + size) for begin in range(0, len(rows), size)]
    mean, example, stored = np.zeros(p), np.zeros(p), np.zeros(p, int)
    for piece in pieces:
        part = take(X, rows[piece])
        mean += relative[piece] @ part
        counted = np.repeat(relative[piece] > 0, np.diff(part.indptr))
        example[part.indices[counted]] = part.data[counted]
        stored += np.bincount(part.indices[counted], minlength=p)
    is_full = stored == np.count_nonzero(relative)
    left, squares, weight = np.zeros((3, p))
    differs = ~is_full & (example != 0)  # a nonzero entry differs from zeros that are not stored
    for piece in pieces:
        part = take(X, rows[piece])
        by_entry = np.repeat(relative[piece], np.diff(part.indptr))
        deviations = part.data - mean[part.indices]
        left += np.bincount(part.indices, by_entry * deviations, minlength=p)
        squares += np.bincount(part.indices, by_entry * deviations**2, minlength=p)
        weight += np.bincount(part.indices, by_entry, minlength=p)
        differs[part.indices[(by_entry > 0) & (part.data != example[part.indices])]] = True
    left[~is_full], weight[is_full] = 0.0, 1.0
    mean = np.where(differs | ~is_full, mean, example)
    variance = squares - left**2 + np.maximum(1.0 - weight, 0.0) * mean**2
    return Centre.at(mean).moved(np.where(differs, left, 0.0)), np.where(differs, variance, 0.0)
