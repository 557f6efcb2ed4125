"""Tables of features and how their rows are read: a few at a time, and sparse rows never made dense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csc_array, csr_array

from worker.core.linalg.triangular import outer_product
from worker.core.records import Array

LARGEST = 1e150  # magnitudes beyond overflow when squared
CHUNK_VALUES = 1_000_000  # float64 values read at a time: 8 MB, inside the reach of the cache and of syrk's blocking
SPARSE_CHUNK_VALUES = 200_000  # stored values of sparse rows, each with several temporaries


@runtime_checkable
class Table(Protocol):
    """Rows of features that need not be in memory: an array, a memory map, or columns made when asked."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    def __getitem__(self, rows: slice | Int[Array, " m"], /) -> Float[Array, "m p"]:
        """The rows of a slice, or those with the given ascending indices."""


@dataclass(frozen=True, slots=True)
class SparseRows:
    """`S - 1 offset^T`, centred rows whose sparse part stays sparse. Knows the products that training needs."""

    S: csr_array
    offset: Float[Array, " p"]
    __array_ufunc__: ClassVar[None] = None  # so that `array @ rows` arrives at `__rmatmul__`

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.S.shape

    def __len__(self) -> int:
        return int(self.S.shape[0])

    def __matmul__(self, v: Float[Array, " p *m"]) -> Float[Array, " n *m"]:
        return self.S @ v - self.offset @ v

    def __rmatmul__(self, v: Float[Array, "*m n"]) -> Float[Array, "*m p"]:
        sums = v.sum(axis=-1)
        return (transposed(self.S) @ v.T).T - (np.outer(sums, self.offset) if v.ndim == 2 else sums * self.offset)

    @property
    def T(self) -> _Transposed:
        """The transpose, for products from the right alone."""
        return _Transposed(self)

    def dense(self) -> Float[Array, "n p"]:
        """The rows as an array."""
        return self.S.toarray() - self.offset


@dataclass(frozen=True, slots=True)
class _Transposed:
    rows: SparseRows

    def __matmul__(self, v: Float[Array, " n *m"]) -> Float[Array, " p *m"]:
        return (v.T @ self.rows).T


Rows = Float[Array, "n p"] | SparseRows


def gram(X: Rows, diagonal: Float[Array, " p"], values: int) -> Float[Array, "n n"]:
    """`X P^-1 X^T` with `P = diag(diagonal)`, the lower triangle at least; sparse ones by pieces of about `values`."""
    if not isinstance(X, SparseRows):
        return outer_product(np.asfortranarray(X / np.sqrt(diagonal)))
    S, n = X.S * (1.0 / np.sqrt(diagonal)), len(X)
    K = np.zeros((n, n), order="F")
    begin = 0
    while begin < n:
        end = min(n, begin + max(1, values // (begin + 1)))
        K[begin:end, :end] = (S[begin:end] @ S[:end].T).toarray()
        begin = end
    moved = X.S @ (X.offset / diagonal)
    K -= moved[:, None]
    K -= moved - X.offset @ (X.offset / diagonal)
    return K


def column_forms(X: Rows, K: Float[Array, "n n"], values: int) -> Float[Array, " p"]:
    """`x_j^T K x_j` for each column of X."""
    if not isinstance(X, SparseRows):
        return np.einsum("ij,ij->j", X, K @ X)
    columns, (n, p) = X.S.tocsc(), X.shape
    forms = np.empty(p)
    width = max(1, values // n)
    for begin in range(0, p, width):
        some = slice(begin, begin + width)
        dense = columns[:, some].toarray() - X.offset[some]
        forms[some] = np.einsum("ij,ij->j", dense, K @ dense)
    return forms


def take(X: Table | csr_array, rows: Int[Array, " m"]) -> Any:
    """The rows with the given ascending indices, sparse ones of a sparse table; consecutive ones as one slice of it."""
    together = consecutive(rows)
    if together is None:
        return X[rows]
    return view(X, together) if isinstance(X, csr_array) else X[together]


def consecutive(rows: Int[Array, " m"]) -> slice | None:
    """The slice that the given ascending rows are; None where they have gaps, or there are none."""
    if not len(rows) or rows[-1] - rows[0] != len(rows) - 1:
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1)


def transposed(X: csr_array) -> csc_array:
    """The transpose in the same arrays; scipy's constructor copies those of a view."""
    other = csc_array(X.shape[::-1], dtype=X.dtype)
    other.data, other.indices, other.indptr = X.data, X.indices, X.indptr
    return other


def view(X: csr_array, rows: slice) -> csr_array:
    """Consecutive rows of a sparse table, as part of its own arrays; scipy's slices and constructors copy them."""
    pointers = X.indptr[rows.start : rows.stop + 1]
    part = csr_array((len(pointers) - 1, X.shape[1]), dtype=X.dtype)
    part.data = X.data[pointers[0] : pointers[-1]]
    part.indices = X.indices[pointers[0] : pointers[-1]]
    part.indptr = pointers - pointers[0]
    return part


def centred(X: Table | csr_array, rows: Int[Array, " m"], offset: Float[Array, " p"]) -> Rows:
    """The rows with the given ascending indices less the offset; those of a sparse table stay sparse."""
    part = take(X, rows)
    return SparseRows(part, offset) if isinstance(part, csr_array) else part - offset


def rows_at_a_time(X: Table | csr_array, values: int) -> int:
    """How many rows hold about `values` stored values."""
    n, p = X.shape
    stored = X.nnz // max(n, 1) if isinstance(X, csr_array) else p
    return max(1, values // (stored + 2))


def mean_and_variance(
    X: Table | csr_array, rows: Int[Array, " m"], weights: Float[Array, " m"]
) -> tuple[Float[Array, " p"], Float[Array, " p"]]:
    """Weighted means and variances of the columns over the given rows; exactly zero where a column is constant.

    Reads the rows in two passes, a few at a time.
    """
    share = weights / weights.sum()
    if isinstance(X, csr_array):
        return _sparse_mean_and_variance(X, rows, share)
    size = rows_at_a_time(X, CHUNK_VALUES)
    pieces = [slice(begin, begin + size) for begin in range(0, len(rows), size)]
    p = X.shape[1]
    mean, low, high = np.zeros(p), np.full(p, np.inf), np.full(p, -np.inf)
    for some in pieces:
        part = take(X, rows[some])
        mean += share[some] @ part
        used = part[share[some] > 0]
        low, high = np.minimum(low, used.min(axis=0, initial=np.inf)), np.maximum(high, used.max(0, initial=-np.inf))
    variance = np.zeros(p)
    for some in pieces:
        variance += share[some] @ (take(X, rows[some]) - mean) ** 2
    return mean, np.where(high > low, variance, 0.0)


def _sparse_mean_and_variance(
    X: csr_array, rows: Int[Array, " m"], share: Float[Array, " m"]
) -> tuple[Float[Array, " p"], Float[Array, " p"]]:
    p, size = X.shape[1], rows_at_a_time(X, SPARSE_CHUNK_VALUES)
    pieces = [slice(begin, begin + size) for begin in range(0, len(rows), size)]
    mean, example, stored = np.zeros(p), np.zeros(p), np.zeros(p)
    for some in pieces:
        part = take(X, rows[some])
        mean += share[some] @ part
        counted = np.repeat(share[some] > 0, np.diff(part.indptr))
        example[part.indices[counted]] = part.data[counted]
        stored += np.bincount(part.indices[counted], minlength=p)
    squares, weight = np.zeros(p), np.zeros(p)
    differs = (stored < np.count_nonzero(share)) & (example != 0)  # from the zeros that are not stored
    for some in pieces:
        part = take(X, rows[some])
        by_entry = np.repeat(share[some], np.diff(part.indptr))
        squares += np.bincount(part.indices, by_entry * (part.data - mean[part.indices]) ** 2, minlength=p)
        weight += np.bincount(part.indices, by_entry, minlength=p)
        differs[part.indices[(by_entry > 0) & (part.data != example[part.indices])]] = True
    return mean, np.where(differs, squares + np.maximum(1.0 - weight, 0.0) * mean**2, 0.0)
