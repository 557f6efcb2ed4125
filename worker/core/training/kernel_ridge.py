"""Ridge regression in the space of a kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Int

from worker.core.capabilities import Capability
from worker.core.inner.kernel.kernel_fit import Split
from worker.core.losses import ResidualLoss, SelectionLoss, SquaredError
from worker.core.losses.training import (
    HalfSquaredError,
    MachineLoss,
)
from worker.core.records import Array
from worker.core.rows.filled import split_problems
from worker.core.rows.problem import Partition, Problem
from worker.core.training.examples import example_table, normal_errors
from worker.core.training.kernel_machines import KernelTraining
from worker.core.training.training_criterion import Parts


@dataclass(frozen=True, slots=True)
class KernelRidge(KernelTraining):
    """Ridge regression in the space of a kernel: the mean of a Gaussian process."""

    kind: Literal["kernel_ridge"] = "kernel_ridge"

    iterative: ClassVar[bool] = False
    classifies: ClassVar[bool] = False
    most_classes: ClassVar[None] = None
    class_weights: ClassVar[None] = None

    @staticmethod
    def example() -> Problem:
        """Numbers with normal errors."""
        return example_table(normal_errors)

    @property
    def parts(self) -> Parts:
        """Rows and, without landmarks, the whole kernel matrix."""
        if self.landmarks is None:
            return Parts(rows=self, kernel_matrix=self)
        return Parts(
            rows=self,
            withheld={
                Capability.KERNEL_MATRIX: (
                    "landmarks",
                    "needs the exact kernel matrix; leave landmarks out, or use k_fold or holdout",
                )
            },
        )

    def penalties_of_separable(self, problem: Problem) -> int:
        """None: the target is no class."""
        return 0

    def row_loss(self, problem: Problem, rows: Int[Array, " m"] | None = None) -> MachineLoss:
        """Half the squared error."""
        return HalfSquaredError()

    def score(self, loss: SelectionLoss | None) -> ResidualLoss:
        """The selection loss; squared error by default. Raises ValueError for a loss of classes."""
        if loss is None:
            return SquaredError()
        if loss.residual_loss is None:
            raise ValueError(f"{loss.kind} scores classes; kernel_ridge predicts numbers: use squared_error or huber")
        return loss.residual_loss

    def check_target(self, problem: Problem) -> None:
        """Raises ValueError if a target cannot be trained on. Here any number can."""

    def check_splits(self, problem: Problem, partition: Partition, loss: SelectionLoss | None) -> None:
        """Raises ValueError if a split lacks what training or the selection loss needs. Here nothing is needed."""

    def check_left_out(self, problem: Problem, rows: Int[Array, " m"]) -> None:
        """Raises ValueError if leave-one-out would score rows that do not train."""
        if problem.score_weights(rows[problem.base_weights(rows) == 0]).any():
            raise ValueError(
                "leave_one_out of kernel_ridge scores training rows only; give rows of weight 0 the scoring weight 0"
            )

    def trained_rows(self, problem: Problem, partition: Partition) -> Split:
        """All rows with a positive weight, for a criterion of one fit on all of them."""
        rows = partition.rows((0,))
        trained = problem.trained(rows)
        self.check_size(len(rows), problem.X.shape[1])
        return self._split(split_problems(problem, partition)[0], trained, trained)[0]
