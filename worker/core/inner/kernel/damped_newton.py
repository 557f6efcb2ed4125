"""Newton's method for kernel machines: whole steps as long as they lower C enough, shorter ones otherwise.

A quadratic loss takes one step. The hinges take steps until the set of curved rows no longer changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from worker.core.inner.kernel.best_intercept import BestIntercept
from worker.core.inner.kernel.newton_model import KernelMinimum, NewtonModel
from worker.core.inner.kernel.row_losses import RowLosses
from worker.core.losses.derivatives import Elementwise
from worker.core.records import Array

MOST_STEPS = 500
# Decrements and falls of C are relative to C. A decrement is quadratic in the error of the point.
LARGEST_EXACT_DECREMENT = 1e-24  # no further step is worth its cost
LARGEST_ROUNDING_DECREMENT = 1e-14  # of a smooth C: a smaller decrement that no longer falls is rounding
MOST_IDLE_STEPS = 10  # after as many steps without progress only rounding changes, for example of rows at their kinks
LARGEST_FINAL_DECREMENT = 1e-8  # after the idle steps, a larger decrement means that this is no minimum
LARGEST_ZERO = 1e-26  # of the loss of zero predictors: a smaller |C| is their rounding, as with rows of one class
SMALLEST_FALL = 1e-12  # a smaller fall of C is no progress
SMALLEST_TESTED_DECREMENT = 1e-12  # below it the step is taken whole: rounding hides the change of C
ARMIJO = 1e-4  # smallest fall of C relative to the prediction of its slope
SHORTEST_STEP = 2.0**-100  # fraction of the whole step
KernelStart = tuple[Float[Array, " m"], float]


def minimize(model: NewtonModel, rows: RowLosses, start: KernelStart) -> KernelMinimum | None:
    """The minimum of C from a start; None if a factor is indefinite to working precision or the search fails.

    The search ends at a tiny decrement. It also ends if there is no progress after a whole step to a point at which the
    step's model still holds: only rounding is left to correct. Otherwise a lack of progress ends it after several
    steps, and only with a small decrement.
    """
    here = _starting_point(model, rows, start)
    progress, L = _Progress(here, LARGEST_ZERO * rows.at(np.zeros_like(here.f)).value), None
    for _ in range(MOST_STEPS):
        L = model.factor(here.D) if L is None else L
        if L is None or here.leaves_intercept_free(model):
            return None
        step = _Step.of(model, here, L)
        if not np.isfinite(step.decrement):
            return None
        # from theta = 0 with losses a step is taken in any case: theta follows the slopes, even if K makes it nothing
        begins = bool(step.theta.any() and not here.theta.any()) and here.value > progress.zero
        progress.record(here, np.inf if begins else step.decrement)
        if not begins and progress.has_converged(here, step.decrement):
            best = progress.best.with_middle_intercept(model, rows)
            L = L if np.array_equal(best.D, here.D) else model.factor(best.D)
            return None if L is None else KernelMinimum(best.theta, best.b, best.f, best.D, L, best.held)
        new = None if progress.is_stuck else step.line_search(model, rows, here)
        if new is None:
            return None
        progress.before = here if new.theta is step.theta else None
        L = L if np.array_equal(new.D, here.D) else None
        here = new
    return None


def _starting_point(model: NewtonModel, rows: RowLosses, start: KernelStart) -> _Point:
    """The start, or zero if C is lower at zero."""
    theta, b = start
    zero = _Point.of(model, rows, np.zeros_like(theta), 0.0, np.zeros_like(rows.y))
    if not theta.any():
        return zero
    here = _Point.of(model, rows, theta, b, model.predictor(theta))
    return here if here.value <= zero.value else zero


@dataclass(frozen=True, slots=True)
class _Point:
    """A point of the search: `smooth = f - b`, the losses with their slopes g and curvatures D, and the value of C.

    If no row is curved, Newton's model does not determine b. Then b is the best intercept for `smooth`.
    """

    theta: Float[Array, " m"]
    b: float
    smooth: Float[Array, " n"]
    f: Float[Array, " n"]
    at: Elementwise
    g: Float[Array, " n"]
    D: Float[Array, " n"]
    held: Float[Array, " n"]
    value: float

    @classmethod
    def of(
        cls, model: NewtonModel, rows: RowLosses, theta: Float[Array, " m"], b: float, smooth: Float[Array, " n"]
    ) -> _Point:
        """The point at theta and b; if no row is curved there, the best intercept replaces b."""
        at, held = rows.at(smooth + b), np.zeros_like(smooth)
        D = rows.curvatures(at)
        best = BestIntercept.of(rows, smooth) if model.intercept and not D.any() else None
        if best is not None:
            b, at = best.b, rows.at(smooth + best.b)
            D = rows.curvatures(at)
            held = held if D.any() else best.held
        value = at.value + model.lam / 2 * model.norm(theta, smooth, theta)
        return cls(theta, b, smooth, smooth + b, at, at.slope[:, 0], D, held, value)

    def leaves_intercept_free(self, model: NewtonModel) -> bool:
        """Whether neither curved rows nor kinks determine b."""
        return model.intercept and not (self.D.any() or self.held.any())

    def with_middle_intercept(self, model: NewtonModel, rows: RowLosses) -> _Point:
        """The same point, with b in the middle if C is constant in b on an interval.

        The search may have arrived at an end of the interval, with a row at its kink.
        """
        best = BestIntercept.of(rows, self.smooth) if model.intercept else None
        if best is None or not best.held.any():
            return self
        middle = _Point.of(model, rows, self.theta, best.b, self.smooth)
        return self if middle.D.any() else middle

    def is_on_same_piece_as(self, other: _Point) -> bool:
        """Whether each row is on the same parabola or line at both points: Newton's model at one is C at both."""
        straight = self.D == 0
        return np.array_equal(self.D, other.D) and np.array_equal(self.g[straight], other.g[straight])


@dataclass(frozen=True, slots=True)
class _Step:
    """The step from a point to the minimum of Newton's model there: theta, b and `smooth` at its end.

    `move` is the change of the predictors. `bend` is lam times the squared length of the step in the kernel's space.
    The decrement is minus the slope of C along the step.
    """

    theta: Float[Array, " m"]
    b: float
    smooth: Float[Array, " n"]
    move: Float[Array, " n"]
    bend: float
    decrement: float

    @classmethod
    def of(cls, model: NewtonModel, here: _Point, L: Float[Array, "s s"]) -> _Step:
        """The step from `here`; L is the factor of the model."""
        theta, b = model.minimizer(here.D, L, here.g, here.f) if here.D.any() else (model.straight(here.g), here.b)
        smooth = model.predictor(theta)
        step, move = theta - here.theta, smooth + b - here.f
        bend = model.lam * model.norm(step, smooth - here.smooth, step)
        # this form holds as the step minimizes the model, and has no cancellation; only rounding makes `bend` negative
        return cls(theta, b, smooth, move, bend, float(here.D @ move**2) + abs(bend))

    def line_search(self, model: NewtonModel, rows: RowLosses, here: _Point) -> _Point | None:
        """The point after the longest of 1, 1/2, 1/4, ... of the step that lowers C enough; None if none does."""
        t = 1.0
        while (
            self.decrement >= SMALLEST_TESTED_DECREMENT * here.value
            and self._change(rows, here, t) > -ARMIJO * t * self.decrement
        ):
            t /= 2
            if t < SHORTEST_STEP:
                return None
        if t == 1.0:
            return _Point.of(model, rows, self.theta, self.b, self.smooth)
        theta = here.theta + t * (self.theta - here.theta)
        smooth = model.predictor(theta)  # not by updates: theta may shrink by many orders of magnitude
        return _Point.of(model, rows, theta, here.b + t * (self.b - here.b), smooth)

    def _change(self, rows: RowLosses, here: _Point, t: float) -> float:
        """The change of C after the fraction t of the step. Its first-order part has no cancellation."""
        second_order = rows.at(here.f + t * self.move).value - here.at.value - t * float(here.g @ self.move)
        return -t * self.decrement + second_order + t * t / 2 * self.bend


@dataclass(slots=True)
class _Progress:
    """The point with the least decrement, and the number of steps since the least decrement or C fell (`idle`).

    `before` is the previous point if a whole step led from it to the present one. A |C| up to `zero` is rounding.
    """

    best: _Point
    zero: float
    before: _Point | None = None
    least: float = np.inf
    lowest: float = np.inf
    idle: int = 0

    def record(self, here: _Point, decrement: float) -> None:
        """Takes one more point into account."""
        falls = decrement < self.least / 4 or here.value < self.lowest * (1 - SMALLEST_FALL)
        self.idle = 0 if falls else self.idle + 1
        self.lowest = here.value if falls else self.lowest
        if decrement < self.least:
            self.best, self.least = here, decrement

    def has_converged(self, here: _Point, decrement: float) -> bool:
        """Whether the best point is the minimum to working precision."""
        if abs(here.value) <= self.zero or decrement <= LARGEST_EXACT_DECREMENT * here.value:
            return True
        if self.idle and self.before is not None and self._is_rounding(here, self.before, decrement):
            return True
        return self.is_stuck and self.least <= LARGEST_FINAL_DECREMENT * here.value

    @property
    def is_stuck(self) -> bool:
        """Whether the last `MOST_IDLE_STEPS` steps made no progress."""
        return self.idle >= MOST_IDLE_STEPS

    @staticmethod
    def _is_rounding(here: _Point, before: _Point, decrement: float) -> bool:
        """Whether the decrement after a whole step is rounding."""
        return (
            decrement <= LARGEST_ROUNDING_DECREMENT * here.value
            if here.at.third.any()
            else here.is_on_same_piece_as(before)
        )
