"""What outer optimizers share: settings, and the test that ends a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le
from jaxtyping import Float

from worker.core.objective.objective import Objective
from worker.core.records import Array, Evaluation, Outcome

FEWEST_ITERATIONS, MOST_ITERATIONS = 100, 2000  # of a budget that is not given: the first and one a hyperparameter


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """Budget and accuracy of one search.

    `tolerance`: stop when every component of the projected gradient `dJ/d log(lam)` is at most this, relative to |J|.
    `max_iterations` applies to each start; null is 100 and one more for each hyperparameter, at most 2000. `starts`:
    the initial value, then random points within three decades of it.
    """

    max_iterations: Annotated[int, Ge(1), Le(100_000)] | None = None
    tolerance: Annotated[float, Gt(0), Le(1)] = 1e-6
    starts: Annotated[int, Ge(1), Le(1000)] = 1

    needs_hessian: ClassVar[bool] = False  # of J, and exact
    scan_accuracy: ClassVar[float | None] = None  # of the fits of a coarse scan; exact by default

    def relative_gradient(self, objective: Objective, at: Evaluation) -> float:
        """Largest component of the projected gradient, relative to the unit of J; zero at a stationary point."""
        projected: Float[Array, " k"] = objective.hyperparameters.projected(at.rho, at.gradient)
        return float(np.abs(projected).max(initial=0.0) / objective.unit(at.value))

    def glance(self, objective: Objective, rho: Float[Array, " k"]) -> Evaluation:
        """J and its gradient as a coarse scan needs them."""
        if self.scan_accuracy is not None:
            at = objective.approximate(rho, self.scan_accuracy)
            if np.isfinite(at.ceiling):
                return at
        return objective.evaluate(rho)

    def settled(self, objective: Objective, at: Evaluation) -> Outcome | None:
        """CONVERGED or AT_BOUNDS at a stationary point; else None. A gradient that is not a number is no such point."""
        if at.failure is not None or not self.relative_gradient(objective, at) <= self.tolerance:
            return None
        all_at_bounds = all(objective.hyperparameters.at_bound(at.rho))
        return Outcome.AT_BOUNDS if all_at_bounds else Outcome.CONVERGED

    def most_iterations(self, k: int) -> int:
        """The budget of one start with `k` hyperparameters."""
        return min(FEWEST_ITERATIONS + k, MOST_ITERATIONS) if self.max_iterations is None else self.max_iterations

    def out_of_iterations(self, objective: Objective, iteration: int) -> Outcome | None:
        """MAX_ITERATIONS after as many as there may be; else None."""
        most = self.most_iterations(len(objective.hyperparameters.names))
        return Outcome.MAX_ITERATIONS if iteration >= most else None
