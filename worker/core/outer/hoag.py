"""HOAG: projected gradient descent with a fixed schedule of hypergradient tolerances (Pedregosa 2016, algorithm 1).

The published algorithm, for comparison; `inexact` needs fewer and cheaper steps. The tolerances of fits and adjoints
are a summable sequence fixed in advance. The step size is `1 / L`, L an estimate of the Lipschitz constant of the
gradient. If J exceeds a quadratic model with L by more than the error bounds of both values, the step is rejected and L
is doubled. After every accepted step L decreases a little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float

from worker.core.objective.objective import Objective
from worker.core.outer.search import Search, SearchSettings
from worker.core.records import ROUND_OFF, Array, Evaluation, Outcome, Trial

FIRST_ACCURACY = 0.1  # tolerance of the first iteration
EXPONENTIAL_DECAY = 0.9  # factor of the tolerance per iteration, exponential schedule
BEST_ACCURACY = 1e-12  # the smallest tolerance
LIPSCHITZ_DECAY = 0.95  # factor of L after an accepted step


@dataclass(frozen=True, slots=True)
class Hoag(SearchSettings):
    """HOAG (Pedregosa 2016): gradient descent with a schedule of tolerances, for comparison; `inexact` is better.

    The tolerance of iteration i is 0.1 / i^2 (`quadratic`), 0.1 / i^3 (`cubic`) or 0.1 * 0.9^i (`exponential`).
    """

    schedule: Literal["quadratic", "cubic", "exponential"] = "quadratic"
    kind: Literal["hoag"] = "hoag"

    typical_evaluations: ClassVar[int] = 200

    def search(self, objective: Objective, rho: Float[Array, " k"], state: Mapping[str, Array] | None = None) -> Search:
        """Trials from `rho`, or from the `state` of an earlier trial."""
        if state is None:
            at, iteration = objective.approximate(rho, self._accuracy(1)), 0
            # the first step has the length sqrt(k): one unit of rho for each hyperparameter
            L = float(np.linalg.norm(at.gradient)) / np.sqrt(len(rho))
            yield self._trial(objective, at, L, iteration)
            if at.failure is not None:
                return at.failure
        else:
            at, L, iteration = _restored(state)
        while (outcome := self.settled(objective, at) or self._out_of_iterations(iteration)) is None:
            accuracy = self._accuracy(iteration + 2)
            while True:
                new = objective.approximate(self._next_point(objective, at, L), accuracy)
                squared_length = float(np.sum((new.rho - at.rho) ** 2))
                slack = new.value_error + at.value_error  # infinite while a rough early value has no bound
                if L * squared_length <= ROUND_OFF * objective.unit(at.value):
                    return (yield from self._finish(objective, at, iteration, Outcome.STALLED))
                if new.failure is None and new.value <= at.value - L / 2 * squared_length + slack:
                    break
                yield Trial(new, iteration, self.relative_gradient(objective, new), None)
                L *= 2.0
            at, L, iteration = new, LIPSCHITZ_DECAY * L, iteration + 1
            yield self._trial(objective, at, L, iteration)
        return (yield from self._finish(objective, at, iteration, outcome))

    def _finish(self, objective: Objective, at: Evaluation, iteration: int, outcome: Outcome) -> Search:
        """Evaluates the last point exactly and ends the search."""
        exact = objective.evaluate(at.rho)
        yield Trial(exact, iteration, self.relative_gradient(objective, exact), None)
        return outcome

    def _next_point(self, objective: Objective, at: Evaluation, L: float) -> Float[Array, " k"]:
        box = objective.hyperparameters
        return np.clip(at.rho - at.gradient / max(L, np.finfo(float).tiny), box.lower, box.upper)

    def _accuracy(self, iteration: int) -> float:
        decay = {"quadratic": iteration**-2.0, "cubic": iteration**-3.0, "exponential": EXPONENTIAL_DECAY**iteration}
        return max(FIRST_ACCURACY * decay[self.schedule], BEST_ACCURACY)

    def _trial(self, objective: Objective, at: Evaluation, L: float, iteration: int) -> Trial:
        state = {
            "rho": at.rho, "value": np.array(at.value), "gradient": at.gradient, "per_split": at.per_split,
            "errors": np.array([at.value_error, at.gradient_error]), "L": np.array(L), "iteration": np.array(iteration),
        }  # fmt: skip
        return Trial(at, iteration, self.relative_gradient(objective, at), None if at.failure else state)


def _restored(s: Mapping[str, Array]) -> tuple[Evaluation, float, int]:
    at = Evaluation(s["rho"], float(s["value"]), s["gradient"], s["per_split"], None, *s["errors"].tolist())
    return at, float(s["L"]), int(s["iteration"])
