"""The written interface of selection losses, which score predictions.

A `SelectionLoss` is what a caller chooses: settings. It becomes a `PredictorScore`, which J sums, once the training
loss and the target are known. Most are both. `n` rows have `m` linear predictors `eta` each: one, or one for each
class. With one column `eta` the targets of classes are 0 and 1, with several they are class numbers.

What only some scores can do is a part: a property that is the score itself where it can, and None where it cannot.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from worker.core.losses.derivatives import Elementwise, ScoreDerivatives
from worker.core.losses.elementary import Column, Outputs, PerRow
from worker.core.losses.relative import Length
from worker.core.losses.training_loss import TrainingLoss
from worker.core.records import Array
from worker.core.rows.problem import Problem

# What a predictor says of a row. A training criterion states what its predictors say, a score what it needs to know.
Prediction = Literal[
    "number",  # the target is a number near `eta`: there is a residual `y - eta`
    "likelihood",  # the training loss is a likelihood of the target, with a deviance that is not of residuals
    "probability",  # of each class
    "class",  # the class with the largest predictor; of two, the second if `eta` is positive
    "rank",  # the larger `eta`, the more likely the second of two classes
    "decision_value",  # the same of a training loss without probabilities
]


@runtime_checkable
class RowScore(Protocol):
    """A score that is a sum over rows, whose change has a bound."""

    def slope_change(self, y: PerRow, eta: Outputs, radius: PerRow) -> PerRow:
        """Bound on the norm of the change of a row's slope, without its weight, if each eta moves by up to `radius`."""


@runtime_checkable
class Calibrator(Protocol):
    """A score that turns decision values into probabilities."""

    def calibration(self, y: PerRow, eta: Column, w: PerRow) -> tuple[float, float]:
        """The line `(a, c)` of `p = 1 / (1 + e^-(a eta + c))`, the probability of class 1. NaN if none is found."""


class PredictorScore(ABC):
    """A score of targets and linear predictors, as J sums it."""

    __slots__ = ()

    kind: str  # the name on the wire
    in_nats: ClassVar[bool] = False  # whether it is minus a log-likelihood, or twice that
    by_moments: ClassVar[bool] = False  # whether second moments of rows suffice for its sum: it is the squared error

    @abstractmethod
    def at(self, y: PerRow, eta: Outputs, w: PerRow) -> ScoreDerivatives:
        """The weighted sum of the scores, with derivatives in eta: in units of y or its square, in nats, or pure."""

    @abstractmethod
    def check(self, y: PerRow) -> None:
        """Raises RowError for the first target that cannot be scored."""

    @abstractmethod
    def lacks(self, y: PerRow) -> str | None:
        """Why rows cannot be scored together, and the remedy; None if they can. `y` are all targets with a weight."""

    @property
    @abstractmethod
    def by_row(self) -> RowScore | None:
        """Itself if it is a sum over rows with a bound of the change of their slopes, else None."""

    @property
    @abstractmethod
    def calibrator(self) -> Calibrator | None:
        """Itself if it fits a line of probabilities, else None."""

    @property
    @abstractmethod
    def length(self) -> Length | None:
        """The size of residuals up to which the score is quadratic, as it was given; None without such a size."""


class SelectionLoss(ABC):
    """Settings of a score, as a caller chooses them."""

    __slots__ = ()

    kind: str  # the name on the wire
    needs: ClassVar[Prediction]

    @abstractmethod
    def of_family(self, loss: TrainingLoss) -> PredictorScore:
        """The score of predictors that this loss trained. Raises ValueError if the loss does not determine it."""

    @abstractmethod
    def in_units(self, problem: Problem, rows: Int[Array, " m"]) -> SelectionLoss:
        """The same with lengths as numbers, for these rows: those that the splits use."""

    @property
    @abstractmethod
    def length(self) -> Length | None:
        """The size of residuals up to which the score is quadratic, as it was given; None without such a size."""

    @property
    @abstractmethod
    def residual_loss(self) -> ResidualLoss | None:
        """Itself if it is a function of the residual `y - eta` of each row, else None."""


class ResidualLoss(SelectionLoss, PredictorScore):
    """A convex loss of the residual `r = y - eta` of each row."""

    __slots__ = ()

    needs: ClassVar[Prediction] = "number"
    calibrator: ClassVar[None] = None

    @abstractmethod
    def of(self, r: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, " n"]]:
        """The loss of each residual with its first and second derivative in r."""

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        """The weighted sum of the losses as a function of the predictor; its third derivative is NaN."""
        losses, slopes, curvatures = self.of(y - eta[:, 0])
        return Elementwise(losses, -slopes, curvatures, np.full_like(losses, np.nan), w)

    def slope_change(self, y: PerRow, eta: Column, radius: PerRow) -> PerRow:
        """Largest change of the slope when eta moves by at most `radius`: at one end, because the loss is convex."""
        r = y - eta[:, 0]
        slope = self.of(r)[1]
        return np.maximum(self.of(r + radius)[1] - slope, slope - self.of(r - radius)[1])

    def check(self, y: PerRow) -> None:
        """Accepts every number."""

    def lacks(self, y: PerRow) -> None:
        """None: any rows can be scored."""

    def of_family(self, loss: TrainingLoss) -> ResidualLoss:
        """Itself, whatever trained."""
        return self

    @property
    def by_row(self) -> ResidualLoss:
        """Itself."""
        return self

    @property
    def residual_loss(self) -> ResidualLoss:
        """Itself."""
        return self


class ClassScore(SelectionLoss, PredictorScore):
    """A score of predictors of classes, which needs neither units nor a likelihood."""

    __slots__ = ()

    length: ClassVar[None] = None
    residual_loss: ClassVar[None] = None

    def of_family(self, loss: TrainingLoss) -> ClassScore:
        """Itself, whatever trained."""
        return self

    def in_units(self, problem: Problem, rows: Int[Array, " m"]) -> ClassScore:
        """Itself: it has no length."""
        return self
