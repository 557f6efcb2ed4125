"""A training criterion with a loss that the product does not have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Gt
from jaxtyping import Int

from tests.core.smooth.negative_binomial import NegativeBinomialLoss
from worker.core.losses import Prediction, SelectionLoss, chosen
from worker.core.losses.training_loss import TrainingLoss
from worker.core.records import Array
from worker.core.rows.problem import Problem
from worker.core.training.examples import counts, example_table
from worker.core.training.generalized_linear import GeneralizedLinearTraining


@dataclass(frozen=True, slots=True)
class NegativeBinomialRegression(GeneralizedLinearTraining):
    """Regression of counts with the mean `mu = e^eta` and the variance `mu + mu^2 / size`."""

    size: Annotated[float, Gt(0)] = 2.0
    kind: Literal["negative_binomial"] = "negative_binomial"

    family: ClassVar[TrainingLoss] = NegativeBinomialLoss(1.0)
    predicts: ClassVar[frozenset[Prediction]] = frozenset({"likelihood"})
    classifies: ClassVar[bool] = False
    most_classes: ClassVar[None] = None
    class_weights: ClassVar[None] = None
    refuses_offset: ClassVar[None] = None
    length: ClassVar[None] = None

    @staticmethod
    def example() -> Problem:
        """Counts."""
        return example_table(counts, offset=True)

    def row_loss(self, problem: Problem, rows: Int[Array, " m"] | None = None) -> TrainingLoss:
        """The negative binomial loss."""
        return NegativeBinomialLoss(self.size)

    def score(self, loss: SelectionLoss | None) -> SelectionLoss:
        """The deviance. Raises ValueError for a loss that does not fit."""
        return chosen(loss, self.predicts)
