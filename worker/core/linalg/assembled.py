"""A symmetric positive definite matrix that is a linear function of a few numbers, factored dense, banded or sparse.

The pattern of the entries alone decides which of them costs least. The lower half of a band has `p (w + 1)` entries; w
is the largest distance of an entry from the diagonal after Cuthill and McKee's reordering. One thread takes about 20 ns
per entry of the band, 10 ns per entry of a dense matrix and 130 ns per entry of a sparse factor. How many more entries
a sparse factor has than the matrix is known only after it is computed: 2 times as many in a chain with a few loops,
7 times in a grid of 150 x 150, 20 times in a random graph with six neighbours each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import lapack
from scipy.sparse import csc_array, csr_array
from scipy.sparse.csgraph import reverse_cuthill_mckee
from scipy.sparse.linalg import SuperLU, splu

from worker.core.linalg import cholesky
from worker.core.records import Array

Shape = Literal["dense", "banded", "sparse"]
BAND_ENTRY_COST = 2.0  # of an entry of a band, in entries of a dense matrix
SPARSE_ENTRY_COST = 200.0  # of an entry of a sparse matrix with its likely fill-in, in entries of a dense matrix


@runtime_checkable
class Factor(Protocol):
    """A factored matrix H."""

    @property
    def L(self) -> Float[Array, "p p"] | None:
        """The lower Cholesky factor as a dense matrix; None if there is none."""

    def solve(self, b: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
        """`H^-1 b`."""


@dataclass(frozen=True, slots=True)
class DenseFactor:
    """The lower Cholesky factor L."""

    L: Float[Array, "p p"]

    def solve(self, b: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
        """`H^-1 b`."""
        return cholesky.solve(self.L, b)


@dataclass(frozen=True, slots=True)
class BandedFactor:
    """The lower Cholesky factor of H permuted by `order`; `bands[d]` is its d-th subdiagonal."""

    bands: Float[Array, "w1 p"]
    order: Int[Array, " p"]
    L: ClassVar[None] = None

    def solve(self, b: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
        """`H^-1 b`."""
        x, info = lapack.dpbtrs(self.bands, b[self.order], lower=1, overwrite_b=1)
        if info != 0:
            raise ValueError(f"dpbtrs refused argument {-info}")
        out = np.empty_like(b)
        out[self.order] = x.reshape(b.shape)
        return out


@dataclass(frozen=True, slots=True)
class SparseFactor:
    """`L D L^T` of H by SuperLU (Li 2005); for a definite H its pivots are on the diagonal."""

    lu: SuperLU
    L: ClassVar[None] = None

    def solve(self, b: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
        """`H^-1 b`."""
        return self.lu.solve(np.asfortranarray(b))


@dataclass(frozen=True, slots=True)
class Assembly:
    """`H = sum_j h_j A_j` by entries: the lower triangle of the joint pattern of all A_j.

    `values @ h` are the entries at `rows` and `columns`, numbered after the reordering by `order`. `width` is the width
    of the band. `full` is the pattern of both triangles of a sparse H; its entries are `(values @ h)[source]`.
    """

    shape: Shape
    p: int
    order: Int[Array, " p"]
    rows: Int[Array, " m"]
    columns: Int[Array, " m"]
    values: csr_array
    width: int
    full: csc_array
    source: Int[Array, " s"]

    @classmethod
    def build(cls, matrices: tuple[csr_array, ...], shape: Shape | None = None) -> Assembly:
        """From symmetric matrices of one size; without a `shape` the cheapest is chosen."""
        p = matrices[0].shape[0]
        parts = [A.tocoo() for A in matrices]
        j = np.repeat(np.arange(len(parts)), [part.nnz for part in parts])
        rows, columns = (np.concatenate([part.coords[axis] for part in parts]) for axis in (0, 1))
        entries = np.concatenate([part.data for part in parts])
        pattern = csr_array((np.ones(len(rows)), (rows, columns)), shape=(p, p))
        order, width = _band_order(pattern)
        shape = cheapest(p, width, (pattern.nnz + p) // 2) if shape is None else shape
        if shape != "banded":
            order = np.arange(p)
        position = np.empty(p, int)
        position[order] = np.arange(p)
        rows, columns = position[rows], position[columns]
        lower = rows >= columns
        keys, entry = np.unique(rows[lower].astype(np.int64) * p + columns[lower], return_inverse=True)
        values = csr_array((entries[lower], (entry, j[lower])), shape=(len(keys), len(parts)))
        rows, columns = np.divmod(keys, p)
        return cls(shape, p, order, rows, columns, values, width, *_full_pattern(p, rows, columns))

    def factor(self, h: Float[Array, " k1"]) -> Factor | None:
        """The factor of `sum_j h_j A_j`; None if it is not positive definite to working precision."""
        entries = self.values @ h
        if not np.isfinite(entries).all():
            return None
        if self.shape == "dense":
            H = np.zeros((self.p, self.p), order="F")
            H[self.rows, self.columns] = entries
            L = cholesky.factor_in_place(H)
            return None if L is None else DenseFactor(L)
        if self.shape == "banded":
            bands = np.zeros((self.width + 1, self.p), order="F")
            bands[self.rows - self.columns, self.columns] = entries
            bands, info = lapack.dpbtrf(bands, lower=1, overwrite_ab=1)
            return None if info != 0 else BandedFactor(bands, self.order)
        return self._factor_sparse(entries)

    def _factor_sparse(self, entries: Float[Array, " m"]) -> SparseFactor | None:
        """With pivots on the diagonal only: H is positive definite exactly if all of them are positive."""
        H = csc_array((entries[self.source], self.full.indices, self.full.indptr), shape=(self.p, self.p))
        try:
            lu = splu(H, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        except RuntimeError:  # a pivot is exactly zero
            return None
        definite = (lu.perm_r == lu.perm_c).all() and (lu.U.diagonal() > 0).all()
        return SparseFactor(lu) if definite else None


def cheapest(p: int, width: int, entries: int) -> Shape:
    """The cheapest factorization of a p x p matrix with `entries` nonzeros in its lower triangle."""
    dense, banded = float(p) * p, BAND_ENTRY_COST * p * (width + 1)
    if SPARSE_ENTRY_COST * entries < min(dense, banded):
        return "sparse"
    return "banded" if banded < dense else "dense"


def _band_order(pattern: csr_array) -> tuple[Int[Array, " p"], int]:
    """An order of rows and columns and the width of its band: the given order, or a narrower one."""
    p = pattern.shape[0]
    rows, columns = pattern.nonzero()
    given = int(np.abs(rows - columns).max(initial=0))
    order = reverse_cuthill_mckee(pattern, symmetric_mode=True).astype(int)
    position = np.empty(p, int)
    position[order] = np.arange(p)
    width = int(np.abs(position[rows] - position[columns]).max(initial=0))
    return (order, width) if width < given else (np.arange(p), given)


def _full_pattern(p: int, rows: Int[Array, " m"], columns: Int[Array, " m"]) -> tuple[csc_array, Int[Array, " s"]]:
    """The pattern of both triangles, and for each of its places the index of the entry in the lower triangle."""
    below = np.flatnonzero(rows != columns)
    entry = np.concatenate([np.arange(len(rows)), below])
    places = np.concatenate([rows, columns[below]]), np.concatenate([columns, rows[below]])
    full = csc_array((entry + 1.0, places), shape=(p, p))  # counted from 1, as zeros might be dropped
    full.sort_indices()
    return full, full.data.astype(int) - 1
