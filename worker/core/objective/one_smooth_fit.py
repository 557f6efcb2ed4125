"""What criteria from one fit of a generalized linear model share: approximate leave-one-out, Laplace evidence.

Both depend on the Hessian H of the training criterion at its minimum. H depends on theta, so the adjoint equation has
a term with the third derivative of the loss. `Q_i = Z_i^T H^-1 Z_i` is a matrix over the outputs of row i. If its
cotangent is `A_i`, the cotangent of H is `-M` with `M = H^-1 (sum_i Z_i A_i Z_i^T) H^-1`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from worker.core.inner.smooth.fit import GeneralizedLinearFit
from worker.core.linalg import cholesky
from worker.core.objective.fits import AnchoredFits
from worker.core.records import Array
from worker.core.rows.design import Design


def only_fit(fits: AnchoredFits, rho: Float[Array, " k"]) -> GeneralizedLinearFit | None:
    """The fit of the only split; None if training has no minimizer."""
    held = fits.at(rho)
    return None if held is None else held[0]


def row_forms(design: Design, P: Float[Array, "mq mq"], m: int) -> Float[Array, "n m m"]:
    """`z_i^T P_ab z_i` for each row and pair of outputs; P symmetric."""
    q = design.q
    out = np.empty((len(design), m, m))
    for a, b in output_pairs(m):
        block = P[a * q : (a + 1) * q, b * q : (b + 1) * q]
        out[:, a, b] = out[:, b, a] = design.forms(block)
    return out


def output_pairs(m: int) -> Iterator[tuple[int, int]]:
    """Each pair of outputs `a <= b`."""
    return ((a, b) for a in range(m) for b in range(a, m))


def inverse_hessian(fit: GeneralizedLinearFit) -> Float[Array, "mq mq"]:
    """`H^-1`, or `T (T^T H T)^-1 T^T` with tied intercepts, as `fit.solve`; NaN if H is singular."""
    L = fit.factor()
    if L is None:
        return np.full((len(fit.theta), len(fit.theta)), np.nan)
    P = cholesky.inverse(L)
    if fit.ties is not None:
        P[fit.intercepts, fit.intercepts] -= np.eye(fit.at.of.m)
    return P


def contract_penalties(fit: GeneralizedLinearFit, M: Float[Array, "mq mq"]) -> Float[Array, " k"]:
    """`<M, P_j>` for each penalty, zero for the other hyperparameters."""
    return np.append(fit.penalty.contract_matrix(M), np.zeros(fit.shares.w_dot.shape[1]))
