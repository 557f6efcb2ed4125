"""Preconditioned conjugate gradients for several right-hand sides at once (Hestenes and Stiefel 1952)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from worker.core.records import Array

Operator = Callable[[Float[Array, "p f"]], Float[Array, "p f"]]


def conjugate_gradients(
    apply: Operator,
    precondition: Operator,
    B: Float[Array, "p f"],
    tolerance: float,
    most: int,
    start: Float[Array, "p f"] | None = None,
) -> Float[Array, "p f"]:
    """X with `H X = B`, H positive definite; a column stops once its residual is small enough, or after `most` steps.

    Small enough: `sqrt(r^T M^-1 r) <= tolerance sqrt(b^T M^-1 b)` with the preconditioner M.
    """
    X = np.zeros_like(B) if start is None else start.copy()
    R = B.copy() if start is None else B - apply(X)
    goal = tolerance**2 * _inner(B, precondition(B))
    Z = precondition(R)
    P, size = Z.copy(), _inner(R, Z)
    for _ in range(most):
        running = size > goal
        if not running.any():
            break
        Q = apply(P)
        curvature = _inner(P, Q)
        moving = running & (curvature > 0)
        if not moving.any():
            break
        step = np.where(moving, size / np.where(moving, curvature, 1.0), 0.0)
        X += step * P
        Q *= step
        R -= Q
        Z = precondition(R)
        new = _inner(R, Z)
        P *= np.where(size > 0, new / np.where(size > 0, size, 1.0), 0.0)
        P += Z
        size = new
    return X


def _inner(A: Float[Array, "p f"], B: Float[Array, "p f"]) -> Float[Array, " f"]:
    return np.einsum("ij,ij->j", A, B)
