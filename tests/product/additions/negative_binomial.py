"""A training criterion with a loss that the product does not have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt

from tests.core.smooth.negative_binomial import NegativeBinomialLoss
from worker.core.losses.training_loss import TrainingLoss
from worker.core.rows.problem import Problem
from worker.core.training.examples import counts, example_table
from worker.core.training.generalized_linear import GeneralizedLinearTraining


@dataclass(frozen=True, slots=True)
class NegativeBinomialRegression(GeneralizedLinearTraining):
    """Regression of counts with the mean `mu = e^eta` and the variance `mu + mu^2 / size`."""

    size: Annotated[float, Gt(0)] = 2.0
    kind: Literal["negative_binomial"] = "negative_binomial"

    @staticmethod
    def example() -> Problem:
        """Counts."""
        return example_table(counts, offset=True)

    def row_loss(self, problem: Problem) -> TrainingLoss:
        """The negative binomial loss."""
        return NegativeBinomialLoss(self.size)
