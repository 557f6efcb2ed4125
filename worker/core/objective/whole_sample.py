"""The base of objectives with one value for the whole sample instead of a mean over rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from worker.core.objective.fitted import FittedObjective
from worker.core.objective.objective import Scores
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem


@dataclass(slots=True)
class WholeSampleObjective(FittedObjective):
    """An objective of one fit on all `rows`."""

    rows: int = 0
    penalties: int = 0  # the number of penalties, the first hyperparameters
    has_intercept: bool = False
    eliminated: bool = False  # whether the intercept is not part of theta

    @property
    def is_mean_loss(self) -> bool:
        """No: one value of the whole sample."""
        return False

    def row_scores(self, problem: Problem, partition: Partition, rho: Float[Array, " k"]) -> Scores | None:
        """None: J is not a mean over rows."""
        return None

    def _only_penalties(self, gradient: Float[Array, " k"]) -> Float[Array, " k"]:
        """The gradient with zeros for all hyperparameters but penalties."""
        return np.where(np.arange(len(gradient)) < self.penalties, gradient, 0.0)
