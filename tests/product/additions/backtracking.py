"""An outer optimizer that the product does not have."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float

from worker.core.objective.objective import Objective
from worker.core.outer.descend import Optimizer, evaluation_of
from worker.core.records import Array, Outcome, Trial


@dataclass(frozen=True, slots=True)
class Backtracking(Optimizer):
    """Projected gradient descent with backtracking (Armijo 1966): a step is halved until J falls by enough."""

    kind: Literal["backtracking"] = "backtracking"

    typical_evaluations: ClassVar[int] = 300

    def begin(self, objective: Objective, rho: Float[Array, " k"]) -> Generator[Trial, None, Trial]:
        """The start."""
        yield from ()
        return self.trial(objective, objective.evaluate(rho), 0, {"step": np.array(1.0)})

    def step(self, objective: Objective, state: dict[str, Array]) -> Generator[Trial, None, Trial | None]:
        """A step that lowers J by a tenth of what the slope promises; None if rounding hides it."""
        at, length, iteration = evaluation_of(state), float(state["step"]), int(state["iteration"])
        box, unit = objective.hyperparameters, objective.unit(at.value)
        while True:
            rho = np.clip(at.rho - length / unit * at.gradient, box.lower, box.upper)
            promised = float(at.gradient @ (at.rho - rho))
            if promised <= 1e-14 * unit:
                return None
            new = objective.evaluate(rho)
            if new.failure is None and new.value <= at.value - 0.1 * promised:
                return self.trial(objective, new, iteration + 1, {"step": np.array(2.0 * length)})
            yield self.trial(objective, new, iteration)
            length /= 2.0

    def ended(self, objective: Objective, state: Mapping[str, Array]) -> Outcome | None:
        """At a stationary point, or when the iterations are spent."""
        return self.stationary_or_spent(objective, state)
