"""What the objectives share that give one value of the whole sample, not a mean over rows."""

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
    """An objective of one fit on all `rows`, with how many unpenalized parameters an intercept adds."""

    rows: int = 0
    penalties: int = 0  # hyperparameters that are penalties come first
    has_intercept: bool = False
    eliminated: bool = False  # whether the intercept is no part of theta

    @property
    def is_mean_loss(self) -> bool:
        """No: one value of the whole sample."""
        return False

    def row_scores(self, problem: Problem, partition: Partition, rho: Float[Array, " k"]) -> Scores | None:
        """None: the criterion is no mean of scores of rows."""
        return None

    def _only_penalties(self, gradient: Float[Array, " k"]) -> Float[Array, " k"]:
        return np.where(np.arange(len(gradient)) < self.penalties, gradient, 0.0)
