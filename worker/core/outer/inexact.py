"""Descent of J with fits and adjoints that are only as accurate as each step needs.

The idea and the three accuracy rules come from MAID (Salehi, Mukherjee, Roberts and Ehrhardt 2024, arXiv 2308.10098),
after HOAG (Pedregosa 2016):

* a step is accepted if the upper bound of the new value is sufficiently below the lower bound of the old one;
* the accuracy is raised if the error bound of the hypergradient exceeds a fraction of the gradient, or if the errors of
  both values are too large to decide on the step;
* the accuracy is lowered a little after every accepted step.

MAID moves along the negative gradient with one step size. This search moves along a limited-memory quasi-Newton
direction inside the box (with one hyperparameter: a secant or cubic step). Its error bounds are a posteriori.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float

from worker.core.objective.objective import Objective
from worker.core.outer.descend import Optimizer, evaluation_of
from worker.core.records import ROUND_OFF, Array, Evaluation, Outcome, Trial

FIRST_ACCURACY = 1e-3  # largest gradient norm of the inner search, relative to the size of theta
BEST_ACCURACY = 1e-12  # the same at its smallest
LARGEST_GRADIENT_ERROR = 0.5  # relative to the gradient
SUFFICIENT_DECREASE = 1e-2  # smallest decrease of an accepted step, relative to the one that the slope predicts
TIGHTENING, LOOSENING = 0.1, 1.5  # factors of the accuracy: if errors are too large, after an accepted step
FIRST_REACH, LARGEST_REACH = 4.0, 6.0  # longest move of one hyperparameter on the scale of rho
MAX_PAIRS = 10  # of steps and gradient changes in the quasi-Newton direction
MAX_TRIALS_PER_STEP = 30  # then the search has stalled


@dataclass(frozen=True, slots=True)
class SearchState:
    """The current point of the search, and its memory.

    `steps` are the last moves of rho; `changes` and `rises` are the changes of the gradient of `log |J|` and of
    `log |J|` itself along them.
    """

    at: Evaluation
    accuracy: float = FIRST_ACCURACY
    reach: float = FIRST_REACH
    iteration: int = 0
    steps: Float[Array, "m k"] = field(default_factory=lambda: np.zeros((0, 0)))
    changes: Float[Array, "m k"] = field(default_factory=lambda: np.zeros((0, 0)))
    rises: Float[Array, " m"] = field(default_factory=lambda: np.zeros(0))

    def memory(self) -> dict[str, Array]:
        """All fields as arrays but the point, for a state."""
        return {
            "accuracy": np.array(self.accuracy), "reach": np.array(self.reach), "iteration": np.array(self.iteration),
            "steps": self.steps, "changes": self.changes, "rises": self.rises,
        }  # fmt: skip

    @classmethod
    def of_state(cls, s: Mapping[str, Array]) -> SearchState:
        """The inverse: all fields from the state of a trial."""
        pairs = s["steps"], s["changes"], s["rises"]
        return cls(evaluation_of(s), float(s["accuracy"]), float(s["reach"]), int(s["iteration"]), *pairs)


@dataclass(frozen=True, slots=True)
class Inexact(Optimizer):
    """Quasi-Newton descent with inexact hypergradients: each fit and adjoint is only as accurate as the step needs.

    For training criteria without a closed form that have many rows or columns. Every step has an error bound of its
    hypergradient; the last point is evaluated exactly.
    """

    kind: Literal["inexact"] = "inexact"

    typical_evaluations: ClassVar[int] = 40
    approximates: ClassVar[bool] = True
    scan_accuracy: ClassVar[float] = FIRST_ACCURACY

    def begin(self, objective: Objective, rho: Float[Array, " k"]) -> Generator[Trial, None, Trial]:
        """The start, with a gradient that is accurate enough for a step."""
        none = np.zeros((0, len(rho)))
        here = SearchState(objective.approximate(rho, FIRST_ACCURACY), steps=none, changes=none)
        if here.at.failure is None:
            here = yield from self._refined(objective, here)
        return self._trial(objective, here)

    def step(self, objective: Objective, state: dict[str, Array]) -> Generator[Trial, None, Trial | None]:
        """The next point, with a gradient that is accurate enough for a step; None if no step certainly lowers J."""
        found = yield from self._lower(objective, SearchState.of_state(state))
        return None if found is None else self._trial(objective, (yield from self._refined(objective, found)))

    def ended(self, objective: Objective, state: Mapping[str, Array]) -> Outcome | None:
        """As usual, once the gradient's error meets the tolerance or cannot be made smaller."""
        here = SearchState.of_state(state)
        error = here.at.gradient_error / objective.unit(here.at.value)
        known = error <= self.tolerance or here.accuracy <= BEST_ACCURACY
        return (
            self.stationary_or_spent(objective, state) if known else self.out_of_iterations(objective, here.iteration)
        )

    def _refined(self, objective: Objective, here: SearchState) -> Generator[Trial, None, SearchState]:
        """The same point, with a gradient that is accurate enough for a step."""
        while here.accuracy > BEST_ACCURACY:
            gradient_norm = float(np.linalg.norm(objective.hyperparameters.projected(here.at.rho, here.at.gradient)))
            largest_error = max(
                LARGEST_GRADIENT_ERROR * gradient_norm, 0.5 * self.tolerance * objective.unit(here.at.value)
            )
            if here.at.gradient_error <= largest_error:
                break
            yield self._trial(objective, here, saved=False)
            needed_ratio = largest_error / here.at.gradient_error  # the error is about proportional to the accuracy
            accuracy = max(min(TIGHTENING, 0.5 * needed_ratio) * here.accuracy, BEST_ACCURACY)
            at = objective.approximate(here.at.rho, accuracy)
            if at.failure is not None:
                break
            here = replace(here, at=at, accuracy=accuracy)
        return here

    def _lower(self, objective: Objective, here: SearchState) -> Generator[Trial, None, SearchState | None]:
        """The next point; None if no step certainly lowers J."""
        box, free = objective.hyperparameters, _free_variables(objective, here.at)
        direction = search_direction(here, free)
        longest_move = float(np.abs(direction).max(initial=0.0))
        direction *= min(1.0, here.reach / longest_move) if longest_move > 0 else 1.0
        step_size = 1.0
        for _ in range(MAX_TRIALS_PER_STEP):
            point = np.clip(here.at.rho + step_size * direction, box.lower, box.upper)
            slope = float(here.at.gradient @ (point - here.at.rho))
            if -slope <= ROUND_OFF * objective.unit(here.at.value):
                return None
            new = objective.approximate(point, here.accuracy)
            if new.failure is None:
                change, errors = new.value - here.at.value, _error_of_change(here, new)
                if change + errors <= SUFFICIENT_DECREASE * slope:
                    at_reach = step_size == 1.0 and longest_move >= here.reach
                    return _after_step(
                        here, new, free, min(2.0 * here.reach, LARGEST_REACH) if at_reach else here.reach
                    )
                if errors > 0.5 * abs(change - SUFFICIENT_DECREASE * slope) and here.accuracy > BEST_ACCURACY:
                    yield self._trial(objective, replace(here, at=new), saved=False)
                    accuracy = max(TIGHTENING * here.accuracy, BEST_ACCURACY)
                    refined = objective.approximate(here.at.rho, accuracy)
                    here = replace(here, at=refined if refined.failure is None else here.at, accuracy=accuracy)
                    continue
                step_size *= min(0.5, max(0.1, -slope / (2.0 * max(change - slope, 1e-300))))
            else:
                step_size *= 0.25
            yield self._trial(objective, replace(here, at=new), saved=False)
        return None

    def _trial(self, objective: Objective, here: SearchState, *, saved: bool = True) -> Trial:
        return self.trial(objective, here.at, here.iteration, here.memory() if saved else None)


def _error_of_change(here: SearchState, new: Evaluation) -> float:
    """The sum of the error bounds of both values. At the best accuracy values count as exact, as in other searches."""
    return 0.0 if here.accuracy <= BEST_ACCURACY else new.value_error + here.at.value_error


def _free_variables(objective: Objective, at: Evaluation) -> Bool[Array, " k"]:
    """The hyperparameters that no bound holds."""
    return objective.hyperparameters.projected(at.rho, at.gradient) != 0


def _after_step(here: SearchState, new: Evaluation, free: Bool[Array, " k"], reach: float) -> SearchState:
    """The state at the new point, with one more pair; without pairs if J curves downward along the step."""
    step, change = new.rho - here.at.rho, np.where(free, _log_gradient(new) - _log_gradient(here.at), 0.0)
    curvature = float(step @ change)
    if curvature > 1e-10 * float(np.linalg.norm(step) * np.linalg.norm(change)):
        steps, changes = np.vstack([here.steps, step])[-MAX_PAIRS:], np.vstack([here.changes, change])[-MAX_PAIRS:]
        rises = np.append(here.rises, np.log(abs(new.value) or 1.0) - np.log(abs(here.at.value) or 1.0))[-MAX_PAIRS:]
    else:
        steps, changes, rises = here.steps[:0], here.changes[:0], here.rises[:0]
    accuracy = min(LOOSENING * here.accuracy, FIRST_ACCURACY)
    return SearchState(new, accuracy, reach, here.iteration + 1, steps, changes, rises)


def _log_gradient(at: Evaluation) -> Float[Array, " k"]:
    """The gradient of `log |J|`, whose curvature varies less: far from the optimum J is much like a power of lam."""
    return at.gradient / (abs(at.value) or 1.0)


def search_direction(here: SearchState, free: Bool[Array, " k"]) -> Float[Array, " k"]:
    """`-B g` with the limited-memory BFGS inverse B on the free variables; without pairs, downhill by the reach."""
    g = np.where(free, _log_gradient(here.at), 0.0)
    largest = float(np.abs(g).max(initial=0.0))
    if largest == 0:
        return g
    steepest = -g * (here.reach / largest)
    if not len(here.steps):
        return steepest
    pairs = [(np.where(free, s, 0.0), np.where(free, y, 0.0)) for s, y in zip(here.steps, here.changes, strict=True)]
    pairs = [(s, y) for s, y in pairs if s @ y > 0]
    if not pairs:
        return steepest
    q, alphas = g.copy(), []
    for s, y in reversed(pairs):
        alphas.append(float(s @ q) / float(s @ y))
        q -= alphas[-1] * y
    s, y = pairs[-1]
    q *= float(s @ y) / float(y @ y)
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        q += (alpha - float(y @ q) / float(s @ y)) * s
    q = np.where(free, q, 0.0)
    if len(q) == 1:
        return np.array([_longer_step(here, float(g[0]), -float(q[0]))])
    return -q if q @ g > 1e-8 * float(np.linalg.norm(q) * np.linalg.norm(g)) else steepest


def _longer_step(here: SearchState, g: float, secant: float) -> float:
    """The longer of the secant step and the step to a cubic's minimizer (More and Thuente 1994, cases 2 and 3).

    The cubic matches `log J` and its slope at both ends of the last step (Nocedal and Wright 2006, eq. 3.59).
    """
    step, g_before = float(here.steps[-1, 0]), g - float(here.changes[-1, 0])
    d1 = g_before + g - 3.0 * float(here.rises[-1]) / step
    discriminant = d1**2 - g_before * g
    if here.at.value <= 0 or not discriminant >= 0:
        return secant
    d2 = np.copysign(np.sqrt(discriminant), step)
    denominator = g - g_before + 2.0 * d2
    cubic = -step * (g + d2 - d1) / denominator if denominator else 0.0
    return cubic if cubic * secant > secant**2 else secant
