"""Cholesky factor `H = L L^T` of a symmetric positive definite matrix: factor, solve, pullback.

Matrices are Fortran-ordered and only their lower triangle is read. The upper triangle of a factor is undefined.
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Bool, Float
from scipy.linalg import lapack

from worker.core.linalg.triangular import solve_lower, solve_lower_right
from worker.core.records import Array

PULLBACK_COLUMNS = (
    128  # columns that `pullback` sweeps at a time; flat optimum between 64 and 256 for p from 500 to 4000
)


def diagonal_of(A: Float[Array, "p p"]) -> Float[Array, " p"]:
    """The diagonal as a writable view."""
    return np.einsum("ii->i", A)


def factor_in_place(H: Float[Array, "p p"]) -> Float[Array, "p p"] | None:
    """Lower factor of `H`, overwriting it; None if `H` is not positive definite to working precision.

    No jitter is ever added: an indefinite matrix is an outcome that the caller reports.
    """
    L, info = lapack.dpotrf(H, lower=1, clean=0, overwrite_a=1)
    return L if info == 0 else None


def solve(L: Float[Array, "p p"], b: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
    """`H^-1 b` for one or several right-hand sides, by two triangular solves."""
    if b.ndim == 1:  # dpotrs takes more than twice the time for one right-hand side
        return solve_lower(L, solve_lower(L, b), transposed=True, overwrite=True)
    x, info = lapack.dpotrs(L, b, lower=1)
    if info != 0:
        raise ValueError(f"dpotrs refused argument {-info}")
    return x


def inverse(L: Float[Array, "p p"]) -> Float[Array, "p p"]:
    """`H^-1`, both triangles, for callers that need every column: a third of the flops of p solves."""
    lower, info = lapack.dpotri(L, lower=1)
    if info != 0:
        raise ValueError(f"dpotri refused argument {-info}")
    np.copyto(lower.T, lower, where=_below_diagonal(len(L)))
    return lower


@functools.lru_cache(maxsize=4)
def _below_diagonal(p: int) -> Bool[Array, "p p"]:
    mask = np.tri(p, p, -1, dtype=bool)
    mask.setflags(write=False)
    return mask


def pullback(L: Float[Array, "p p"], L_bar: Float[Array, "p p"]) -> Float[Array, "p p"]:
    """Symmetric cotangent `H_bar` of `H` from the cotangent `L_bar` of its factor, so that `<L_bar, dL> = <H_bar, dH>`.

    Blocked level-3 reverse sweep (Murray 2016, arXiv:1602.07527, section 4.2), twice the flops of the factorization.
    Each block of columns collects the contributions of all later blocks in one product.
    """
    p = len(L)
    W = np.empty((p, p), order="F")  # 2 H_bar, filled from the last block to the first
    for end in range(p, 0, -PULLBACK_COLUMNS):
        begin = max(0, end - PULLBACK_COLUMNS)
        D = np.array(np.tril(L[begin:end, begin:end]), order="F")
        D_bar = L_bar[begin:end, begin:end]
        if end < p:
            C = L[end:, begin:end]
            C_bar = np.asfortranarray(L_bar[end:, begin:end] - W[end:, end:] @ C)
            C_bar = solve_lower_right(D, C_bar, overwrite=True)
            W[end:, begin:end] = C_bar
            W[begin:end, end:] = C_bar.T
            D_bar = D_bar - C_bar.T @ C
        W[begin:end, begin:end] = _pullback_block(D, np.tril(D_bar))
    W *= 0.5
    return W


def _pullback_block(L: Float[Array, "b b"], L_bar: Float[Array, "b b"]) -> Float[Array, "b b"]:
    """Twice the symmetric cotangent of one diagonal block, `L^-T (P + P^T) L^-1` (Murray 2016, eq. 10)."""
    P = np.tril(L.T @ L_bar)
    diagonal_of(P)[...] /= 2
    half = solve_lower(L, np.asfortranarray(P + P.T), transposed=True)
    S = solve_lower_right(L, half)
    S *= 0.5
    return S + S.T


def solve_bar(
    L: Float[Array, "m m"], b: Float[Array, " m"], x: Float[Array, " m"], x_bar: Float[Array, " m"]
) -> tuple[Float[Array, "m m"], Float[Array, " m"]]:
    """Cotangents of L and b in `x = (L L^T)^-1 b`, through both triangular solves.

    `L v = b` and `L^T x = v` give `v_bar = L^-1 x_bar`, `b_bar = L^-T v_bar`, `L_bar = -x v_bar^T - b_bar v^T`.
    """
    v = solve_lower(L, b)
    v_bar = solve_lower(L, x_bar)
    b_bar = solve_lower(L, v_bar, transposed=True)
    return -np.outer(x, v_bar) - np.outer(b_bar, v), b_bar
