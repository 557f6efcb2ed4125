"""Newton's method for the training criterion: with a Cholesky factor, or truncated, with conjugate gradients.

Both take the full step if it lowers C enough (Armijo) and shorten it otherwise. A factor is reused as long as its steps
reduce the gradient norm enough. Conjugate gradients stop early far from the minimum, as an exact step would be wasted
there (Dembo, Eisenstat and Steihaug 1982).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from worker.core.inner.smooth.criterion import Point, Regularized
from worker.core.inner.smooth.straight import settled, ties
from worker.core.linalg import cholesky
from worker.core.linalg.conjugate_gradients import Operator, conjugate_gradients
from worker.core.records import Array

IterativeSolver = Literal["newton_cholesky", "newton_cg"]
MOST_ITERATIONS = 200
MOST_CG_STEPS = 2_000  # in one linear solve
MOST_HALVINGS = 60  # of one step
LARGEST_REUSE_RATIO = 0.02  # of gradient norms after and before a step, up to which its factor is used again
ARMIJO = 1e-4  # smallest decrease of C relative to the prediction of its slope
LARGEST_DIAGONAL_RATIO = 20.0  # of diag(H) to the preconditioner; 10 to 30 work; tf-idf: half the iterations of diag(H)


@dataclass(frozen=True, slots=True)
class Minimum:
    """The point at which the search stopped, and the diagonal of H there.

    `gradient_norm` and `tolerance` are relative to `Point.unit`.
    """

    at: Point
    diagonal: Float[Array, " mq"]
    gradient_norm: float
    tolerance: float
    iterations: int

    def preconditioner(self) -> Operator:
        """Division by the diagonal of the penalty, or by that of H over `LARGEST_DIAGONAL_RATIO` if it is larger.

        Divided by the penalty, all directions orthogonal to the rows share one eigenvalue; with sparse wide rows these
        are most directions. Columns of large scale or with a tiny penalty need the diagonal of H.
        """
        prior = self.at.of.penalty.whole_diagonal()
        scale = np.maximum(prior, self.diagonal / LARGEST_DIAGONAL_RATIO)[:, None]
        return lambda R: R / scale


def minimize(
    criterion: Regularized, theta: Float[Array, " mq"], solver: IterativeSolver, tolerance: float
) -> Minimum | None:
    """The minimizer of C, searched from `theta`; None if C is not finite there.

    The search ends when the relative gradient norm is at most `tolerance` or its rounding error. This test depends on
    the point alone, so a search from a minimizer found before takes no step.
    """
    at = criterion.at(theta)
    if not (np.isfinite(at.value) and np.isfinite(at.gradient).all()):
        return None
    state, L, fresh = _state_at(at, tolerance, 0), None, False
    while state.gradient_norm > state.tolerance and state.iterations < MOST_ITERATIONS:
        if solver == "newton_cg":
            direction, fresh = _truncated_direction(state), True
        else:
            if L is None:
                L, fresh = _factor(state), True
                if L is None:
                    break
            direction = -cholesky.solve(L, state.at.gradient)
        new = _line_search(state, direction, tolerance)
        if new is None and not fresh:
            L = None  # the factor is of an older point: try one of this point
            continue
        if new is None:
            new = _majorized_step(state, solver, tolerance)
            if new is None:
                break
        if new.gradient_norm > LARGEST_REUSE_RATIO * state.gradient_norm:
            L = None
        state, fresh = new, False
    return state


def _state_at(at: Point, tolerance: float, iterations: int) -> Minimum:
    at = settled(at)
    diagonal = at.diagonal()
    noise = at.noise(diagonal)
    unit = at.unit(diagonal, noise)
    reachable = max(tolerance, noise / unit)
    return Minimum(at, diagonal, at.gradient_norm(diagonal) / unit, reachable, iterations)


def _majorized_step(state: Minimum, solver: IterativeSolver, tolerance: float) -> Minimum | None:
    """The next point by a model that is nowhere below C, safe if few rows are curved; None without such a model."""
    at = state.at.majorized()
    if at is None:
        return None
    majorized = replace(state, at=at, diagonal=at.diagonal())
    if solver == "newton_cg":
        return _line_search(state, _truncated_direction(majorized), tolerance)
    L = _factor(majorized)
    return None if L is None else _line_search(state, -cholesky.solve(L, at.gradient), tolerance)


def _factor(state: Minimum) -> Float[Array, "mq mq"] | None:
    """A factor of H, damped on its diagonal if H is singular: it only has to give a descent direction."""
    E = ties(state.at)
    for damping in (0.0, 1e-8, 1e-6, 1e-4, 1e-2, 1.0):
        H = state.at.hessian()
        if E is not None:
            H += E @ E.T
        cholesky.diagonal_of(H)[...] += damping * state.diagonal
        L = cholesky.factor_in_place(H)
        if L is not None:
            return L
    return None


def _truncated_direction(state: Minimum) -> Float[Array, " mq"]:
    cg_tolerance = min(0.1, np.sqrt(state.gradient_norm))
    cg_tolerance = max(cg_tolerance, 0.3 * state.tolerance / state.gradient_norm)
    gradient = state.at.gradient[:, None]
    direction = conjugate_gradients(
        state.at.apply, state.preconditioner(), -gradient, float(cg_tolerance), MOST_CG_STEPS
    )
    return direction[:, 0]


def _line_search(state: Minimum, direction: Float[Array, " mq"], tolerance: float) -> Minimum | None:
    """The next point, or None if no step along the direction visibly lowers C or its gradient norm."""
    at, criterion = state.at, state.at.of
    slope = float(at.gradient @ direction)
    if not slope < 0:
        return None
    rounding = 4 * np.finfo(float).eps * abs(at.value)
    length = 1.0
    for _ in range(MOST_HALVINGS):
        new = criterion.at(at.theta + length * direction)
        if np.isfinite(new.value) and np.isfinite(new.gradient).all():
            if new.value <= at.value + ARMIJO * length * slope and -slope * length > rounding:
                return _state_at(new, tolerance, state.iterations + 1)
            if -slope * length <= 1e3 * rounding:  # rounding hides the decrease of C: the gradient decides
                candidate = _state_at(new, tolerance, state.iterations + 1)
                return candidate if candidate.gradient_norm < 0.9 * state.gradient_norm else None
        length *= 0.5
    return None
