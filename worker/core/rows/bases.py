"""B-spline bases that replace columns of a table; they are evaluated when rows are read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.interpolate import BSpline
from scipy.sparse import csr_array

from worker.core.records import Array
from worker.core.rows.tables import Table


@dataclass(frozen=True, slots=True)
class Basis:
    """`size` B-splines of one column without their constant direction: `B Q`, with `Q^T Q = 1` and `Q^T 1 = 0`.

    The B-splines of a row sum to one, which the intercept already provides. `[1 / sqrt(size), Q]` is the Householder
    reflection that maps the first unit vector to the constant direction. Outside the range the functions keep their
    values at its ends; a `cyclic` basis repeats itself instead.
    """

    column: int
    feature: str
    knots: Float[Array, " t"]
    degree: int
    size: int
    cyclic: bool

    @property
    def range(self) -> tuple[float, float]:
        """The lower and the upper end of the range, or of the period."""
        return float(self.knots[self.degree]), float(self.knots[len(self.knots) - self.degree - 1])

    def __call__(self, x: Float[Array, " m"]) -> Float[Array, "m s1"]:
        """The columns `B Q` of `size - 1` functions at x."""
        low, high = self.range
        inside = np.clip(low + np.mod(x - low, high - low) if self.cyclic else x, low, high)
        B = BSpline.design_matrix(inside, self.knots, self.degree).toarray()
        B[:, : B.shape[1] - self.size] += B[:, self.size :]  # functions that cross the end of a period
        v = _reflector(self.size)
        return B[:, 1 : self.size] - np.outer(B[:, : self.size] @ v, 2.0 * v[1:])

    def coefficients(self, theta: Float[Array, " s1"]) -> Float[Array, " c"]:
        """The `c` such that `scipy.interpolate.BSpline(knots, c, degree)` equals the term inside the range."""
        c = contrast(self.size) @ theta
        return np.append(c, c[: self.degree]) if self.cyclic else c


def contrast(m: int) -> Float[Array, "m m1"]:
    """The matrix Q with orthonormal columns that sum to zero."""
    v = _reflector(m)
    return (np.eye(m) - 2.0 * np.outer(v, v))[:, 1:]


def _reflector(m: int) -> Float[Array, " m"]:
    """The unit vector of the Householder reflection between the first unit vector and the constant direction."""
    v = np.full(m, 1.0 / np.sqrt(m))
    v[0] -= 1.0
    return v / np.linalg.norm(v)


@dataclass(frozen=True, slots=True)
class Expansion:
    """The columns `kept`, and the bases that replace the others; their columns follow the kept ones."""

    kept: Int[Array, " q"]
    bases: tuple[Basis, ...]

    def of(self, X: Table | csr_array) -> Expanded:
        """The table with its columns replaced."""
        assert not isinstance(X, csr_array)
        return Expanded(X, self)

    def terms(self, coefficients: Float[Array, " p"]) -> list[tuple[Basis, Float[Array, " c"]]]:
        """Each basis with the B-spline coefficients of its term."""
        ends = len(self.kept) + np.cumsum([basis.size - 1 for basis in self.bases])
        parts = np.split(coefficients, [len(self.kept), *ends[:-1]])[1:]
        return [(basis, basis.coefficients(part)) for basis, part in zip(self.bases, parts, strict=True)]


@dataclass(frozen=True, slots=True)
class Expanded:
    """The table `X` with columns replaced by the expansion `by`."""

    X: Table
    by: Expansion

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.X.shape[0], len(self.by.kept) + sum(basis.size - 1 for basis in self.by.bases)

    def __getitem__(self, rows: slice | Int[Array, " m"]) -> Float[Array, "m p"]:
        """The rows: kept columns first, then the columns of the bases."""
        part = np.asarray(self.X[rows])
        return np.hstack([part[:, self.by.kept], *(basis(part[:, basis.column]) for basis in self.by.bases)])
