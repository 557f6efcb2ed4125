"""How the predictors of approximate leave-one-out move with the hyperparameters, in forward mode.

With `K_i = I - Q_i C_i` the correction `b_i = K_i^-1 Q_i a_i` moves by
`K_i b_dot = Q_dot (a + C b) + Q (a_dot + C_dot b)`, where `Q_i = Z_i^T H^-1 Z_i` moves by `-Z_i^T H^-1 H_dot H^-1 Z_i`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from worker.core.inner.smooth.fit import GeneralizedLinearFit
from worker.core.objective.linear_tangents import sensitivity_of
from worker.core.objective.one_smooth_fit import inverse_hessian, output_pairs
from worker.core.records import Array


class TermsInRho:
    """The terms of the rows in C at a fit: how their predictors, slopes a and curvatures C move with rho."""

    def __init__(self, fit: GeneralizedLinearFit, chosen: Int[Array, " f"]) -> None:
        at, k = fit.at, fit.penalty.of.k
        shares_dot = np.zeros((len(at.eta), len(chosen)))
        shares_dot[:, chosen >= k] = fit.shares.w_dot[:, chosen[chosen >= k] - k]
        w, curvatures = fit.shares.w[:, None, None], at.rows.curvatures()
        self.eta_dot = at.of.design.along(sensitivity_of(fit, chosen))
        self.a_dot = at.rows.slope[:, :, None] * shares_dot[:, None] + w * (curvatures @ self.eta_dot)
        self.C_dot = curvatures[..., None] * shares_dot[:, None, None]
        for a, b in output_pairs(at.of.m):
            direction = np.zeros((at.of.m, at.of.m))
            direction[a, b] += 0.5
            direction[b, a] += 0.5
            third = at.rows.third_contract(np.broadcast_to(direction, curvatures.shape))
            moved = fit.shares.w[:, None] * np.einsum("nc,ncf->nf", third, self.eta_dot)
            self.C_dot[:, a, b] += moved
            if a != b:
                self.C_dot[:, b, a] += moved


def moved_forms(
    fit: GeneralizedLinearFit, C_dot: Float[Array, "n m m f"], chosen: Int[Array, " f"]
) -> Float[Array, "n m m f"]:
    """`Q_dot = -W_i^T H_dot W_i` with the columns `W_i = H^-1 Z_i`; H moves with the penalties and with `C_dot`.

    The terms of the rows enter through their products with each other, or through one matrix like H for each
    hyperparameter if that is less work.
    """
    design, m, penalties = fit.at.of.design, fit.at.of.m, chosen < fit.penalty.of.k
    W = design.along(inverse_hessian(fit))
    out = np.zeros_like(C_dot)
    for a, b in output_pairs(m):
        forms = fit.penalty.forms(W[:, a])
        if a != b:
            forms = (fit.penalty.forms(W[:, a] + W[:, b]) - fit.penalty.forms(W[:, a] - W[:, b])) / 4
        out[:, a, b, penalties] = out[:, b, a, penalties] = -forms[:, chosen[penalties]]
    if len(W) * m**2 <= 2 * design.q**2:
        products = design.along(np.ascontiguousarray(W.reshape(-1, W.shape[2]).T)).reshape(len(W), m, len(W), m)
        for a, b in output_pairs(m):
            moved = sum(
                (products[:, c, :, a] * products[:, d, :, b]).T @ C_dot[:, c, d] for c in range(m) for d in range(m)
            )
            out[:, a, b] -= moved
            if a != b:
                out[:, b, a] -= moved
        return out
    for j in range(len(chosen)):
        H_dot = design.gram([(a, b, C_dot[:, a, b, j]) for a, b in output_pairs(m)], m)
        out[..., j] -= (W @ H_dot) @ W.transpose(0, 2, 1)
    return out
