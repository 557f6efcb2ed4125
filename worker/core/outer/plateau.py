"""Off a plateau: a start where J is nearly flat, although it falls further away.

Far from its optimum a penalty changes J like `exp(-|rho|)`. Where that is less than the tolerance, the gradient looks
like that of a minimum. The way downhill tells them apart: from a minimum J rises along it, or its slope levels off; off
a plateau the slope becomes steeper.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from jaxtyping import Float

from worker.core.objective.objective import Objective
from worker.core.outer.search import SearchSettings
from worker.core.records import Array, Evaluation, Trial

FIRST_STRIDE, STRIDE = 1.0, 2.0  # of the steepest hyperparameter on the scale of rho: too short to jump over a minimum
NOISE = 1e-14  # of J over its unit, and of its relative gradient: rounding alone


def off_plateau(
    settings: SearchSettings, objective: Objective, rho: Float[Array, " k"]
) -> Generator[Trial, None, Float[Array, " k"] | None]:
    """A point downhill of `rho` where the slope becomes no steeper, a fit start; None where `rho` is on no plateau.

    `rho` meets the tolerance, and the point does not. One evaluation beside a minimum. A search that began where the
    gradient just exceeds the tolerance could jump over the minimum, to the plateau on its other side.
    """
    box = objective.hyperparameters
    at = objective.evaluate(rho)
    downhill = -box.projected(at.rho, at.gradient)
    if at.failure is not None or settings.relative_gradient(objective, at) <= NOISE:
        return None
    downhill = downhill / np.abs(downhill).max()
    stride, steeper = FIRST_STRIDE, True
    while steeper:
        point = np.clip(at.rho + stride * downhill, box.lower, box.upper)
        along = point - at.rho
        if not along.any():
            break
        new = objective.evaluate(point)
        yield Trial(new, 0, settings.relative_gradient(objective, new) if new.failure is None else np.inf, None)
        if not _falls(objective, at, new):
            break
        steeper = float(new.gradient @ along) < float(at.gradient @ along)
        at, stride = new, STRIDE
    return at.rho if settings.relative_gradient(objective, at) > settings.tolerance else None


def _falls(objective: Objective, at: Evaluation, new: Evaluation) -> bool:
    """Not higher, up to rounding, which hides the first steps off a plateau."""
    return new.failure is None and new.value <= at.value + NOISE * objective.unit(at.value)
