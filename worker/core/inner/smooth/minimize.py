"""Newton's method for the training criterion: with a Cholesky factor, or truncated, with conjugate gradients.

Both take the full step wherever it lowers C enough (Armijo) and shorten it otherwise. A factor is kept as long as it
reduces the gradient by much. Conjugate gradients are stopped early far from the minimum (Dembo, Eisenstat and Steihaug
1982), where an exact step would be wasted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from worker.core.inner.smooth.criterion import Point, Regularized
from worker.core.linalg import cholesky
from worker.core.linalg.conjugate_gradients import Operator, conjugate_gradients
from worker.core.records import Array

IterativeSolver = Literal["newton_cholesky", "newton_cg"]
MOST_ITERATIONS = 200
MOST_CG = 2_000
HALVINGS = 60
KEEP = 0.02  # a factor that shrinks the gradient norm at least this much is used again
ARMIJO = 1e-4
DOMINATED = 20.0  # 10 to 30 do; on tf-idf half the iterations that the diagonal of H alone takes


@dataclass(frozen=True, slots=True)
class Minimum:
    """Where the search stopped. `gradient_norm` and `tolerance` are both over the size of theta: see `Point.unit`.

    `diagonal` is that of H at the point.
    """

    at: Point
    diagonal: Float[Array, " mq"]
    gradient_norm: float
    tolerance: float
    iterations: int

    def preconditioner(self) -> Operator:
        """Division by the diagonal of the penalty, or of H over `DOMINATED` where that is more.

        Directions that no row has, the most of them in sparse wide rows, share one eigenvalue as long as it is the
        penalty that they are divided by; columns of large scale or with hardly any penalty need the diagonal of H.
        """
        prior = self.at.of.penalty.whole_diagonal()
        scale = np.maximum(prior, self.diagonal / DOMINATED)[:, None]
        return lambda R: R / scale


def minimize(
    criterion: Regularized, theta: Float[Array, " mq"], solver: IterativeSolver, tolerance: float
) -> Minimum | None:
    """The minimizer of C from `theta` on; None where C is not finite there.

    It is done when the gradient norm, over the size of theta, is at most `tolerance` or what rounding makes of it. That
    depends on the point alone: from a minimizer that was found before it takes no step.
    """
    at = criterion.at(theta)
    if not (np.isfinite(at.value) and np.isfinite(at.gradient).all()):
        return None
    state, L, fresh = _judged(at, tolerance, 0), None, False
    while state.gradient_norm > state.tolerance and state.iterations < MOST_ITERATIONS:
        if solver == "newton_cg":
            direction, fresh = _truncated(state), True
        else:
            if L is None:
                L, fresh = _factor(state), True
                if L is None:
                    break
            direction = -cholesky.solve(L, state.at.gradient)
        new = _line_search(state, direction, tolerance)
        if new is None and not fresh:
            L = None  # the step of an older factor is no test of this point
            continue
        if new is None:
            new = _majorized_step(state, solver, tolerance)
            if new is None:
                break
        if new.gradient_norm > KEEP * state.gradient_norm:
            L = None
        state, fresh = new, False
    return state


def _judged(at: Point, tolerance: float, iterations: int) -> Minimum:
    diagonal = at.diagonal()
    noise = at.noise(diagonal)
    unit = at.unit(diagonal, noise)
    goal = max(tolerance, noise / unit)
    return Minimum(at, diagonal, at.gradient_norm(diagonal) / unit, goal, iterations)


def _majorized_step(state: Minimum, solver: IterativeSolver, tolerance: float) -> Minimum | None:
    """The next point by a model that is nowhere below C, which too few curved rows cannot mislead; None without any."""
    at = state.at.majorized()
    if at is None:
        return None
    bounded = replace(state, at=at, diagonal=at.diagonal())
    if solver == "newton_cg":
        return _line_search(state, _truncated(bounded), tolerance)
    L = _factor(bounded)
    return None if L is None else _line_search(state, -cholesky.solve(L, at.gradient), tolerance)


def _factor(state: Minimum) -> Float[Array, "mq mq"] | None:
    """A factor of H, or of H with more on its diagonal where H is singular: a direction of descent is all it is for."""
    for damping in (0.0, 1e-8, 1e-6, 1e-4, 1e-2, 1.0):
        H = state.at.hessian()
        cholesky.diagonal_of(H)[...] += damping * state.diagonal
        L = cholesky.factor_in_place(H)
        if L is not None:
            return L
    return None


def _truncated(state: Minimum) -> Float[Array, " mq"]:
    relative = min(0.1, np.sqrt(state.gradient_norm))
    relative = max(relative, 0.3 * state.tolerance / state.gradient_norm)
    gradient = state.at.gradient[:, None]
    solved = conjugate_gradients(state.at.apply, state.preconditioner(), -gradient, float(relative), MOST_CG)
    return solved[:, 0]


def _line_search(state: Minimum, direction: Float[Array, " mq"], tolerance: float) -> Minimum | None:
    """The next point, or None where no step along the direction is seen to lower C or its gradient."""
    at, criterion = state.at, state.at.of
    slope = float(at.gradient @ direction)
    if not slope < 0:
        return None
    seen = 4 * np.finfo(float).eps * abs(at.value)
    length = 1.0
    for _ in range(HALVINGS):
        new = criterion.at(at.theta + length * direction)
        if np.isfinite(new.value) and np.isfinite(new.gradient).all():
            if new.value <= at.value + ARMIJO * length * slope and -slope * length > seen:
                return _judged(new, tolerance, state.iterations + 1)
            if -slope * length <= 1e3 * seen:  # rounding hides the decrease of C: the gradient decides
                judged = _judged(new, tolerance, state.iterations + 1)
                return judged if judged.gradient_norm < 0.9 * state.gradient_norm else None
        length *= 0.5
    return None
