"""Triangular solves, symmetric products and rank-one updates: BLAS of double precision, levels 2 and 3.

Matrices in Fortran order save a copy. Of symmetric results only the lower triangle is defined.
"""

from __future__ import annotations

from jaxtyping import Float
from scipy.linalg import blas

from worker.core.records import Array


def solve_lower(
    L: Float[Array, "m m"], B: Float[Array, " m *f"], *, transposed: bool = False, overwrite: bool = False
) -> Float[Array, " m *f"]:
    """`L^-1 B`, or `L^-T B`, with the lower triangle of L."""
    if B.ndim == 1:
        return blas.dtrsv(L, B, lower=1, trans=transposed, overwrite_x=overwrite)
    return blas.dtrsm(1.0, L, B, lower=1, trans_a=transposed, overwrite_b=overwrite)


def solve_lower_right(
    L: Float[Array, "m m"], B: Float[Array, "f m"], *, transposed: bool = False, overwrite: bool = False
) -> Float[Array, "f m"]:
    """`B L^-1`, or `B L^-T`, with the lower triangle of L."""
    return blas.dtrsm(1.0, L, B, side=1, lower=1, trans_a=transposed, overwrite_b=overwrite)


def outer_product(A: Float[Array, "m n"]) -> Float[Array, "m m"]:
    """The lower triangle of `A A^T`, at half the cost of a product."""
    return blas.dsyrk(1.0, A, lower=1)


def add_outer_product(M: Float[Array, "m m"], A: Float[Array, "m n"]) -> None:
    """`M += A A^T` in the lower triangle of M, which must be Fortran-ordered."""
    blas.dsyrk(1.0, A, beta=1.0, c=M, lower=1, overwrite_c=1)


def subtract_square(M: Float[Array, "m m"], x: Float[Array, " m"]) -> Float[Array, "m m"]:
    """`M - x x^T` in the lower triangle; overwrites M, which must be Fortran-ordered."""
    return blas.dsyr(-1.0, x, lower=1, a=M, overwrite_a=1)


def add_outer(M: Float[Array, "m n"], x: Float[Array, " m"], y: Float[Array, " n"]) -> Float[Array, "m n"]:
    """`M + x y^T`; overwrites M, which must be Fortran-ordered."""
    return blas.dger(1.0, x, y, a=M, overwrite_a=1)
