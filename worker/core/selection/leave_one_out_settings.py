"""Leave-one-out cross-validation in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from worker.core.family import ByKind
from worker.core.hypergradient import ExactHypergradient
from worker.core.losses import ResidualLoss, SquaredError
from worker.core.objective.kernel_leave_one_out import KernelLeaveOneOut
from worker.core.objective.leave_one_out import LeaveOneOutObjective, RefittedLeaveOneOut
from worker.core.objective.objective import Objective
from worker.core.rows.problem import Partition, Problem
from worker.core.selection.closed_form import ClosedForm, as_ridge, dual_matrix
from worker.core.training import KernelRidge, TableTraining


@dataclass(frozen=True, slots=True)
class LeaveOneOut(ClosedForm):
    """Leave-one-out cross-validation without refitting: the mean loss of `r_i / (1 - h_i)` (PRESS, Allen 1974).

    `h_i` is the leverage of row i, the derivative of its fitted value in its target.
    """

    loss: Annotated[ResidualLoss, ByKind(named=True)] = SquaredError()  # noqa: RUF009 - frozen
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
        if isinstance(training, KernelRidge):
            split, kernel = training.exact(problem, partition, self.kind), training.kernel.over(problem.features)
            return KernelLeaveOneOut(split, training.hyperparameters(problem), kernel, self.loss)
        training = as_ridge(training, self.kind)
        rows, box = partition.rows((0,)), training.hyperparameters(problem)
        refits = training.refits(problem, rows, training.score(self.loss))
        if refits is not None:
            return RefittedLeaveOneOut(refits, box, hypergradient, self.loss)
        dual = dual_matrix(hypergradient)
        trials = trials if dual is None else 1
        systems = training.systems(problem, partition, loss=self.loss, dual=dual, left_out=True, trials=trials)
        base = problem.base_weights(rows)
        return LeaveOneOutObjective(
            systems, box, hypergradient, self.loss, base=base, eliminated=training.eliminates_intercept
        )
