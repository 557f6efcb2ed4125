"""Certificates of a result, recomputed at its best point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from worker.core.objective.objective import Objective
from worker.core.records import Array, Evaluation, Start

# on the scale of rho; two-sided 4th-order differences then err by about 1e-9 of J. The second step is for a J that
# bends sharply, as in a period that repeats many times
DIFFERENCE_STEPS = (1e-2, 1e-3)
DISTANCES_FROM_CORNERS = (3e-3, -3e-3, 1e-2, -1e-2, 3e-2, -3e-2)  # on the scale of rho
CORNER_STEP = 1e-5  # slopes to both sides agree within it, if J is smooth
STEPS_BESIDE_CORNERS = (3e-4, 1e-4)  # corners of J are often 1e-3 to 1e-2 apart
RESIDUAL_LIMIT = 1e-7  # relative; above, a remark says that training is close to singular
TYPICAL_EVALUATIONS = 8  # of J: a difference, of two steps at times, the residuals, the losses of rows
DIFFERENCE_LIMIT = 1e-4  # between difference and gradient, relative to |J|; above, there is a remark


@dataclass(frozen=True, slots=True)
class Certificates:
    """Evidence that anyone can recompute.

    `outer_gradient_norm`: largest component of the projected gradient `dJ/d log(lam)`, relative to |J|; at a corner of
    J that of the smallest convex combination of the gradients around it.
    `inner_gradient_norm`: norm of `dC/dtheta` at theta, relative to theta = 0, of the worst split; iterative training
    takes it in units of curvature (`Point.unit`).
    `adjoint_residual`: `|H u - dE/dtheta| / |dE/dtheta|` of the worst split.
    `finite_difference_error`: |4th-order difference of J - gradient| along a random unit direction, relative to |J|; at
    a corner of J that of a point beside it.
    `refit_gradient_norm`: norm of `dC/dtheta` of the refit on all rows at the returned coefficients, relative to their
    size; NaN without a model.
    `arithmetic_error`: |J - J with 32 digits| of at most 1,000 random rows, relative to |J|; NaN where it is not known.
    """

    outer_gradient_norm: float
    inner_gradient_norm: float
    adjoint_residual: float
    finite_difference_error: float
    arithmetic_error: float = np.nan
    refit_gradient_norm: float = np.nan


def certify(objective: Objective, best: Start, seed: int) -> Certificates:
    """Recompute all but those of arithmetic and refit at the best point, with four or more evaluations of J."""
    at = best.best
    direction = np.random.default_rng([seed, 3]).normal(size=len(at.rho))
    direction /= np.linalg.norm(direction)
    error = np.nan
    for h in DIFFERENCE_STEPS:
        error = float(np.fmin(error, _deviation(objective, at, direction, h)))
        if error <= DIFFERENCE_LIMIT:
            break
    else:
        error = _deviation_beside_corners(objective, at, direction, error)
    residuals = objective.residuals(at.rho)
    return Certificates(best.gradient_norm, residuals.inner_gradient_norm, residuals.adjoint_residual, error)


def _deviation(objective: Objective, at: Evaluation, direction: Float[Array, " k"], h: float) -> float:
    """`|difference of J - gradient|` along the direction, in units of J."""
    return abs(_difference(objective, at.rho, direction, h) - float(at.gradient @ direction)) / objective.unit(at.value)


def _difference(objective: Objective, rho: Float[Array, " k"], direction: Float[Array, " k"], h: float) -> float:
    """The 4th-order difference of J along the direction."""
    values = [objective.value(rho + step * h * direction) for step in (-2, -1, 1, 2)]
    return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)


def _deviation_beside_corners(
    objective: Objective, at: Evaluation, direction: Float[Array, " k"], found: float
) -> float:
    """The same deviation at a point near by, whose differences of two steps agree; else what was `found`.

    Where J has corners, a minimum often lies on one, and no difference there is that of a single piece. Differences of
    two steps agree where they cross no corner and are more than rounding: then they judge the gradient. Where J is
    smooth at the point itself, the gradient must be what the objective gives there.
    """
    unit = objective.unit(at.value)
    forward, backward = ((objective.value(at.rho + h * direction) - at.value) / h for h in (CORNER_STEP, -CORNER_STEP))
    if abs(forward - backward) <= DIFFERENCE_LIMIT * unit:
        again = objective.evaluate(at.rho)
        if not np.abs(again.gradient - at.gradient).max() <= DIFFERENCE_LIMIT * unit:
            return found
    for distance in DISTANCES_FROM_CORNERS:
        near = objective.evaluate(at.rho + distance * direction)
        if near.failure is not None:
            continue
        long, short = (_difference(objective, near.rho, direction, h) for h in STEPS_BESIDE_CORNERS)
        unit = objective.unit(near.value)
        if abs(long - short) <= DIFFERENCE_LIMIT / 10 * unit:
            return abs(short - float(near.gradient @ direction)) / unit
    return found
