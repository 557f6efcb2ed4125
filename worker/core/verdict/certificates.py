"""Certificates of a result, recomputed at its best point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from worker.core.objective.objective import Objective
from worker.core.records import ROUND_OFF, Array, Evaluation, Start
from worker.core.verdict.differences import Line, ladder, slopes

LONGEST_STEP = 2e-2  # on the scale of rho, along a direction whose components are at most 1
LEAST_ROOM = 1e-3  # to the bounds for differences with values on both sides
DISTANCES_FROM_CORNERS = (3e-3, -3e-3, 1e-2, -1e-2)  # on the scale of rho
STEPS_BESIDE_CORNERS = (6e-4, 1e-7)  # the longest and the shortest; corners of J are often 1e-3 to 1e-2 apart
CORNER_STEP = 1e-5  # slopes to both sides agree within it, if J is smooth
RESIDUAL_LIMIT = 1e-7  # relative; above, a remark says that training is close to singular
TYPICAL_EVALUATIONS = 8  # of J: a difference (4 to 6 values, at most 88), the residuals, the losses of rows
DIFFERENCE_LIMIT = 1e-4  # between difference and gradient, relative to |J|; above, there is a remark


@dataclass(frozen=True, slots=True)
class Certificates:
    """Evidence that anyone can recompute.

    `outer_gradient_norm`: largest component of the projected gradient `dJ/d log(lam)`, relative to |J|; at a corner of
    J that of the smallest convex combination of the gradients around it.
    `inner_gradient_norm`: norm of `dC/dtheta` at theta, relative to theta = 0, of the worst split; iterative training
    takes it in units of curvature (`Point.unit`).
    `adjoint_residual`: `|H u - dE/dtheta| / |dE/dtheta|` of the worst split.
    `finite_difference_error`: |difference of J - gradient| along a random direction, relative to |J|; at a corner of J
    that of a point beside it. Where no difference is exact enough to judge, `judged` is False, and this is the least
    sum of that deviation and of the difference's own error.
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
    judged: bool = True


@dataclass(frozen=True, slots=True)
class _Deviation:
    """|difference - gradient| in units of J; where it is not `judged`, a bound on it that is too large to say more."""

    size: float
    judged: bool


def certify(objective: Objective, best: Start, seed: int) -> Certificates:
    """Recompute all but those of arithmetic and refit at the best point, with four or more evaluations of J."""
    deviation = _deviation(objective, _exact(objective, best.best), np.random.default_rng([seed, 3]))
    residuals = objective.residuals(best.best.rho)
    return Certificates(
        best.gradient_norm,
        residuals.inner_gradient_norm,
        residuals.adjoint_residual,
        deviation.size,
        judged=deviation.judged,
    )


def _exact(objective: Objective, at: Evaluation) -> Evaluation:
    """The point with its exact gradient, if what the search had was approximate and within its own bound."""
    if at.value_error == at.gradient_error == 0:
        return at
    exact = objective.evaluate(at.rho)
    within = at.gradient_error + DIFFERENCE_LIMIT * objective.unit(at.value)
    return exact if np.linalg.norm(exact.gradient - at.gradient) <= within else at


def _deviation(objective: Objective, at: Evaluation, random: np.random.Generator) -> _Deviation:
    """How far differences are from the gradient at the point; at a corner, at a point beside it.

    A direction has no small component, so that one wrong derivative among many is seen. It points into the box where
    there is no room on both sides; values on one side then show one piece of J, which need not be the gradient's.
    """
    direction = random.choice([-1.0, 1.0], len(at.rho)) * random.uniform(0.5, 1.0, len(at.rho))
    room = _room(objective, at.rho, direction)
    both_sides = bool(room.min() >= LEAST_ROOM)
    if both_sides:
        longest = min(LONGEST_STEP, float(room.min()))
    else:
        direction = np.where(room[0] < room[1], -direction, direction)
        longest = min(LONGEST_STEP, float(room.max(axis=0).min()))
    found = _judge(objective, at, direction, ladder(longest, both_sides=both_sides), both_sides=both_sides)
    if found.judged and (both_sides or found.size <= DIFFERENCE_LIMIT):
        return found
    if _is_stale(objective, at, direction):
        return found
    return _beside_corners(objective, at, direction) or found


def _room(objective: Objective, rho: Float[Array, " k"], direction: Float[Array, " k"]) -> Float[Array, "2 k"]:
    """How far each hyperparameter can move along the direction, and against it, in units of its component."""
    box, size = objective.hyperparameters, np.abs(direction)
    above, below = (box.upper - rho) / size, (rho - box.lower) / size
    return np.array([np.where(direction > 0, above, below), np.where(direction > 0, below, above)])


def _judge(
    objective: Objective, at: Evaluation, direction: Float[Array, " k"], steps: list[float], *, both_sides: bool
) -> _Deviation:
    """The deviation by the first step whose own error allows a verdict: two such steps must disagree to reject."""
    box, unit, gradient = objective.hyperparameters, objective.unit(at.value), float(at.gradient @ direction)

    def J(t: float) -> float:
        return objective.value(np.clip(at.rho + t * direction, box.lower, box.upper))  # it is outside by rounding only

    bound, rejected = np.inf, 0
    for slope in slopes(Line(J, at.value, ROUND_OFF * abs(at.value), both_sides), steps):
        size, own = abs(slope.value - gradient) / unit, slope.error / unit
        if size + own <= DIFFERENCE_LIMIT:
            return _Deviation(size, True)
        rejected += own <= DIFFERENCE_LIMIT < size - own
        if rejected == 2:
            return _Deviation(size, True)
        bound = min(bound, size + own)
    return _Deviation(bound, False)


def _is_stale(objective: Objective, at: Evaluation, direction: Float[Array, " k"]) -> bool:
    """Whether J is smooth at the point and has another gradient there than the one that is judged."""
    unit = objective.unit(at.value)
    again = objective.evaluate(at.rho)
    if np.abs(again.gradient - at.gradient).max() <= DIFFERENCE_LIMIT * unit:
        return False
    inside = np.where(_room(objective, at.rho, direction).min(axis=0) >= CORNER_STEP, direction, 0.0)
    ahead, behind = (objective.value(at.rho + h * inside) - at.value for h in (CORNER_STEP, -CORNER_STEP))
    return not abs(ahead + behind) > DIFFERENCE_LIMIT * unit * CORNER_STEP


def _beside_corners(objective: Objective, at: Evaluation, direction: Float[Array, " k"]) -> _Deviation | None:
    """The deviation at a point near by at which differences judge; None if there is none.

    Where J has corners, a minimum often lies on one, and no difference there is that of a single piece. Beside it
    short steps cross no corner.
    """
    longest, shortest = STEPS_BESIDE_CORNERS
    for distance in DISTANCES_FROM_CORNERS:
        rho = at.rho + distance * direction
        if _room(objective, rho, direction).min() < longest:
            continue
        near = objective.evaluate(rho)
        if near.failure is not None:
            continue
        steps = ladder(longest, shortest, both_sides=True)
        found = _judge(objective, near, direction, steps, both_sides=True)
        if found.judged:
            return found
    return None
