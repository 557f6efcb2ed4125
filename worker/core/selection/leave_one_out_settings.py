"""Leave-one-out cross-validation in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from worker.core.family import ByKind
from worker.core.hypergradient import ExactHypergradient
from worker.core.losses import ResidualScore, SquaredError
from worker.core.objective.arithmetic_of_mean import ArithmeticOfMean, Digits
from worker.core.objective.fits import DirectFits
from worker.core.objective.kernel_leave_one_out import KernelLeaveOneOut
from worker.core.objective.learning import LearningRemark
from worker.core.objective.leave_one_out import LeaveOneOutFormula, RefittedRows
from worker.core.objective.mean_of_splits import HessianOfMean, MeanOfSplits
from worker.core.objective.meaning import MEAN_LOSS
from worker.core.objective.objective import Objective
from worker.core.rows.problem import Partition, Problem
from worker.core.selection.closed_form import ClosedForm, as_ridge, dual_matrix
from worker.core.training import KernelRidge, TableTraining


@dataclass(frozen=True, slots=True)
class LeaveOneOut(ClosedForm):
    """Leave-one-out cross-validation without refitting: the mean loss of `r_i / (1 - h_i)` (PRESS, Allen 1974).

    `h_i` is the leverage of row i, the derivative of its fitted value in its target.
    """

    loss: Annotated[ResidualScore, ByKind(named=True)] = SquaredError()  # noqa: RUF009 - frozen
    kind: Literal["leave_one_out"] = "leave_one_out"

    def objective(
        self,
        problem: Problem,
        partition: Partition,
        training: TableTraining,
        hypergradient: ExactHypergradient,
        trials: int = 1,
    ) -> Objective:
        """The outer objective."""
        rows, box = partition.rows((0,)), training.hyperparameters(problem)
        if isinstance(training, KernelRidge):
            split, kernel = training.exact(problem, partition, self.kind), training.kernel.over(problem.features)
            left_out = KernelLeaveOneOut(split, box, kernel, self.loss)
            remark = LearningRemark(kernel, split.X, box, MEAN_LOSS, left_out.value, left_out.value)
            return Objective(left_out, box, self.loss, "kernel_matrix", rows=left_out.scores, notes=(remark,))
        training = as_ridge(training, self.kind)
        refits = training.refits(problem, rows, training.score(self.loss))
        if refits is not None:
            fits = DirectFits(refits, box)
            formula = RefittedRows(MeanOfSplits(fits, hypergradient), fits)
            arithmetic = ArithmeticOfMean(Digits(fits, [one.loss for one in refits]), self.loss, None, "refits")
            return Objective(
                formula, box, self.loss, refits[0].solver,
                second=HessianOfMean(fits), rows=formula.scores, arithmetic=arithmetic,
            )  # fmt: skip
        dual = dual_matrix(hypergradient)
        trials = trials if dual is None else 1
        systems = training.systems(problem, partition, loss=self.loss, dual=dual, left_out=True, trials=trials)
        fits = DirectFits(systems, box)
        closed = LeaveOneOutFormula(
            fits, Digits(fits, [system.loss for system in systems]), hypergradient, self.loss,
            problem.base_weights(rows), training.eliminates_intercept,
        )  # fmt: skip
        return Objective(
            closed, box, self.loss, systems[0].solver,
            second=closed.hessian, rows=closed.scores, arithmetic=closed,
        )  # fmt: skip
