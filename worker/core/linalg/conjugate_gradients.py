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
    max_steps: int,
    start: Float[Array, "p f"] | None = None,
) -> Float[Array, "p f"]:
    """Solve `H X = B` for a positive definite H, in at most `max_steps` steps.

    A column stops once its residual r meets `sqrt(r^T M^-1 r) <= tolerance sqrt(b^T M^-1 b)`, M the preconditioner.
    """
    X = np.zeros_like(B) if start is None else start.copy()
    R = B.copy() if start is None else B - apply(X)
    target_r_z = tolerance**2 * _inner(B, precondition(B))
    Z = precondition(R)
    P, r_z = Z.copy(), _inner(R, Z)
    for _ in range(max_steps):
        running = r_z > target_r_z
        if not running.any():
            break
        Q = apply(P)
        curvature = _inner(P, Q)
        moving = running & (curvature > 0)
        if not moving.any():
            break
        step = np.where(moving, r_z / np.where(moving, curvature, 1.0), 0.0)
        X += step * P
        Q *= step
        R -= Q
        Z = precondition(R)
        new_r_z = _inner(R, Z)
        P *= np.where(r_z > 0, new_r_z / np.where(r_z > 0, r_z, 1.0), 0.0)
        P += Z
        r_z = new_r_z
    return X


def _inner(A: Float[Array, "p f"], B: Float[Array, "p f"]) -> Float[Array, " f"]:
    return np.einsum("ij,ij->j", A, B)
