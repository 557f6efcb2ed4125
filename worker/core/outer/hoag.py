"""HOAG: projected gradient descent with a fixed schedule of hypergradient tolerances (Pedregosa 2016, algorithm 1).

The published algorithm, for comparison; `inexact` needs fewer and cheaper steps. The tolerances of fits and adjoints
are a summable sequence fixed in advance. The step size is `1 / L`, L an estimate of the Lipschitz constant of the
gradient. If J exceeds a quadratic model with L by more than the error bounds of both values, the step is rejected and L
is doubled. After every accepted step L decreases a little.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float

from worker.core.objective.objective import Objective
from worker.core.outer.descend import Optimizer, evaluation_of
from worker.core.records import ROUND_OFF, Array, Evaluation, Outcome, Trial

FIRST_ACCURACY = 0.1  # tolerance of the first iteration
EXPONENTIAL_DECAY = 0.9  # factor of the tolerance per iteration, exponential schedule
BEST_ACCURACY = 1e-12  # the smallest tolerance
LIPSCHITZ_DECAY = 0.95  # factor of L after an accepted step


@dataclass(frozen=True, slots=True)
class Hoag(Optimizer):
    """HOAG (Pedregosa 2016): gradient descent with a schedule of tolerances, for comparison; `inexact` is better.

    The tolerance of iteration i is 0.1 / i^2 (`quadratic`), 0.1 / i^3 (`cubic`) or 0.1 * 0.9^i (`exponential`).
    """

    schedule: Literal["quadratic", "cubic", "exponential"] = "quadratic"
    kind: Literal["hoag"] = "hoag"

    typical_evaluations: ClassVar[int] = 200
    approximates: ClassVar[bool] = True

    def begin(self, objective: Objective, rho: Float[Array, " k"]) -> Generator[Trial, None, Trial]:
        """The start. The first step has the length sqrt(k): one unit of rho for each hyperparameter."""
        yield from ()  # no evaluation comes before
        at = objective.approximate(rho, self._accuracy(1))
        return self._trial(objective, at, float(np.linalg.norm(at.gradient)) / np.sqrt(len(rho)), 0)

    def step(self, objective: Objective, state: dict[str, Array]) -> Generator[Trial, None, Trial | None]:
        """A step of gradient descent that the quadratic model allows; None if rounding hides it."""
        at, L, iteration = evaluation_of(state), float(state["L"]), int(state["iteration"])
        accuracy = self._accuracy(iteration + 2)
        while True:
            new = objective.approximate(self._next_point(objective, at, L), accuracy)
            squared_length = float(np.sum((new.rho - at.rho) ** 2))
            slack = new.value_error + at.value_error  # infinite while a rough early value has no bound
            if L * squared_length <= ROUND_OFF * objective.unit(at.value):
                return None
            if new.failure is None and new.value <= at.value - L / 2 * squared_length + slack:
                return self._trial(objective, new, LIPSCHITZ_DECAY * L, iteration + 1)
            yield self.trial(objective, new, iteration)
            L *= 2.0

    def ended(self, objective: Objective, state: Mapping[str, Array]) -> Outcome | None:
        """By the gradient as it was found, whatever its error."""
        return self.stationary_or_spent(objective, state)

    def _trial(self, objective: Objective, at: Evaluation, L: float, iteration: int) -> Trial:
        return self.trial(objective, at, iteration, {"L": np.array(L)})

    def _next_point(self, objective: Objective, at: Evaluation, L: float) -> Float[Array, " k"]:
        box = objective.hyperparameters
        return np.clip(at.rho - at.gradient / max(L, np.finfo(float).tiny), box.lower, box.upper)

    def _accuracy(self, iteration: int) -> float:
        decay = {"quadratic": iteration**-2.0, "cubic": iteration**-3.0, "exponential": EXPONENTIAL_DECAY**iteration}
        return max(FIRST_ACCURACY * decay[self.schedule], BEST_ACCURACY)
