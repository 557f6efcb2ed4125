"""Approximate leave-one-out cross-validation of generalized linear models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from worker.core.capabilities import Capability, Need
from worker.core.family import ByKind
from worker.core.hypergradient import ExactHypergradient
from worker.core.losses import Score
from worker.core.objective.approximate_leave_one_out import ApproximateLeaveOneOutFormula
from worker.core.objective.fits import AnchoredFits
from worker.core.objective.objective import Objective
from worker.core.objective.rough_loss import RoughLossRemark
from worker.core.objective.scored_rows import PredictedRows
from worker.core.rows.problem import Partition, Problem
from worker.core.selection.closed_form import ClosedForm
from worker.core.selection.selection_criterion import lacking
from worker.core.training import TrainingCriterion


@dataclass(frozen=True, slots=True)
class ApproximateLeaveOneOut(ClosedForm):
    """Leave-one-out cross-validation of a generalized linear model, with one Newton step per row (Rad and Maleki 2018).

    It would be exact for squared loss. By default the training criterion chooses the `loss`.
    """

    loss: Annotated[Score, ByKind(named=True)] | None = None
    kind: Literal["approximate_leave_one_out"] = "approximate_leave_one_out"

    needs: ClassVar[tuple[Need, ...]] = (frozenset({Capability.CURVATURE}),)
    alternatives: ClassVar[tuple[str, ...]] = ("leave_one_out", "k_fold")
    has_hessian: ClassVar[bool] = False
    takes_factor: ClassVar[bool] = True
    leaves_rows_out: ClassVar[bool] = True
    takes_loss: ClassVar[bool] = True

    @property
    def given_loss(self) -> Score | None:
        """The loss that the caller chose; None if the training criterion chooses it."""
        return self.loss

    def hyperparameters(self) -> None:
        """None: the selection criterion has no hyperparameters of its own."""

    def objective(
        self,
        problem: Problem,
        partition: Partition,
        training: TrainingCriterion,
        hypergradient: ExactHypergradient,
        trials: int = 1,
    ) -> Objective:
        """The outer objective. It factors the Hessian of all coefficients, however many there are."""
        if (curved := training.parts.curved) is None:
            raise lacking(self.kind, training)
        loss = curved.selection_loss(problem, self.loss, partition.rows((0,)))
        systems, box = curved.factored_systems(problem, partition, self.loss), training.hyperparameters(problem)
        fits = AnchoredFits(systems, box)
        formula, rows = ApproximateLeaveOneOutFormula(fits), PredictedRows(fits, [system.loss for system in systems])
        return Objective(
            formula, box, loss, systems[0].solver,
            warm=fits, rows=formula.scores, tangents=formula.tangents, pool=rows.pooled, notes=(RoughLossRemark(fits),),
        )  # fmt: skip
