"""An outer optimizer that the service does not have: everything about it is in its class."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from worker.core.objective.objective import Objective
from worker.core.outer import Optimizer
from worker.core.outer.descend import evaluation_of
from worker.core.records import ROUND_OFF, Array, Outcome, Trial


@dataclass(frozen=True, slots=True)
class GradientDescent(Optimizer):
    """Along the negative gradient, cut to the box, with lengths that are halved until J falls enough (Armijo)."""

    kind: Literal["gradient_descent"] = "gradient_descent"

    typical_evaluations: ClassVar[int] = 17

    def begin(self, objective: Objective, rho: Array) -> Generator[Trial, None, Trial]:
        yield from ()
        return self.trial(objective, objective.evaluate(rho), 0, {"length": np.array(1.0)})

    def step(self, objective: Objective, state: dict[str, Array]) -> Generator[Trial, None, Trial | None]:
        at, length, iteration = evaluation_of(state), state["length"], int(state["iteration"])
        box, unit = objective.hyperparameters, objective.unit(at.value)
        while True:
            new = objective.evaluate(np.clip(at.rho - length * at.gradient / unit, box.lower, box.upper))
            predicted = float(at.gradient @ (at.rho - new.rho))
            if predicted <= ROUND_OFF * unit:
                return None
            if new.value <= at.value - 1e-4 * predicted:
                return self.trial(objective, new, iteration + 1, {"length": np.array(2.0 * length)})
            yield self.trial(objective, new, iteration)
            length /= 2.0  # in the array of the state

    def ended(self, objective: Objective, state: Mapping[str, Array]) -> Outcome | None:
        return self.stationary_or_spent(objective, state)
