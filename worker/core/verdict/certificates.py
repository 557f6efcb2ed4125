"""Certificates of a result, recomputed at its best point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worker.core.objective.objective import Objective
from worker.core.records import Start

# on the scale of rho; two-sided 4th-order differences then err by about 1e-9 of J. The second step is for a J that
# bends sharply, as in a period that repeats many times
DIFFERENCE_STEPS = (1e-2, 1e-3)
RESIDUAL_LIMIT = 1e-7  # relative; above, a remark says that training is close to singular
DIFFERENCE_LIMIT = 1e-4  # between difference and gradient, relative to |J|; above, there is a remark


@dataclass(frozen=True, slots=True)
class Certificates:
    """Evidence that anyone can recompute.

    `outer_gradient_norm`: largest component of the projected gradient `dJ/d log(lam)`, relative to |J|.
    `inner_gradient_norm`: norm of `dC/dtheta` at theta, relative to theta = 0, of the worst split; iterative training
    takes it in units of curvature (`Point.unit`).
    `adjoint_residual`: `|H u - dE/dtheta| / |dE/dtheta|` of the worst split.
    `finite_difference_error`: |4th-order difference of J - gradient| along a random unit direction, relative to |J|.
    `arithmetic_error`: |J - J with 32 digits| of at most 1,000 random rows, relative to |J|; NaN where it is not known.
    """

    outer_gradient_norm: float
    inner_gradient_norm: float
    adjoint_residual: float
    finite_difference_error: float
    arithmetic_error: float = np.nan


def certify(objective: Objective, best: Start, seed: int) -> Certificates:
    """Recompute all but `arithmetic_error` at the best point, with four or eight more evaluations of J."""
    at = best.best
    direction = np.random.default_rng([seed, 3]).normal(size=len(at.rho))
    direction /= np.linalg.norm(direction)
    error = np.nan
    for h in DIFFERENCE_STEPS:
        values = [objective.value(at.rho + step * h * direction) for step in (-2, -1, 1, 2)]
        difference = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
        deviation = abs(difference - float(at.gradient @ direction)) / objective.unit(at.value)
        error = float(np.fmin(error, deviation))
        if error <= DIFFERENCE_LIMIT:
            break
    residuals = objective.residuals(at.rho)
    return Certificates(best.gradient_norm, residuals.inner_gradient_norm, residuals.adjoint_residual, error)
