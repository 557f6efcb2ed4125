"""Descent of J with fits and adjoints that are only as exact as each step needs.

The idea, and the three rules of accuracy, are those of MAID (Salehi, Mukherjee, Roberts and Ehrhardt 2024, arXiv
2308.10098), after HOAG (Pedregosa 2016):

* a step is taken if J falls enough for certain: by the upper bound of the new value and the lower bound of the old one;
* the accuracy is raised where the bound of the hypergradient's error exceeds a share of the gradient, or where the
  errors of the two values hide what the step did;
* it is lowered a little after every success.

Where MAID moves along the negative gradient with one step size, this search moves along a limited-memory quasi-Newton
direction inside the box (with one hyperparameter: the secant), and its error bounds are a posteriori ones.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from worker.core.objective.objective import Objective
from worker.core.outer.search import Search, SearchSettings
from worker.core.records import ROUND_OFF, Array, Evaluation, Outcome, Trial

FIRST_ACCURACY = 1e-3  # gradient norm of the inner search over the size of theta
BEST_ACCURACY = 1e-12
SHARE = 0.5  # of the gradient, that its error may reach
SUFFICIENT = 1e-2  # share of the decrease foretold by the slope that a step has to show
TIGHTEN, LOOSEN = 0.1, 1.5
FIRST_REACH, MOST_REACH = 4.0, 6.0  # longest move of one hyperparameter on the scale of rho
PAIRS = 10
SHORTENINGS = 30


@dataclass(frozen=True, slots=True)
class _At:
    """Where the search stands.

    `steps` are the last moves of rho, `changes` and `rises` what they did to the gradient of `log |J|` and to it.
    """

    at: Evaluation
    accuracy: float = FIRST_ACCURACY
    reach: float = FIRST_REACH
    iteration: int = 0
    steps: Float[Array, "m k"] = field(default_factory=lambda: np.zeros((0, 0)))
    changes: Float[Array, "m k"] = field(default_factory=lambda: np.zeros((0, 0)))
    rises: Float[Array, " m"] = field(default_factory=lambda: np.zeros(0))

    def state(self) -> dict[str, Array]:
        """Everything as arrays."""
        at = self.at
        return {
            "rho": at.rho, "value": np.array(at.value), "gradient": at.gradient, "per_split": at.per_split,
            "errors": np.array([at.value_error, at.gradient_error]), "accuracy": np.array(self.accuracy),
            "reach": np.array(self.reach), "iteration": np.array(self.iteration),
            "steps": self.steps, "changes": self.changes, "rises": self.rises,
        }  # fmt: skip

    @classmethod
    def of_state(cls, s: Mapping[str, Array]) -> _At:
        """What `state` gave."""
        errors = s["errors"].tolist()
        at = Evaluation(s["rho"], float(s["value"]), s["gradient"], s["per_split"], None, *errors)
        pairs = s["steps"], s["changes"], s["rises"]
        return cls(at, float(s["accuracy"]), float(s["reach"]), int(s["iteration"]), *pairs)


@dataclass(frozen=True, slots=True)
class Inexact(SearchSettings):
    """Quasi-Newton descent with inexact hypergradients: each fit and each adjoint only as exact as the step needs.

    For training criteria without a closed form and many rows or columns. Every step comes with a bound of the error of
    its hypergradient; the last point is evaluated exactly.
    """

    kind: Literal["inexact"] = "inexact"

    def search(self, objective: Objective, rho: Float[Array, " k"], state: Mapping[str, Array] | None = None) -> Search:
        """Trials from `rho`, or from the `state` of an earlier trial."""
        if state is None:
            here = _At(objective.approximate(rho, FIRST_ACCURACY))
            here = replace(here, steps=np.zeros((0, len(rho))), changes=np.zeros((0, len(rho))))
            if here.at.failure is not None:
                yield self._trial(objective, here, saved=False)
                return here.at.failure
            here = yield from self._refined(objective, here)
            yield self._trial(objective, here)
        else:
            here = _At.of_state(state)
        while (outcome := self._settled(objective, here) or self._out_of_iterations(here.iteration)) is None:
            found = yield from self._step(objective, here)
            if found is None:
                outcome = Outcome.STALLED
                break
            here = yield from self._refined(objective, found)
            yield self._trial(objective, here)
        exact = objective.evaluate(here.at.rho)
        yield Trial(exact, here.iteration, self.relative_gradient(objective, exact), None)
        return outcome

    def _settled(self, objective: Objective, here: _At) -> Outcome | None:
        """As for exact gradients, once the error is small too or cannot be made smaller."""
        error = here.at.gradient_error / objective.unit(here.at.value)
        known = error <= self.tolerance or here.accuracy <= BEST_ACCURACY
        return self.settled(objective, here.at) if known else None

    def _refined(self, objective: Objective, here: _At) -> Generator[Trial, None, _At]:
        """The same point, as exact as its gradient needs."""
        while here.accuracy > BEST_ACCURACY:
            size = float(np.linalg.norm(objective.hyperparameters.projected(here.at.rho, here.at.gradient)))
            goal = max(SHARE * size, 0.5 * self.tolerance * objective.unit(here.at.value))
            if here.at.gradient_error <= goal:
                break
            yield self._trial(objective, here, saved=False)
            share = goal / here.at.gradient_error  # the error is about in proportion to the accuracy
            accuracy = max(min(TIGHTEN, 0.5 * share) * here.accuracy, BEST_ACCURACY)
            at = objective.approximate(here.at.rho, accuracy)
            if at.failure is not None:
                break
            here = replace(here, at=at, accuracy=accuracy)
        return here

    def _step(self, objective: Objective, here: _At) -> Generator[Trial, None, _At | None]:
        """The next point, or None where no step lowers J for certain."""
        box, free = objective.hyperparameters, _free(objective, here.at)
        direction = _direction(here, free)
        largest = float(np.abs(direction).max(initial=0.0))
        direction *= min(1.0, here.reach / largest) if largest > 0 else 1.0
        length = 1.0
        for _ in range(SHORTENINGS):
            point = np.clip(here.at.rho + length * direction, box.lower, box.upper)
            slope = float(here.at.gradient @ (point - here.at.rho))
            if -slope <= ROUND_OFF * objective.unit(here.at.value):
                return None
            new = objective.approximate(point, here.accuracy)
            if new.failure is None:
                change, errors = new.value - here.at.value, _together(here, new)
                if change + errors <= SUFFICIENT * slope:
                    grown = length == 1.0 and largest >= here.reach
                    return _moved(here, new, free, min(2.0 * here.reach, MOST_REACH) if grown else here.reach)
                if errors > 0.5 * abs(change - SUFFICIENT * slope) and here.accuracy > BEST_ACCURACY:
                    yield self._trial(objective, replace(here, at=new), saved=False)
                    accuracy = max(TIGHTEN * here.accuracy, BEST_ACCURACY)
                    again = objective.approximate(here.at.rho, accuracy)
                    here = replace(here, at=again if again.failure is None else here.at, accuracy=accuracy)
                    continue
                length *= min(0.5, max(0.1, -slope / (2.0 * max(change - slope, 1e-300))))
            else:
                length *= 0.25
            yield self._trial(objective, replace(here, at=new), saved=False)
        return None

    def _trial(self, objective: Objective, here: _At, *, saved: bool = True) -> Trial:
        return Trial(
            here.at, here.iteration, self.relative_gradient(objective, here.at), here.state() if saved else None
        )


def _together(here: _At, new: Evaluation) -> float:
    """The errors of both values; at the best accuracy they count as exact, as for other searches."""
    return 0.0 if here.accuracy <= BEST_ACCURACY else new.value_error + here.at.value_error


def _free(objective: Objective, at: Evaluation) -> Bool[Array, " k"]:
    """The hyperparameters that are not held by a bound."""
    return objective.hyperparameters.projected(at.rho, at.gradient) != 0


def _moved(here: _At, new: Evaluation, free: Bool[Array, " k"], reach: float) -> _At:
    """At the new point, with one more pair; without any where J curved downward along the step."""
    step, change = new.rho - here.at.rho, np.where(free, _relative(new) - _relative(here.at), 0.0)
    curvature = float(step @ change)
    if curvature > 1e-10 * float(np.linalg.norm(step) * np.linalg.norm(change)):
        steps, changes = np.vstack([here.steps, step])[-PAIRS:], np.vstack([here.changes, change])[-PAIRS:]
        rises = np.append(here.rises, np.log(abs(new.value) or 1.0) - np.log(abs(here.at.value) or 1.0))[-PAIRS:]
    else:
        steps, changes, rises = here.steps[:0], here.changes[:0], here.rises[:0]
    accuracy = min(LOOSEN * here.accuracy, FIRST_ACCURACY)
    return _At(new, accuracy, reach, here.iteration + 1, steps, changes, rises)


def _relative(at: Evaluation) -> Float[Array, " k"]:
    """The gradient of `log |J|`, whose curvature changes less on the way: far off, J is much like a power of lam."""
    return at.gradient / (abs(at.value) or 1.0)


def _direction(here: _At, free: Bool[Array, " k"]) -> Float[Array, " k"]:
    """`-B g` with the limited-memory BFGS inverse B on the free variables; without pairs, downhill to the reach."""
    g = np.where(free, _relative(here.at), 0.0)
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
        return np.array([_farther(here, float(g[0]), -float(q[0]))])
    return -q if q @ g > 1e-8 * float(np.linalg.norm(q) * np.linalg.norm(g)) else steepest


def _farther(here: _At, g: float, secant: float) -> float:
    """The secant step, or that to the minimizer of the cubic through `log J` at both ends of the last step.

    Of both the longer one (More and Thuente 1994, cases 2 and 3). The cubic: Nocedal and Wright (2006, eq. 3.59).
    """
    step, before = float(here.steps[-1, 0]), g - float(here.changes[-1, 0])
    d1 = before + g - 3.0 * float(here.rises[-1]) / step
    root = d1**2 - before * g
    if here.at.value <= 0 or not root >= 0:
        return secant
    d2 = np.copysign(np.sqrt(root), step)
    below = g - before + 2.0 * d2
    cubic = -step * (g + d2 - d1) / below if below else 0.0
    return cubic if cubic * secant > secant**2 else secant
