"""Approximate leave-one-out cross-validation of generalized linear models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from worker.core.family import ByKind
from worker.core.hypergradient import ExactHypergradient
from worker.core.losses import Score
from worker.core.objective.approximate_leave_one_out import ApproximateLeaveOneOutObjective
from worker.core.objective.objective import Objective
from worker.core.rows.problem import Partition, Problem
from worker.core.selection.closed_form import ClosedForm, as_generalized_linear, with_factor
from worker.core.training import TableTraining


@dataclass(frozen=True, slots=True)
class ApproximateLeaveOneOut(ClosedForm):
    """Leave-one-out cross-validation of a generalized linear model, with one Newton step per row (Rad and Maleki 2018).

    It would be exact for squared loss. By default the training criterion chooses the `loss`.
    """

    loss: Annotated[Score, ByKind(named=True)] | None = None
    kind: Literal["approximate_leave_one_out"] = "approximate_leave_one_out"

    has_hessian: ClassVar[bool] = False

    def check(self, training: TableTraining, problem: Problem) -> None:
        """Raises ValueError unless the training criterion is a generalized linear model."""
        as_generalized_linear(training, self.kind)

    def objective(
        self,
        problem: Problem,
        partition: Partition,
        training: TableTraining,
        hypergradient: ExactHypergradient,
        trials: int = 1,
    ) -> Objective:
        """The outer objective. It factors the Hessian of all coefficients, however many there are."""
        self.check(training, problem)
        factored, loss = with_factor(training, self.kind), training.selection_loss(problem, self.loss)
        systems = factored.systems(problem, partition, loss=self.loss)
        return ApproximateLeaveOneOutObjective(systems, training.hyperparameters(problem), hypergradient, loss)
