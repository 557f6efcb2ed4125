"""Linear classifiers with any number of L2 penalties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from jaxtyping import Int

from worker.core.family import ByKind
from worker.core.losses import Prediction, SelectionLoss, chosen
from worker.core.losses.training import (
    LogisticLoss,
    MultinomialLoss,
    SquaredHingeLoss,
    TrainingLoss,
)
from worker.core.penalties import ClassPenalty, Shared
from worker.core.records import Array
from worker.core.rows.problem import Problem
from worker.core.training.class_weights import ClassWeights
from worker.core.training.examples import (
    THREE_CLASSES,
    TWO_CLASSES,
    example_table,
    likely_classes,
)
from worker.core.training.generalized_linear import GeneralizedLinearTraining


@dataclass(frozen=True, slots=True)
class LinearClassifier(GeneralizedLinearTraining):
    """A classifier.

    `class_weights`: factors of the training weights by class name (1 for a class that is not named), or `balanced`:
    inversely proportional to the class's fraction of the training rows.
    """

    class_weights: ClassWeights | None = None

    classifies: ClassVar[bool] = True
    length: ClassVar[None] = None
    predicts: ClassVar[frozenset[Prediction]] = frozenset({"probability", "likelihood", "class", "rank"})

    def score(self, loss: SelectionLoss | None) -> SelectionLoss:
        """The selection loss; by default the first that fits. Raises ValueError for one that does not."""
        return chosen(loss, self.predicts)


@dataclass(frozen=True, slots=True)
class LogisticRegression(LinearClassifier):
    """Logistic regression of two classes with any number of L2 penalties (Foo, Do and Ng 2007)."""

    kind: Literal["logistic"] = "logistic"

    family: ClassVar[TrainingLoss] = LogisticLoss()
    most_classes: ClassVar[int] = 2
    refuses_offset: ClassVar[None] = None

    @staticmethod
    def example() -> Problem:
        """Two classes."""
        return example_table(likely_classes, TWO_CLASSES, offset=True)

    def row_loss(self, problem: Problem, rows: Int[Array, " m"] | None = None) -> TrainingLoss:
        """`log(1 + e^eta) - y eta`."""
        return LogisticLoss()


@dataclass(frozen=True, slots=True)
class SquaredHinge(LinearClassifier):
    """A linear support vector machine with the squared hinge loss `max(0, 1 - s eta)^2 / 2`, s = -1 or 1."""

    kind: Literal["squared_hinge"] = "squared_hinge"

    family: ClassVar[TrainingLoss] = SquaredHingeLoss()
    most_classes: ClassVar[int] = 2
    refuses_offset: ClassVar[None] = None
    predicts: ClassVar[frozenset[Prediction]] = frozenset({"class", "rank"})

    @staticmethod
    def example() -> Problem:
        """Two classes."""
        return example_table(likely_classes, TWO_CLASSES, offset=True)

    def row_loss(self, problem: Problem, rows: Int[Array, " m"] | None = None) -> TrainingLoss:
        """The squared hinge."""
        return SquaredHingeLoss()


@dataclass(frozen=True, slots=True)
class MultinomialRegression(LinearClassifier):
    """Multinomial logistic regression: a softmax over two or more classes, each with its own coefficients.

    All classes share the penalties; `per_class` and `per_coefficient` give each class or each coefficient its own.
    """

    penalty: Annotated[ClassPenalty, ByKind()] = Shared()  # type: ignore[assignment]  # noqa: RUF009 - frozen
    kind: Literal["multinomial"] = "multinomial"

    family: ClassVar[TrainingLoss] = MultinomialLoss(2)
    most_classes: ClassVar[None] = None
    refuses_offset: ClassVar[str] = (
        "An offset is the same for every class, so it changes nothing in multinomial; leave it out."
    )
    takes_splines: ClassVar[bool] = False
    predicts: ClassVar[frozenset[Prediction]] = frozenset({"probability", "likelihood", "class"})

    @staticmethod
    def example() -> Problem:
        """Three classes."""
        return example_table(likely_classes, THREE_CLASSES)

    def row_loss(self, problem: Problem, rows: Int[Array, " m"] | None = None) -> TrainingLoss:
        """The log-loss of the softmax."""
        return MultinomialLoss(len(problem.classes))
