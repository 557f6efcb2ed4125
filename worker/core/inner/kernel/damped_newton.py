"""Newton's method for kernel machines: whole steps as long as they lower C enough, parts of them otherwise.

For the squared loss one step is all. The hinges take as many as the set of their curved rows needs.
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
EXACT = 1e-24  # relative decrement of C, quadratic in the error of the point, below which no step is worth its price
SETTLED = 1e-14  # decrement of a smooth C below which one that no longer falls is rounding
PATIENCE = 10  # steps without progress after which what is left is rounding, as of rows that are at their kinks
RESOLVED = 1e-8  # decrement above which that is no minimum
FELL = 1e-12  # share of C that is progress
SURE = 1e-12  # below this decrement a whole step is taken: C does not tell steps apart
ARMIJO = 1e-4
SHORTEST = 2.0**-100
KernelStart = tuple[Float[Array, " m"], float]


def minimize(model: NewtonModel, rows: RowLosses, start: KernelStart) -> KernelMinimum | None:
    """The minimum of C from a start; None where a factor is indefinite to working precision or no end is found.

    A small step is the end. So is one without progress after a whole step to a point where its model holds: all that
    it could mend is rounding. Elsewhere a lack of progress is an end only if it lasts and the decrement is small.
    """
    here = _begin(model, rows, start)
    progress, L = _Progress(here), None
    for _ in range(MOST_STEPS):
        L = model.factor(here.D) if L is None else L
        if L is None or here.leaves_free(model):
            return None
        step = _Step.of(model, here, L)
        if not np.isfinite(step.decrement):
            return None
        progress.note(here, step.decrement)
        if progress.has_arrived(here, step.decrement):
            best = progress.best.in_the_middle(model, rows)
            L = L if np.array_equal(best.D, here.D) else model.factor(best.D)
            return None if L is None else KernelMinimum(best.theta, best.b, best.f, best.D, L, best.held)
        new = None if progress.is_stuck else step.taken(model, rows, here)
        if new is None:
            return None
        progress.before = here if new.theta is step.theta else None
        L = L if np.array_equal(new.D, here.D) else None
        here = new
    return None


def _begin(model: NewtonModel, rows: RowLosses, start: KernelStart) -> _Point:
    """The start, or zero if C is lower there."""
    theta, b = start
    zero = _Point.of(model, rows, np.zeros_like(theta), 0.0, np.zeros_like(rows.y))
    if not theta.any():
        return zero
    here = _Point.of(model, rows, theta, b, model.predictor(theta))
    return here if here.value <= zero.value else zero


@dataclass(frozen=True, slots=True)
class _Point:
    """A point of the search with `smooth = f - b`, the losses, their slopes and curvatures, and C.

    Newton's model says nothing about b if no row is curved: then b is the best one.
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
        """At theta and b, or the best intercept in its place."""
        at, held = rows.at(smooth + b), np.zeros_like(smooth)
        D = rows.curvatures(at)
        best = BestIntercept.of(rows, smooth) if model.intercept and not D.any() else None
        if best is not None:
            b, at = best.b, rows.at(smooth + best.b)
            D = rows.curvatures(at)
            held = held if D.any() else best.held
        value = at.value + model.lam / 2 * model.norm(theta, smooth, theta)
        return cls(theta, b, smooth, smooth + b, at, at.slope[:, 0], D, held, value)

    def leaves_free(self, model: NewtonModel) -> bool:
        """Whether nothing here says where b should be."""
        return model.intercept and not (self.D.any() or self.held.any())

    def in_the_middle(self, model: NewtonModel, rows: RowLosses) -> _Point:
        """The same point; if any b within an interval is as good, its middle, from an end with a row at its kink."""
        best = BestIntercept.of(rows, self.smooth) if model.intercept else None
        if best is None or not best.held.any():
            return self
        middle = _Point.of(model, rows, self.theta, best.b, self.smooth)
        return self if middle.D.any() else middle

    def is_on_the_piece_of(self, other: _Point) -> bool:
        """Whether each row is on the same parabola or line, so that Newton's model at one of them is C at both."""
        straight = self.D == 0
        return np.array_equal(self.D, other.D) and np.array_equal(self.g[straight], other.g[straight])


@dataclass(frozen=True, slots=True)
class _Step:
    """From a point to the minimum of Newton's model there: theta, b and `smooth` at its end.

    `move` is that of the predictors and `bend` the squared length of the step, in the kernel's space, times lam. The
    decrement is minus the slope of C along the step.
    """

    theta: Float[Array, " m"]
    b: float
    smooth: Float[Array, " n"]
    move: Float[Array, " n"]
    bend: float
    decrement: float

    @classmethod
    def of(cls, model: NewtonModel, here: _Point, L: Float[Array, "s s"]) -> _Step:
        """The step, with the factor of the model."""
        theta, b = model.minimizer(here.D, L, here.g, here.f) if here.D.any() else (model.straight(here.g), here.b)
        smooth = model.predictor(theta)
        step, move = theta - here.theta, smooth + b - here.f
        bend = model.lam * model.norm(step, smooth - here.smooth, step)
        # as the step minimizes the model; free of cancellation. `bend` is below zero by rounding alone
        return cls(theta, b, smooth, move, bend, float(here.D @ move**2) + abs(bend))

    def taken(self, model: NewtonModel, rows: RowLosses, here: _Point) -> _Point | None:
        """Its end, or after the longest of 1/2, 1/4, ... of it, whatever lowers C enough; None if nothing does."""
        t = 1.0
        while self.decrement >= SURE * here.value and self._rise(rows, here, t) > -ARMIJO * t * self.decrement:
            t /= 2
            if t < SHORTEST:
                return None
        if t == 1.0:
            return _Point.of(model, rows, self.theta, self.b, self.smooth)
        theta = here.theta + t * (self.theta - here.theta)
        smooth = model.predictor(theta)  # not summed up: theta may fall by many digits
        return _Point.of(model, rows, theta, here.b + t * (self.b - here.b), smooth)

    def _rise(self, rows: RowLosses, here: _Point, t: float) -> float:
        """The change of C by a share t of the step; that of first order is the decrement, free of cancellation."""
        above = rows.at(here.f + t * self.move).value - here.at.value - t * float(here.g @ self.move)
        return -t * self.decrement + above + t * t / 2 * self.bend


@dataclass(slots=True)
class _Progress:
    """The point whose decrement is the least, and for how many steps neither that nor C has fallen.

    `before` is the point that a whole step began at which led to the present one.
    """

    best: _Point
    before: _Point | None = None
    least: float = np.inf
    lowest: float = np.inf
    idle: int = 0

    def note(self, here: _Point, decrement: float) -> None:
        """One more point."""
        falls = decrement < self.least / 4 or here.value < self.lowest * (1 - FELL)
        self.idle = 0 if falls else self.idle + 1
        self.lowest = here.value if falls else self.lowest
        if decrement < self.least:
            self.best, self.least = here, decrement

    def has_arrived(self, here: _Point, decrement: float) -> bool:
        """Whether the best point is the minimum to working precision."""
        if decrement <= EXACT * here.value:
            return True
        if self.idle and self.before is not None and self._is_settled(here, self.before, decrement):
            return True
        return self.is_stuck and self.least <= RESOLVED * here.value

    @property
    def is_stuck(self) -> bool:
        """Whether there was no progress for long."""
        return self.idle >= PATIENCE

    @staticmethod
    def _is_settled(here: _Point, before: _Point, decrement: float) -> bool:
        """Whether the decrement is the rounding of a whole step."""
        return decrement <= SETTLED * here.value if here.at.third.any() else here.is_on_the_piece_of(before)
