"""How a search leaves plateaus: hyperparameters in which J is nearly flat, although J decreases further away.

Far from its optimum a penalty changes J like `exp(-|rho|)`. If that is below the tolerance, the slope looks like one at
a minimum. A step downhill shows the difference: from a minimum J rises, or its slope levels off; from a plateau the
slope becomes steeper.

A hyperparameter is looked at in this way only if its slope has met the tolerance from the start to the end of a search.
One that was steeper in between has descended to where it is.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from worker.core.objective.objective import Objective
from worker.core.outer.descend import Optimizer, Search, Trials
from worker.core.records import Array, Evaluation, Outcome, Trial

FIRST_STEP, LATER_STEP = 1.0, 2.0  # of each hyperparameter, in rho: too short to jump over a minimum
ROUNDING_NOISE = 1e-14  # of J in its unit, and of its relative gradient
PREFIX = "plateau."  # in a state it marks the two arrays of this file
FLAT, PLACE = PREFIX + "flat", PREFIX + "rho"  # which hyperparameters have been flat all the time; the point
SETTLED = {Outcome.CONVERGED, Outcome.AT_BOUNDS}


def search_off_plateaus(
    outer: Optimizer, objective: Objective, rho: Float[Array, " k"], state: Mapping[str, Array] | None
) -> Search:
    """A search from `rho`, or from an earlier `state`. If it ends where some are on plateaus, it goes on off these.

    Whoever has been moved off a plateau is not looked at again, so there are few searches.
    """
    own: Mapping[str, Array] | None = None
    flat: Bool[Array, " k"] | None = None
    if state is not None:
        own = {name: array for name, array in state.items() if not name.startswith(PREFIX)}
        flat, rho = state.get(FLAT, np.zeros(len(rho), bool)), state.get(PLACE, rho)
    while True:
        trials = Trials(outer.search(objective, rho, own))
        for trial in trials:
            if trial.state is None:
                yield trial
                continue
            now, rho = _flat(outer, objective, trial.evaluation), trial.evaluation.rho
            flat = now if flat is None else flat & now
            saved = {FLAT: flat, PLACE: rho} if flat.any() else {}
            yield replace(trial, state={**trial.state, **saved})
        if trials.outcome not in SETTLED or flat is None or not flat.any():
            return trials.outcome
        new_start = yield from _off_plateau(outer, objective, rho, flat)
        if new_start is None:
            return trials.outcome
        rho, flat, own = new_start, flat & (new_start == rho), None


def _flat(outer: Optimizer, objective: Objective, at: Evaluation) -> Bool[Array, " k"]:
    """The hyperparameters whose slope meets the tolerance."""
    slope = objective.hyperparameters.projected(at.rho, at.gradient)
    return np.asarray(np.abs(slope) <= outer.tolerance * objective.unit(at.value))


def _off_plateau(
    outer: Optimizer, objective: Objective, rho: Float[Array, " k"], flat: Bool[Array, " k"]
) -> Generator[Trial, None, Float[Array, " k"] | None]:
    """A new start downhill of `rho`, from which no slope of the `flat` becomes steeper; None if none is on a plateau.

    `rho` meets the tolerance, the new start does not. Near a minimum this takes one evaluation. A search from a point
    whose slope just exceeds the tolerance could jump over the minimum, to the plateau on its other side.
    """
    box, at, length = objective.hyperparameters, objective.evaluate(rho), FIRST_STEP
    slope = box.projected(at.rho, at.gradient)
    moving = flat & (np.abs(slope) > ROUNDING_NOISE * objective.unit(at.value))
    downhill = -np.sign(slope)
    while moving.any():
        point = np.where(moving, np.clip(at.rho + length * downhill, box.lower, box.upper), at.rho)
        moving = point != at.rho
        if not moving.any():
            break
        new = objective.evaluate(point)
        yield Trial(new, 0, outer.relative_gradient(objective, new) if new.failure is None else np.inf, None)
        if new.failure is not None:
            break
        steeper = moving & (new.gradient * downhill < at.gradient * downhill)
        if new.value <= at.value + ROUNDING_NOISE * objective.unit(at.value):  # rounding hides the first steps
            at, length, moving = new, LATER_STEP, steeper
        elif (moving == steeper).all():
            break
        else:
            moving = steeper  # the others may have made J rise
    moved = bool((at.rho != rho).any())
    return at.rho if moved and outer.relative_gradient(objective, at) > outer.tolerance else None
