"""The outer objective of a quadratic selection criterion that the caller brings."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float

from worker.core.inner.given.matrix_sum import QuadraticLoss
from worker.core.objective.fitted import FittedObjective
from worker.core.objective.objective import Scores
from worker.core.records import Array, Outcome
from worker.core.rows.problem import Partition, Problem

SMALLEST_UNIT = 1e-8  # relative to |E| at theta = 0; smaller values count as zero


class QuadraticObjective(FittedObjective):
    """`J(rho) = E(theta(rho))` for a criterion E that the caller brings: no rows, no splits, any sign."""

    singular: ClassVar[Outcome] = Outcome.INDEFINITE

    def unit(self, value: float) -> float:
        """J itself, but at least a small fraction of E at theta = 0."""
        loss = self.systems[0].loss
        assert isinstance(loss, QuadraticLoss)
        return max(abs(value), SMALLEST_UNIT * abs(loss.constant)) or 1.0

    @property
    def is_mean_loss(self) -> bool:
        """No: there are no rows."""
        return False

    def noticeable(self, standard_error: float | None) -> float | None:
        """None: only the caller knows which rise of J matters."""
        return None

    def row_scores(self, problem: Problem, partition: Partition, rho: Float[Array, " k"]) -> Scores | None:
        """None: there are no rows."""
        return None
