"""Approximate leave-one-out cross-validation of generalized linear models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from worker.core.family import ByKind
from worker.core.hypergradient import ExactHypergradient
from worker.core.losses import Score
from worker.core.objective.approximate_leave_one_out import ApproximateLeaveOneOutFormula
from worker.core.objective.fits import AnchoredFits
from worker.core.objective.objective import Objective
from worker.core.objective.rough_loss import RoughLossRemark
from worker.core.objective.scored_rows import PredictedRows
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

    leaves_rows_out: ClassVar[bool] = True
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
        systems, box = factored.systems(problem, partition, loss=self.loss), training.hyperparameters(problem)
        fits = AnchoredFits(systems, box)
        formula, rows = ApproximateLeaveOneOutFormula(fits), PredictedRows(fits, [system.loss for system in systems])
        return Objective(
            formula, box, loss, systems[0].solver,
            warm=fits, rows=formula.scores, pool=rows.pooled, notes=(RoughLossRemark(fits),),
        )  # fmt: skip
