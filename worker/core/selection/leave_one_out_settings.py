"""Leave-one-out cross-validation in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from worker.core.capabilities import Capability, Need
from worker.core.family import ByKind
from worker.core.hypergradient import ExactHypergradient
from worker.core.losses import ResidualScore, SquaredError
from worker.core.objective.arithmetic_of_mean import ArithmeticOfMean, Digits
from worker.core.objective.fits import DirectFits
from worker.core.objective.kernel_leave_one_out import KernelLeaveOneOut
from worker.core.objective.learning import LearningRemark
from worker.core.objective.leave_one_out import LeaveOneOutFormula, RefittedRows
from worker.core.objective.linear_tangents import RefittedTangents
from worker.core.objective.mean_of_splits import HessianOfMean, MeanOfSplits
from worker.core.objective.meaning import MEAN_LOSS
from worker.core.objective.objective import Objective
from worker.core.rows.problem import Partition, Problem
from worker.core.selection.closed_form import ClosedForm, dual_matrix
from worker.core.selection.selection_criterion import lacking
from worker.core.training import TrainingCriterion


@dataclass(frozen=True, slots=True)
class LeaveOneOut(ClosedForm):
    """Leave-one-out cross-validation without refitting: the mean loss of `r_i / (1 - h_i)` (PRESS, Allen 1974).

    `h_i` is the leverage of row i, the derivative of its fitted value in its target.
    """

    loss: Annotated[ResidualScore, ByKind(named=True)] = SquaredError()  # noqa: RUF009 - frozen
    kind: Literal["leave_one_out"] = "leave_one_out"

    needs: ClassVar[tuple[Need, ...]] = (frozenset({Capability.LEAST_SQUARES, Capability.KERNEL_MATRIX}),)
    alternatives: ClassVar[tuple[str, ...]] = ("approximate_leave_one_out", "k_fold")
    leaves_rows_out: ClassVar[bool] = True
    takes_loss: ClassVar[bool] = True

    @property
    def given_loss(self) -> ResidualScore:
        """The loss of a row that is left out."""
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
        """The outer objective."""
        rows, box = partition.rows((0,)), training.hyperparameters(problem)
        loss = self.loss.in_units(problem, rows)
        if (of_kernel := training.parts.kernel_matrix) is not None:
            of_kernel.check_left_out(problem, rows)
            split, kernel = of_kernel.trained_rows(problem, partition), of_kernel.function(problem)
            left_out = KernelLeaveOneOut(split, box, kernel, loss)
            remark = LearningRemark(kernel, split.X, box, MEAN_LOSS, left_out.value, left_out.value)
            return Objective(
                left_out, box, loss, "kernel_matrix",
                rows=left_out.scores, tangents=left_out.tangents, notes=(remark,),
            )  # fmt: skip
        if (least_squares := training.parts.least_squares) is None:
            raise lacking(self.kind, training)
        refits = least_squares.refits(problem, rows, loss)
        if refits is not None:
            fits = DirectFits(refits, box)
            formula = RefittedRows(MeanOfSplits(fits, hypergradient), fits)
            arithmetic = ArithmeticOfMean(Digits(fits, [one.loss for one in refits]), loss, None, "refits")
            return Objective(
                formula, box, loss, refits[0].solver,
                second=HessianOfMean(fits), rows=formula.scores, tangents=RefittedTangents(fits, refits, loss),
                arithmetic=arithmetic,
            )  # fmt: skip
        dual = dual_matrix(hypergradient)
        trials = trials if dual is None else 1
        systems = least_squares.systems(problem, partition, loss=loss, dual=dual, left_out=True, trials=trials)
        fits = DirectFits(systems, box)
        closed = LeaveOneOutFormula(
            fits, Digits(fits, [system.loss for system in systems]), hypergradient, loss,
            problem.base_weights(rows), least_squares.sample(problem, rows).eliminated,
        )  # fmt: skip
        return Objective(
            closed, box, loss, systems[0].solver,
            second=closed.hessian, rows=closed.scores, tangents=closed.tangents, arithmetic=closed,
        )  # fmt: skip
