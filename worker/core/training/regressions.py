"""Generalized linear regressions of numbers with any number of L2 penalties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Int

from worker.core.losses import Huber, Prediction, SelectionLoss, chosen
from worker.core.losses.relative import Delta, Length, RelativeDelta
from worker.core.losses.training import (
    GammaLoss,
    HuberLoss,
    PoissonLoss,
    TrainingLoss,
)
from worker.core.records import Array
from worker.core.rows.problem import Problem
from worker.core.training.examples import (
    amounts,
    counts,
    example_table,
    heavy_tails,
)
from worker.core.training.generalized_linear import GeneralizedLinearTraining


@dataclass(frozen=True, slots=True)
class LinearRegression(GeneralizedLinearTraining):
    """A regression of numbers."""

    classifies: ClassVar[bool] = False
    most_classes: ClassVar[None] = None
    class_weights: ClassVar[None] = None
    refuses_offset: ClassVar[None] = None


@dataclass(frozen=True, slots=True)
class PoissonRegression(LinearRegression):
    """Poisson regression of counts with the mean `e^eta`."""

    kind: Literal["poisson"] = "poisson"

    family: ClassVar[TrainingLoss] = PoissonLoss()
    length: ClassVar[None] = None
    predicts: ClassVar[frozenset[Prediction]] = frozenset({"likelihood"})

    @staticmethod
    def example() -> Problem:
        """Counts."""
        return example_table(counts, offset=True)

    def score(self, loss: SelectionLoss | None) -> SelectionLoss:
        """The deviance."""
        return chosen(loss, self.predicts)

    def row_loss(self, problem: Problem, rows: Int[Array, " m"] | None = None) -> TrainingLoss:
        """`e^eta - y eta`."""
        return PoissonLoss()


@dataclass(frozen=True, slots=True)
class GammaRegression(LinearRegression):
    """Regression of positive targets whose spread is proportional to their mean `e^eta`."""

    kind: Literal["gamma"] = "gamma"

    family: ClassVar[TrainingLoss] = GammaLoss()
    length: ClassVar[None] = None
    predicts: ClassVar[frozenset[Prediction]] = frozenset({"likelihood"})

    @staticmethod
    def example() -> Problem:
        """Positive amounts."""
        return example_table(amounts, offset=True)

    def score(self, loss: SelectionLoss | None) -> SelectionLoss:
        """The deviance."""
        return chosen(loss, self.predicts)

    def row_loss(self, problem: Problem, rows: Int[Array, " m"] | None = None) -> TrainingLoss:
        """`y e^-eta + eta`."""
        return GammaLoss()


@dataclass(frozen=True, slots=True)
class HuberRegression(LinearRegression):
    """Linear regression with the Huber loss: squared error up to residuals of `delta`, absolute error beyond.

    `delta` is a number in units of the target, or relative to the spread of the target in the training rows of each
    split.
    """

    delta: Delta = RelativeDelta()  # noqa: RUF009 - frozen
    kind: Literal["huber"] = "huber"

    family: ClassVar[TrainingLoss] = HuberLoss(1.0)
    predicts: ClassVar[frozenset[Prediction]] = frozenset({"number"})

    @staticmethod
    def example() -> Problem:
        """A straight line with outliers."""
        return example_table(heavy_tails, offset=True)

    @property
    def length(self) -> Length:
        """Delta."""
        return Length.given(self.delta)

    def score(self, loss: SelectionLoss | None) -> SelectionLoss:
        """The selection loss; by default the Huber error with the same delta."""
        return chosen(loss, self.predicts, Huber(self.delta))

    def row_loss(self, problem: Problem, rows: Int[Array, " m"] | None = None) -> TrainingLoss:
        """The Huber loss with its delta for these rows."""
        return HuberLoss((self.length.number or 1.0) if rows is None else self.length.of(problem, rows))
