"""Penalized least squares through an orthogonal factorization of the rows.

Moments square the condition number of the rows. An orthogonal factorization does not, and costs several times as much.
It is for small tables whose moments lose too many digits, and for the certificate that compares both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import qr, solve_triangular

from worker.core.inner.least_squares.in_penalties import InPenalties
from worker.core.inner.least_squares.primal import SMALLEST_KEPT_FRACTION, CentredSystem, PrimalFit
from worker.core.records import Array

SMALLEST_PIVOT = 1e-14  # relative to the norm of a column; a smaller one is rounding


@dataclass(frozen=True, slots=True)
class OrthogonalRidge(CentredSystem):
    """The minimizer of `PrimalRidge` from rows about their mean. `Z` and `y` are multiplied by `root`.

    `root` holds the roots of the shares of the rows. Without an intercept the mean is a row of its own, the first:
    differences of rows far from zero then keep their digits.
    """

    Z: Float[Array, "n p"]
    y: Float[Array, " n"]
    root: Float[Array, " m"]
    solver: Literal["orthogonal"] = "orthogonal"

    def fit(self, lam: Float[Array, " k"]) -> PrimalFit | None:
        """The minimizer, or None if the rows and the penalty leave it undetermined to working precision."""
        penalty = self.penalty.at(lam)
        A = np.vstack([self.Z, penalty.root()])
        own_mean = len(self.Z) - len(self.root)  # it says nothing of the size of the other rows
        factors = Orthogonal.of(A, np.linalg.norm(A[own_mean:], axis=0))
        if factors is None:
            return None
        theta, rest = factors.least_squares(self.y)
        in_rho, minimum = InPenalties(penalty, theta), float(rest @ rest) / 2
        return PrimalFit(theta, in_rho, factors.lower(), self.Z.T @ self.Z, self.y @ self.Z, minimum)

    def leaves_little_of_a_row(self, lam: Float[Array, " k"], fraction: float = SMALLEST_KEPT_FRACTION) -> bool:
        """Whether a row has a leverage that leaves less than this fraction of one."""
        factors, m = Orthogonal.of(np.vstack([self.Z, self.penalty.at(lam).root()])), len(self.root)
        if factors is None:
            return True
        own_mean = len(self.Z) > m
        of_rows = factors.Q[own_mean : m + own_mean] + (np.outer(self.root, factors.Q[0]) if own_mean else 0.0)
        leverages = (of_rows**2).sum(axis=1) + (0.0 if own_mean else self.root**2)
        return bool(leverages.max() > 1.0 - fraction)


def least_squares(
    A: Float[Array, "m p"], b: Float[Array, " n"]
) -> tuple[Float[Array, "p p"], Float[Array, " p"], float] | None:
    """`L` with `A^T A = L L^T`, the minimizer of `|A theta - b|^2`, and its value; None if A has not full rank.

    `b` is followed by zeros.
    """
    factors = Orthogonal.of(A)
    if factors is None:
        return None
    theta, rest = factors.least_squares(b)
    return factors.lower(), theta, float(rest @ rest)


@dataclass(frozen=True, slots=True)
class Orthogonal:
    """`A[:, pivots] = Q R` with orthonormal columns of Q.

    Householder reflections with column pivoting keep the digits of each row of A if the rows come in the order of their
    size (Powell and Reid 1969; Cox and Higham 1998).
    """

    Q: Float[Array, "m n"]
    R: Float[Array, "n n"]
    pivots: Int[Array, " n"]

    @classmethod
    def of(cls, A: Float[Array, "m n"], norms: Float[Array, " n"] | None = None) -> Orthogonal | None:
        """The factors; None if A has not full column rank: a pivot is rounding relative to the `norms` of columns."""
        order = np.argsort(-np.abs(A).max(axis=1), kind="stable")
        Q, R, pivots = qr(A[order], mode="economic", pivoting=True, check_finite=False)
        if len(R) < A.shape[1] or not np.isfinite(R).all():
            return None
        norms = np.linalg.norm(A, axis=0) if norms is None else norms
        if not (np.abs(np.diag(R)) > SMALLEST_PIVOT * norms[pivots]).all():
            return None
        whole = np.empty_like(Q)
        whole[order] = Q
        return cls(whole, R, pivots)

    def least_squares(self, b: Float[Array, " r"]) -> tuple[Float[Array, " n"], Float[Array, " m"]]:
        """The minimizer of `|A x - b|`, and the residual `b - A x`; zeros follow b."""
        padded = np.append(b, np.zeros(len(self.Q) - len(b)))
        product, x = padded @ self.Q, np.empty(len(self.R))
        x[self.pivots] = solve_triangular(self.R, product, check_finite=False)
        return x, padded - self.Q @ product

    def solve_transposed(self, b: Float[Array, " n"]) -> Float[Array, " n"]:
        """W with `A^T Q w = b`."""
        return solve_triangular(self.R, b[self.pivots], trans="T", check_finite=False)

    def lower(self) -> Float[Array, "n n"]:
        """The lower L with `A^T A = L L^T` and a positive diagonal."""
        whole = np.empty_like(self.R)
        whole[:, self.pivots] = self.R
        (T,) = qr(whole, mode="r", check_finite=False)
        return np.asfortranarray((np.sign(np.diag(T))[:, None] * T).T)
