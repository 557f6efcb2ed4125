"""Certificates of a result, recomputed at its best point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worker.core.objective.objective import Objective
from worker.core.records import Start

# on the scale of rho; 4th-order differences then err by about 1e-9 of J, from both sides; the second one where J bends
# sharply, as in the period of many repetitions
DIFFERENCE_STEPS = (1e-2, 1e-3)
POOR = 1e-7  # relative residuals above this are reported: training is close to singular
ROUGH = 1e-4  # share of J by which a difference may deviate from the gradient unmentioned


@dataclass(frozen=True, slots=True)
class Certificates:
    """Evidence that anyone can recompute.

    `outer_gradient_norm`: largest component of the projected gradient `dJ/d log(lam)`, over |J|.
    `inner_gradient_norm`: norm of `dC/dtheta` at theta over that at theta = 0, the worst split; in units of curvature
    where training is iterative (`Point.unit`).
    `adjoint_residual`: `|H u - dE/dtheta| / |dE/dtheta|`, the worst split.
    `finite_difference_error`: |4th-order difference of J - gradient| along a random unit direction, over |J|.
    """

    outer_gradient_norm: float
    inner_gradient_norm: float
    adjoint_residual: float
    finite_difference_error: float


def certify(objective: Objective, best: Start, seed: int) -> Certificates:
    """Recompute every certificate at the best point; four more evaluations of J, or eight."""
    at = best.best
    direction = np.random.default_rng([seed, 3]).normal(size=len(at.rho))
    direction /= np.linalg.norm(direction)
    error = np.nan
    for h in DIFFERENCE_STEPS:
        values = [objective.value(at.rho + step * h * direction) for step in (-2, -1, 1, 2)]
        difference = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
        off = abs(difference - float(at.gradient @ direction)) / objective.unit(at.value)
        error = float(np.fmin(error, off))
        if error <= ROUGH:
            break
    at_best = objective.residuals(at.rho)
    return Certificates(best.gradient_norm, at_best.inner_gradient_norm, at_best.adjoint_residual, error)
