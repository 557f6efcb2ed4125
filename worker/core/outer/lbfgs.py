"""L-BFGS-B (Byrd, Lu, Nocedal and Zhu 1995) in SciPy's implementation, stepped by reverse communication.

`scipy.optimize.minimize` cannot be suspended and resumed: its memory is lost, and a resumed run would take another
path. The routine below it asks for one evaluation at a time and keeps its whole state in arrays. They are our
checkpoint. A test compares this search with `minimize(method="L-BFGS-B")`, evaluation for evaluation.

The routine minimizes J divided by its steepest slope at the start. Its first step then moves one hyperparameter by
about one on the scale of rho. No iteration moves a hyperparameter by more than `LONGEST_MOVE`: a curvature near zero
would move all of them to a region where no row is similar to another and J is flat. To limit the move, the routine gets
the part of the box within this distance of the iterate.

A trial point of a line search may be lower than the iterate at which the gradient vanishes. The search then starts
again from that point.

If the routine gives up, J may have corners there. `corners.py` then goes on from the lowest point.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float
from scipy.optimize import _lbfgsb

from worker.core.hyperparameters import Hyperparameters
from worker.core.objective.objective import Objective
from worker.core.outer import corners
from worker.core.outer.descend import Optimizer
from worker.core.records import EQUAL_VALUES, Array, Evaluation, Outcome, Trial

LONGEST_MOVE = 4.0  # of one hyperparameter in one iteration, on the scale of rho: a factor of about 55
MEMORY_PAIRS = 10  # correction pairs; SciPy's default
LINE_SEARCH_STEPS = 20  # SciPy's default
Bounds = tuple[Float[Array, " k"], Float[Array, " k"]]
STATIONARY_OUTCOMES = {Outcome.CONVERGED, Outcome.AT_BOUNDS}
NEW_ITERATION, EVALUATE = 1, 3  # values of task[0]; at any other the routine has given up


@dataclass(frozen=True, slots=True)
class Lbfgs(Optimizer):
    """Limited-memory quasi-Newton search with bounds: gradients only, memory linear in the hyperparameters."""

    kind: Literal["lbfgs"] = "lbfgs"

    typical_evaluations: ClassVar[int] = 100

    def begin(self, objective: Objective, rho: Float[Array, " k"]) -> Generator[Trial, None, Trial]:
        """The start, which the routine asks for first. Its value and steepest slope give the units."""
        yield from ()  # no evaluation comes before
        w = _workspace(rho) | _bookkeeping(rho)
        _advance(w, _iteration_bounds(w, objective.hyperparameters))
        at = objective.evaluate(w["x"])
        if at.failure is not None:
            return Trial(at, 0, np.inf, None)
        unit = objective.unit(at.value)
        steepest = max(self.relative_gradient(objective, at), self.tolerance) * unit
        w["unit"][...] = 2.0 ** np.round(np.log2(steepest))  # a power of two, so that division does not round
        w["ceiling"][...] = 10.0 * abs(at.value) + unit
        return self._after(objective, w, at)

    def step(self, objective: Objective, state: dict[str, Array]) -> Generator[Trial, None, Trial | None]:
        """The next iterate; or, once the routine has given up, the next of a descent along corners."""
        if corners.is_own_state(state):
            return (yield from corners.step(self, objective, state))
        w = _complete(state)
        while w["task"][0] == EVALUATE:
            trial = self._after(objective, w, objective.evaluate(w["x"]))
            if trial.state is not None:
                return trial
            yield trial
        if len(w["x"]) > corners.MOST_HYPERPARAMETERS:
            return None
        return (yield from corners.step(self, objective, corners.new_state(w["lowest_x"], int(w["iteration"]))))

    def ended(self, objective: Objective, state: Mapping[str, Array]) -> Outcome | None:
        """As the state says: this is decided before the routine goes on, and the state is saved after that."""
        name = str(state.get("outcome", ""))
        return Outcome[name] if name else None

    def _after(self, objective: Objective, w: dict[str, Array], at: Evaluation) -> Trial:
        """Tell the routine J, and go on to the next point. The trial has a state if an iterate or a start is reached.

        At a singular trial point J is infinite; a high finite value makes the line search turn back.
        """
        box, begins = objective.hyperparameters, bool(w["begins"])
        if at.value < w["lowest"]:
            w["lowest"][...], w["lowest_x"][...] = at.value, at.rho
        w["f"][...], w["g"][...] = min(at.value, float(w["ceiling"])) / w["unit"], at.gradient / w["unit"]
        w["begins"][...] = False
        _advance(w, _iteration_bounds(w, box) if begins else (box.lower, box.upper))
        outcome = self.settled(objective, at) if begins else None
        if accepted := w["task"][0] == NEW_ITERATION:
            w["iteration"] += 1
            outcome = self.settled(objective, at) or self.out_of_iterations(objective, int(w["iteration"]))
            if outcome in STATIONARY_OUTCOMES and w["lowest"] < at.value - EQUAL_VALUES * objective.unit(at.value):
                w |= _workspace(w["lowest_x"])
                w["begins"][...], outcome = True, None
            if outcome is None:
                _advance(w, _iteration_bounds(w, box))  # asks for the first point along the next direction
        w["outcome"][...] = "" if outcome is None else outcome.name
        norm = self.relative_gradient(objective, at)
        return Trial(at, int(w["iteration"]), norm, w if begins or accepted else None)


def _iteration_bounds(w: dict[str, Array], box: Hyperparameters) -> Bounds:
    """The box of the iteration that begins at x. Hyperparameters on the linear scale have no longest move."""
    reach = np.where(box.log, LONGEST_MOVE, np.inf)
    return np.maximum(box.lower, w["x"] - reach), np.minimum(box.upper, w["x"] + reach)


def _advance(w: dict[str, Array], bounds: Bounds) -> None:
    """Run SciPy's routine until it wants an evaluation, has a new iterate or gives up; its own stopping tests are off.

    It reads the bounds when it computes a direction, and when it projects the gradient at the end of a line search.
    """
    bounded = np.full(len(w["x"]), 2, np.int32)  # 2: both bounds hold
    _lbfgsb.setulb(
        MEMORY_PAIRS, w["x"], *bounds, bounded, w["f"], w["g"], 0.0, 0.0, w["wa"], w["iwa"],
        w["task"], w["lsave"], w["isave"], w["dsave"], LINE_SEARCH_STEPS, w["ln_task"],
    )  # fmt: skip


def _workspace(rho: Float[Array, " k"]) -> dict[str, Array]:
    """The arrays of `setulb`, as `scipy.optimize.minimize` lays them out."""
    k, m = len(rho), MEMORY_PAIRS
    return {
        "x": rho.copy(),
        "f": np.zeros(()),
        "g": np.zeros(k),
        "wa": np.zeros(2 * m * k + 5 * k + 11 * m * m + 8 * m),
        "iwa": np.zeros(3 * k, np.int32),
        "task": np.zeros(2, np.int32),
        "ln_task": np.zeros(2, np.int32),
        "lsave": np.zeros(4, np.int32),
        "isave": np.zeros(44, np.int32),
        "dsave": np.zeros(29),
    }


def _bookkeeping(rho: Float[Array, " k"]) -> dict[str, Array]:
    """The rest of the state, such as the unit of J, the largest value passed to SciPy, the lowest point so far."""
    return {
        "iteration": np.zeros((), np.int64),
        "begins": np.array(True),
        "unit": np.ones(()),
        "ceiling": np.array(np.inf),
        "lowest": np.array(np.inf),
        "lowest_x": rho.copy(),
        "outcome": np.array("", dtype="U32"),
    }


def _complete(state: dict[str, Array]) -> dict[str, Array]:
    """The arrays of a state. States of earlier versions have fewer."""
    missing = {name: array for name, array in _bookkeeping(state["x"]).items() if name not in state}
    if "begins" in missing:
        missing["begins"][...] = False
    return state | missing
