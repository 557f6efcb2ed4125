"""Support vector machines and logistic regression in the space of a kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Lt
from jaxtyping import Int

from worker.core.losses import Prediction, SelectionLoss, chosen
from worker.core.losses.elementary import refuse_binary
from worker.core.losses.training import (
    HuberizedHingeLoss,
    LogisticLoss,
    MachineLoss,
    SquaredHingeLoss,
)
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem
from worker.core.training.class_weights import (
    ClassWeights,
    check_classes,
)
from worker.core.training.examples import TWO_CLASSES, example_table, likely_classes
from worker.core.training.kernel_machines import KernelTraining
from worker.core.training.training_criterion import Parts


@dataclass(frozen=True, slots=True)
class KernelClassifier(KernelTraining):
    """A classifier of two classes.

    `class_weights`: factors of the training weights by class name (1 for a class that is not named), or `balanced`:
    inversely proportional to the class's fraction of the training rows.
    """

    class_weights: ClassWeights | None = None

    classifies: ClassVar[bool] = True
    most_classes: ClassVar[int] = 2
    iterative: ClassVar[bool] = True
    predicts: ClassVar[frozenset[Prediction]] = frozenset({"class"})

    @property
    def parts(self) -> Parts:
        """Rows."""
        return Parts(rows=self)

    def score(self, loss: SelectionLoss | None) -> SelectionLoss:
        """The selection loss; by default the first that fits. Raises ValueError for one that does not."""
        return chosen(loss, self.predicts)

    def check_target(self, problem: Problem) -> None:
        """Raises RowError if a target is neither 0 nor 1."""
        refuse_binary(problem.y)

    def check_splits(self, problem: Problem, partition: Partition, loss: SelectionLoss | None) -> None:
        """Raises ValueError if a split trains on no row of a class, or lacks one that its AUC or F measure needs."""
        check_classes(problem, partition, self.selection_loss(problem, loss, partition.used))


@dataclass(frozen=True, slots=True)
class KernelSvm(KernelClassifier):
    """A support vector machine with a differentiable hinge: with the plain hinge J would have steps.

    `hinge`: `squared` is `max(0, 1 - z)^2 / 2`, `huberized` the hinge with a parabola of this `half_width` at its kink.
    """

    hinge: Literal["squared", "huberized"] = "squared"
    half_width: Annotated[float, Ge(0.01), Lt(1)] = 0.5
    kind: Literal["kernel_svm"] = "kernel_svm"

    predicts: ClassVar[frozenset[Prediction]] = frozenset({"class", "rank", "decision_value"})

    @staticmethod
    def example() -> Problem:
        """Two classes."""
        return example_table(likely_classes, TWO_CLASSES)

    def penalties_of_separable(self, problem: Problem) -> int:
        """None: the hinge is zero at finite coefficients."""
        return 0

    def row_loss(self, problem: Problem, rows: Int[Array, " m"] | None = None) -> MachineLoss:
        """The hinge."""
        return SquaredHingeLoss() if self.hinge == "squared" else HuberizedHingeLoss(self.half_width)


@dataclass(frozen=True, slots=True)
class KernelLogistic(KernelClassifier):
    """Logistic regression of two classes in the space of a kernel."""

    kind: Literal["kernel_logistic"] = "kernel_logistic"

    predicts: ClassVar[frozenset[Prediction]] = frozenset({"probability", "likelihood", "class", "rank"})

    @staticmethod
    def example() -> Problem:
        """Two classes."""
        return example_table(likely_classes, TWO_CLASSES)

    def penalties_of_separable(self, problem: Problem) -> int:
        """The penalty, before the hyperparameters of the kernel."""
        return 1

    def row_loss(self, problem: Problem, rows: Int[Array, " m"] | None = None) -> MachineLoss:
        """The log-loss."""
        return LogisticLoss()
