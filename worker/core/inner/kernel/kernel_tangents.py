"""How a kernel machine moves with its hyperparameters, by the implicit function theorem in forward mode.

The predictors are `f = K theta + b` with `lam theta = -g`, g the slopes of the losses at f, and with an intercept
`1^T g = 0`. D holds the derivatives of g, the curvatures. The first hyperparameter is the logarithm of lam, the others
are those of the kernel. One factor serves all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from worker.core.inner.kernel.newton_model import KernelMinimum, ModelOfLandmarks, ModelOfRows
from worker.core.linalg import cholesky
from worker.core.linalg.triangular import solve_lower
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class MachineTangents:
    """The derivatives in rho of the coefficients of the support rows, and of the intercept."""

    coefficients: Float[Array, "s k"]
    b: Float[Array, " k"]


def tangents_of_rows(model: ModelOfRows, at: KernelMinimum, moved: Float[Array, "n q"]) -> MachineTangents:
    """Of a machine with a coefficient for each training row; `moved` is `dK/drho_j theta` for the kernel's part.

    With `theta_dot = phi`, for the penalty `phi - theta`, all hyperparameters have the same form:
    `lam phi + D (K phi + b_dot) = -D r` and `1^T phi = 0`, r the change of f with phi and b held. A straight row has no
    phi; for the curved rows, `phi = R x` with `(lam I + R K R) x + R b_dot = -R r` and `R = sqrt(D)`.
    """
    r = np.column_stack([at.b - at.f, moved])
    curved, phi = at.D > 0, np.zeros_like(r)
    R = np.sqrt(at.D[curved])
    b_dot = -at.held @ r
    if len(R):
        solved = cholesky.solve(at.L, np.column_stack([-R[:, None] * r[curved], R]))
        x, of_b = solved[:, :-1], solved[:, -1]
        b_dot = (R @ x) / (R @ of_b) if model.intercept else np.zeros(r.shape[1])
        phi[curved] = R[:, None] * (x - np.outer(of_b, b_dot))
    phi[:, 0] -= at.theta
    return MachineTangents(phi, b_dot)


@dataclass(frozen=True, slots=True)
class MovedLandmarks:
    """The derivatives of the matrices of a machine with landmarks in the kernel's hyperparameters, as products.

    `of_rows` is `dK_nm/drho_j gamma`, `back` is `dK_mn/drho_j g`, and `among` is `dK_mm/drho_j gamma` with the nugget.
    """

    of_rows: Float[Array, "n q"]
    back: Float[Array, "m q"]
    among: Float[Array, "m q"]


def tangents_of_landmarks(
    model: ModelOfLandmarks, at: KernelMinimum, C: Float[Array, "m m"], moved: MovedLandmarks
) -> MachineTangents:
    """Of a machine with a coefficient for each landmark: `lam K_mm gamma + K_mn g = 0` with `K_mm = C C^T`.

    With `u = C^T gamma_dot` and `Phi = K_nm C^-T` the derivative of the condition, times `C^-1`, is the system of
    Newton's model: `(lam I + Phi^T D Phi) u + Phi^T D b_dot = -C^-1 (lam dK_mm gamma + dK_mn g) - Phi^T D dK_nm gamma`,
    for the penalty `-lam theta`; and `1^T D (Phi u + b_dot) = -1^T D dK_nm gamma`.
    """
    of_rows = np.column_stack([np.zeros(len(at.f)), moved.of_rows])
    of_kernel = model.lam * moved.among + moved.back
    right = -solve_lower(C, np.asfortranarray(np.column_stack([np.zeros(len(C)), of_kernel])))
    right[:, 0] -= model.lam * at.theta
    right -= model.Phi.T @ (at.D[:, None] * of_rows)
    if not at.D.any():
        u = right / model.lam
        b_dot = -at.held @ (model.Phi @ u + of_rows)
    elif model.intercept:
        solved = cholesky.solve(at.L, np.asfortranarray(np.vstack([-at.D @ of_rows, right])))
        b_dot, u = solved[0], solved[1:]
    else:
        b_dot, u = np.zeros(right.shape[1]), cholesky.solve(at.L, np.asfortranarray(right))
    return MachineTangents(solve_lower(C, np.asfortranarray(u), transposed=True), b_dot)
