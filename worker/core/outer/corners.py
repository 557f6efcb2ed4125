"""Descent of a J with corners: BFGS with a weak Wolfe line search (Lewis and Overton 2013).

The gradient of J jumps where a row of a hinge passes its kink. A minimum often lies on such jumps: the gradient
vanishes on none of the adjoining pieces, and a line search for a strong Wolfe point fails. With weak Wolfe steps BFGS
goes on; its matrix learns along which directions J bends, and across which it has corners.

A point counts as stationary if a convex combination of gradients close by is nearly zero (Goldstein 1977). Beyond the
box J is extended by a steep slope, so that a bound is a corner like any other.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import nnls

from worker.core.objective.objective import Objective
from worker.core.outer.search import SearchSettings
from worker.core.records import EQUAL_VALUES, Array, Evaluation, Outcome, Trial

MOST_HYPERPARAMETERS = 100  # the matrix is dense, and a corner may join as many pieces
CLOSE = 1e-4  # on the scale of rho: gradients within this distance count as those of the point
KEPT_GRADIENTS = 100  # the last ones, and two more for each hyperparameter
LEAST_FALL = 1e-4  # of the value, relative to the prediction of its slope (Armijo)
LARGEST_SLOPE = 0.5  # at the end of a step, relative to the slope at its beginning (weak Wolfe)
MOST_LENGTHS = 50  # that are tried in one direction
SHORTEST_MOVE = 1e-14  # of the hyperparameter that moves most; rounding hides shorter ones
LONGEST_MOVE = 4.0  # of one hyperparameter in one iteration: a factor of about 55
FIRST_MOVE = 1e-2  # of the steepest hyperparameter, before the matrix has learnt anything
SLOPE_OUTSIDE = 10.0  # of the extension beyond the box, relative to the steepest slope at the start


@dataclass(frozen=True, slots=True)
class _CornerPoint:
    """A point, in the box or beyond; the value and gradient of the extended J there; J at the nearest point inside."""

    x: Float[Array, " k"]
    value: float
    gradient: Float[Array, " k"]
    inside: Evaluation


Trials = Generator[Trial, None, _CornerPoint | None]


def is_own_state(state: Mapping[str, Array]) -> bool:
    """Whether the state of a trial was saved here."""
    return "inverse" in state


def new_state(rho: Float[Array, " k"], iteration: int) -> dict[str, Array]:
    """The state at `rho`, after so many iterations of another search that has stalled there."""
    k = len(rho)
    return {
        "x": rho.copy(),
        "value": np.full((), np.nan),  # of J at the nearest point in the box; not known yet
        "gradient": np.empty(0),
        "per_split": np.empty(0),
        "iteration": np.array(iteration),
        "inverse": np.zeros((k, k)),  # zero until a step has been taken
        "slope_outside": np.zeros(()),
        "points": np.empty((0, k)),
        "gradients": np.empty((0, k)),
        "values": np.empty((0, 1)),
        "outcome": np.array("", dtype="U32"),
    }


def step(
    settings: SearchSettings, objective: Objective, state: dict[str, Array]
) -> Generator[Trial, None, Trial | None]:
    """The next point with a weak Wolfe step; None if J is not defined at the first one.

    Where the search ends, the point of the result once more, with the smallest combination of gradients. So the
    gradient norm of the result is the one that decided. The state then holds the outcome.
    """
    search = _Descent(settings, objective, state)
    here = search.saved_point()
    if here is None:
        here = search.begin()
        yield search.trial(here)
        if here.inside.failure is not None:
            return None
    while True:
        (outcome, _), found = search.settled(here), None
        if outcome is None:
            found = (yield from search.step(here, search.direction(here))) or (yield from search.escape(here))
            outcome = None if found else search.settled(here)[0] or Outcome.STALLED
        if found is not None:
            search.learn(here, found)
            return search.trial(found, saved=True)
        lower = search.lower(here)
        if lower is None:
            assert outcome is not None
            return search.last_trial(here, outcome)
        here = lower  # a point of a line search, which ended elsewhere
        yield search.trial(here)


@dataclass(slots=True)
class _Descent:
    """The search with its state `w`."""

    settings: SearchSettings
    objective: Objective
    w: dict[str, Array]

    def saved_point(self) -> _CornerPoint | None:
        """The point of the state, which is not evaluated again; None if it never was."""
        if np.isnan(self.w["value"]):
            return None
        box, x = self.objective.hyperparameters, self.w["x"]
        inside = np.clip(x, box.lower, box.upper)
        return self._extended(x, Evaluation(inside, float(self.w["value"]), self.w["gradient"], self.w["per_split"]))

    def begin(self) -> _CornerPoint:
        """The first point. The slope beyond the box follows from its gradient."""
        here = self._at(self.w["x"])
        self.w["slope_outside"] = np.array(SLOPE_OUTSIDE * np.abs(here.gradient).max())
        self._remember(here)
        return here

    def trial(self, point: _CornerPoint, *, saved: bool = False) -> Trial:
        """The record of one evaluation."""
        at = point.inside
        norm = np.inf if at.failure is not None else self.settings.relative_gradient(self.objective, at)
        return Trial(at, int(self.w["iteration"]), norm, self._copied() if saved else None)

    def last_trial(self, here: _CornerPoint, outcome: Outcome) -> Trial:
        """The point of the result once more, with the norm of the smallest combination of gradients."""
        self.w["outcome"] = np.array(outcome.name, dtype="U32")
        at = self.objective.evaluate(here.inside.rho)
        norm = float(np.abs(self._combination(here)).max() / self.objective.unit(at.value))
        norm = min(norm, self.settings.relative_gradient(self.objective, at))
        return Trial(at, int(self.w["iteration"]), norm, self._copied())

    def settled(self, here: _CornerPoint) -> tuple[Outcome | None, Float[Array, " k"]]:
        """The outcome if the search ends here, or None; and the smallest convex combination of gradients close by."""
        combination = self._combination(here)
        outcome = self.settings.settled(self.objective, here.inside)
        unit = self.objective.unit(here.inside.value)
        if outcome is None and np.abs(combination).max() <= self.settings.tolerance * unit:
            at_bounds = all(self.objective.hyperparameters.at_bound(here.inside.rho))
            outcome = Outcome.AT_BOUNDS if at_bounds else Outcome.CONVERGED
        return outcome or self.settings.out_of_iterations(self.objective, int(self.w["iteration"])), combination

    def direction(self, here: _CornerPoint) -> Float[Array, " k"]:
        """The quasi-Newton direction; at first a short one downhill."""
        inverse = self.w["inverse"]
        if inverse.any():
            return -inverse @ here.gradient
        return -FIRST_MOVE * here.gradient / np.abs(here.gradient).max()

    def step(self, here: _CornerPoint, direction: Float[Array, " k"]) -> Trials:
        """The next point: a weak Wolfe point along the direction, by doubling and bisection; None if none is found."""
        direction = direction * min(1.0, LONGEST_MOVE / np.abs(direction).max())
        slope, low, high, t = float(here.gradient @ direction), 0.0, np.inf, 1.0
        reach = np.abs(direction).max()
        for _ in range(MOST_LENGTHS):
            if slope >= 0 or t * reach < SHORTEST_MOVE:
                return None
            new = self._at(here.x + t * direction)
            yield self.trial(new)
            if new.inside.failure is None:
                self._remember(new)
            if new.inside.failure is not None or new.value > here.value + LEAST_FALL * t * slope:
                high = t
            elif float(new.gradient @ direction) < LARGEST_SLOPE * slope:
                low = t
            else:
                return new
            t = (low + high) / 2 if np.isfinite(high) else 2 * low
        return None

    def escape(self, here: _CornerPoint) -> Trials:
        """A step against the smallest combination of gradients; one that fails shows the gradient of one more piece.

        The matrix begins again: it had no direction that goes down.
        """
        self.w["inverse"] = np.zeros_like(self.w["inverse"])
        for _ in range(2 * len(here.x) + 1):
            outcome, combination = self.settled(here)
            if outcome is not None:
                return None
            found = yield from self.step(here, -CLOSE * combination / np.abs(combination).max())
            if found is not None:
                return found
        return None

    def learn(self, here: _CornerPoint, new: _CornerPoint) -> None:
        """The BFGS update of the inverse Hessian. A weak Wolfe point has `s @ y > 0`."""
        s, y = new.x - here.x, new.gradient - here.gradient
        curved, identity = float(s @ y), np.eye(len(s))
        inverse = self.w["inverse"] if self.w["inverse"].any() else identity * curved / float(y @ y)
        V = identity - np.outer(s, y) / curved
        self.w["inverse"] = V @ inverse @ V.T + np.outer(s, s) / curved
        self.w |= {"x": new.x.copy(), "value": np.array(new.inside.value)}
        self.w |= {"gradient": new.inside.gradient.copy(), "per_split": new.inside.per_split.copy()}
        self.w["iteration"] = self.w["iteration"] + 1

    def lower(self, here: _CornerPoint) -> _CornerPoint | None:
        """The lowest of the points that are remembered, if it is lower than this one by more than rounding."""
        lowest = int(np.argmin(self.w["values"]))
        fall = here.value - float(self.w["values"][lowest, 0])
        if fall <= EQUAL_VALUES * self.objective.unit(here.inside.value):
            return None
        return self._at(self.w["points"][lowest])

    def _at(self, x: Float[Array, " k"]) -> _CornerPoint:
        box = self.objective.hyperparameters
        return self._extended(x, self.objective.evaluate(np.clip(x, box.lower, box.upper)))

    def _extended(self, x: Float[Array, " k"], inside: Evaluation) -> _CornerPoint:
        beyond, slope = x - inside.rho, float(self.w["slope_outside"])
        gradient = np.where(beyond != 0, slope * np.sign(beyond), inside.gradient)
        return _CornerPoint(x, inside.value + slope * float(np.abs(beyond).sum()), gradient, inside)

    def _remember(self, point: _CornerPoint) -> None:
        kept = KEPT_GRADIENTS + 2 * len(point.x)
        for name, row in (("points", point.x), ("gradients", point.gradient), ("values", [point.value])):
            self.w[name] = np.vstack([self.w[name], row])[-kept:]

    def _combination(self, here: _CornerPoint) -> Float[Array, " k"]:
        """The convex combination of gradients close by that is smallest up to what pushes out of the box.

        It solves a least-squares problem with non-negative weights, whose sum is then normalized to one.
        """
        box, unit, k = self.objective.hyperparameters, self.objective.unit(here.inside.value), len(here.x)
        close = np.abs(self.w["points"] - here.x).max(axis=1) <= CLOSE
        G = np.column_stack([here.gradient, self.w["gradients"][close].T]) / unit
        outward = (here.x >= box.upper).astype(float) - (here.x <= box.lower)
        A = np.column_stack([G, np.diag(outward)[:, outward != 0]])
        weights, _ = nnls(np.vstack([A, np.arange(A.shape[1]) < G.shape[1]]), np.append(np.zeros(k), 1.0))
        return unit * (A @ weights) / weights[: G.shape[1]].sum()

    def _copied(self) -> dict[str, Array]:
        return {name: np.array(array) for name, array in self.w.items()}
