"""L-BFGS-B (Byrd, Lu, Nocedal and Zhu 1995) in SciPy's implementation, stepped by reverse communication.

`scipy.optimize.minimize` can neither be suspended nor resumed: its memory is lost, and a resumed run would take another
path. The routine below it asks for evaluations one at a time and keeps everything that it knows in arrays, which
are our checkpoint. A test holds it to `minimize(method="L-BFGS-B")`, evaluation for evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.optimize import _lbfgsb

from worker.core.outer.search import Search, SearchSettings
from worker.core.outer_objective import Objective
from worker.core.records import Array, Outcome, Trial

MEMORY = 10  # correction pairs; SciPy's default
LINE_SEARCH_STEPS = 20  # SciPy's default
NEW_ITERATION, EVALUATE = 1, 3  # values of task[0]; anything else: it can go no further


@dataclass(frozen=True, slots=True)
class Lbfgs(SearchSettings):
    """Limited-memory quasi-Newton search with bounds: gradients only, memory linear in the hyperparameters."""

    kind: Literal["lbfgs"] = "lbfgs"

    def search(self, objective: Objective, rho: Float[Array, " k"], state: Mapping[str, Array] | None = None) -> Search:
        """Trials from `rho`, or from the `state` of an earlier trial."""
        w = _workspace(rho) if state is None else {name: array.copy() for name, array in state.items()}
        if state is None:
            _advance(w, objective)
        elif ended := str(w["outcome"]):  # saved at its end, before that was reported
            return Outcome[ended]
        while w["task"][0] == EVALUATE:
            at = objective.evaluate(w["x"])
            first = not np.isfinite(w["ceiling"])
            if first and at.failure is not None:
                yield Trial(at, 0, np.inf, None)
                return at.failure
            # at a singular trial point J is infinite; a high finite value makes the line search turn back
            w["f"][...], w["g"][...] = min(at.value, float(w["ceiling"])), at.gradient
            w["ceiling"][...] = 10.0 * abs(at.value) + 1.0 if first else w["ceiling"]
            _advance(w, objective)
            outcome = self.settled(objective, at) if first else None
            if accepted := w["task"][0] == NEW_ITERATION:
                w["iteration"] += 1
                outcome = self.settled(objective, at) or self._out_of_iterations(int(w["iteration"]))
                if outcome is None:
                    _advance(w, objective)  # computes the next direction, and asks for the first point along it
            w["outcome"][...] = "" if outcome is None else outcome.name
            state = {name: array.copy() for name, array in w.items()} if first or accepted else None
            yield Trial(at, int(w["iteration"]), self.relative_gradient(objective, at), state)
            if outcome is not None:
                return outcome
        return Outcome.STALLED


def _advance(w: dict[str, Array], objective: Objective) -> None:
    """Run SciPy's routine until it wants an evaluation, has a new iterate or gives up. All tests of its own are off."""
    box = objective.hyperparameters
    bounded = np.full(len(w["x"]), 2, np.int32)  # 2: both bounds hold
    _lbfgsb.setulb(
        MEMORY, w["x"], box.lower, box.upper, bounded, w["f"], w["g"], 0.0, 0.0, w["wa"], w["iwa"],
        w["task"], w["lsave"], w["isave"], w["dsave"], LINE_SEARCH_STEPS, w["ln_task"],
    )  # fmt: skip


def _workspace(rho: Float[Array, " k"]) -> dict[str, Array]:
    """The arrays of `setulb`, as `scipy.optimize.minimize` lays them out."""
    k, m = len(rho), MEMORY
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
        "iteration": np.zeros((), np.int64),
        "ceiling": np.array(np.inf),
        "outcome": np.array("", dtype="U32"),
    }
