"""How a search leaves a plateau: a start at which J is nearly flat, although J decreases further away.

Far from its optimum a penalty changes J like `exp(-|rho|)`. If that is below the tolerance, the gradient looks like one
at a minimum. A step downhill shows the difference: from a minimum J rises, or its slope levels off; from a plateau the
slope becomes steeper.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from jaxtyping import Float

from worker.core.objective.objective import Objective
from worker.core.outer.search import SearchSettings
from worker.core.records import Array, Evaluation, Trial

FIRST_STEP, LATER_STEP = 1.0, 2.0  # of the steepest hyperparameter, in rho: too short to jump over a minimum
ROUNDING_NOISE = 1e-14  # of J in its unit, and of its relative gradient


def off_plateau(
    settings: SearchSettings, objective: Objective, rho: Float[Array, " k"]
) -> Generator[Trial, None, Float[Array, " k"] | None]:
    """A new start downhill of `rho`, from which the slope becomes no steeper; None if `rho` is not on a plateau.

    `rho` meets the tolerance, the new start does not. Near a minimum this takes one evaluation. A search from a point
    whose gradient just exceeds the tolerance could jump over the minimum, to the plateau on its other side.
    """
    box = objective.hyperparameters
    at = objective.evaluate(rho)
    downhill = -box.projected(at.rho, at.gradient)
    if at.failure is not None or settings.relative_gradient(objective, at) <= ROUNDING_NOISE:
        return None
    downhill = downhill / np.abs(downhill).max()
    length, steeper = FIRST_STEP, True
    while steeper:
        point = np.clip(at.rho + length * downhill, box.lower, box.upper)
        step = point - at.rho
        if not step.any():
            break
        new = objective.evaluate(point)
        yield Trial(new, 0, settings.relative_gradient(objective, new) if new.failure is None else np.inf, None)
        if not _not_higher(objective, at, new):
            break
        steeper = float(new.gradient @ step) < float(at.gradient @ step)
        at, length = new, LATER_STEP
    return at.rho if settings.relative_gradient(objective, at) > settings.tolerance else None


def _not_higher(objective: Objective, at: Evaluation, new: Evaluation) -> bool:
    """Whether J does not rise, up to rounding, which hides the first steps off a plateau."""
    return new.failure is None and new.value <= at.value + ROUNDING_NOISE * objective.unit(at.value)
