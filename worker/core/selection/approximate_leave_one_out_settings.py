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
    """Leave-one-out cross-validation of a generalized linear model, by one Newton step a row (Rad and Maleki 2018).

    With squared loss it would be exact. `loss` is by default what the training criterion suggests.
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
        """The outer objective. Factors the Hessian of all coefficients whatever their number."""
        self.check(training, problem)
        factored, loss = with_factor(training, self.kind), training.selection_loss(problem, self.loss)
        systems = factored.systems(problem, partition, loss=self.loss)
        return ApproximateLeaveOneOutObjective(systems, training.hyperparameters(problem), hypergradient, loss)
