"""Selection losses of classifiers, and the deviance of a likelihood, as functions of the linear predictors `eta`.

With one column `eta` the targets are 0 and 1, with several they are class numbers. `slope_change` bounds, row by row,
the norm of the change of the derivative of a row's score for any move of its predictors by at most `radius`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Int
from scipy.special import expit, softmax

from worker.core.hyperparameters import Positive
from worker.core.losses.derivatives import Elementwise, ProbabilityDerivatives, Scaled, ScoreDerivatives
from worker.core.losses.elementary import (
    ROUNDING,
    Column,
    Outputs,
    PerRow,
    one_hot,
    probability_change,
    refuse,
    residuals,
)
from worker.core.losses.logistic import LogisticLoss
from worker.core.losses.multinomial import MultinomialLoss
from worker.core.losses.score import ClassScore, Prediction, PredictorScore, SelectionLoss
from worker.core.losses.training_loss import TrainingLoss
from worker.core.records import Array
from worker.core.rows.problem import Problem


@dataclass(frozen=True, slots=True)
class LogLoss(ClassScore):
    """`-log P(y)`, the negative log-likelihood of the class y."""

    kind: Literal["log_loss"] = "log_loss"

    in_nats: ClassVar[bool] = True
    needs: ClassVar[Prediction] = "probability"
    calibrator: ClassVar[None] = None

    def at(self, y: PerRow, eta: Outputs, w: PerRow) -> ScoreDerivatives:
        """The score with its derivatives."""
        return _log_loss(eta).at(y, eta, w)

    def check(self, y: PerRow) -> None:
        """Raises ValueError unless y holds class numbers."""
        _refuse_fractions(y)

    def lacks(self, y: PerRow) -> None:
        """None: any rows can be scored."""

    @property
    def by_row(self) -> LogLoss:
        """Itself."""
        return self

    def slope_change(self, y: PerRow, eta: Outputs, radius: PerRow) -> PerRow:
        """Bound on the change of a row's slope."""
        return _log_loss(eta).slope_change(y, eta, radius)


@dataclass(frozen=True, slots=True)
class Brier(ClassScore):
    """`(p - y)^2` with the probability p of class 1; with several classes the sum of the squares over all classes."""

    kind: Literal["brier"] = "brier"

    needs: ClassVar[Prediction] = "probability"
    calibrator: ClassVar[None] = None

    def at(self, y: PerRow, eta: Outputs, w: PerRow) -> ScoreDerivatives:
        """The score with its derivatives."""
        if eta.shape[1] == 1:
            return _brier(y, eta, w)
        p = softmax(eta, axis=1)
        error = residuals(p, one_hot(y, p.shape[1]))
        return ProbabilityDerivatives((error**2).sum(1), p, 2.0 * error, 2.0, 1.0, w)

    def check(self, y: PerRow) -> None:
        """Raises ValueError unless y holds class numbers."""
        _refuse_fractions(y)

    def lacks(self, y: PerRow) -> None:
        """None: any rows can be scored."""

    @property
    def by_row(self) -> Brier:
        """Itself."""
        return self

    def slope_change(self, y: PerRow, eta: Outputs, radius: PerRow) -> PerRow:
        """Bound on the change of a row's slope.

        With one output the slope is `2 q^2 (1 - q)` in the log-odds of the wrong class; it is largest at log 2. With
        several it is `2 H u` with `H = diag(p) - p p^T`, `u = p - o`, and `H' u' - H u = H' (u' - u) + (H' - H) u`.
        """
        if eta.shape[1] == 1:
            z = (1.0 - 2.0 * y) * eta[:, 0]
            here, ends = _brier_slope(z), np.minimum(_brier_slope(z - radius), _brier_slope(z + radius))
            top = _brier_slope(np.clip(np.log(2.0), z - radius, z + radius))
            return np.where(radius > 0, np.maximum(top - here, here - ends) + ROUNDING * top, 0.0)
        loss = _log_loss(eta)
        error = residuals(softmax(eta, axis=1), one_hot(y, eta.shape[1]))
        error_change = loss.slope_change(y, eta, radius)
        return error_change + 2.0 * loss.curvature_change(y, eta, radius) * np.sqrt((error**2).sum(1))


@dataclass(frozen=True, slots=True)
class SmoothedError(ClassScore):
    """`1 / (1 + e^(slope s eta))`, `s = 2 y - 1`: the error rate, its step at zero smoothed to the width `1 / slope`.

    With several classes it is one minus the softmax of `slope eta` for the class y.
    """

    slope: Positive = 10.0
    kind: Literal["smoothed_error"] = "smoothed_error"

    needs: ClassVar[Prediction] = "class"
    calibrator: ClassVar[None] = None

    def at(self, y: PerRow, eta: Outputs, w: PerRow) -> ScoreDerivatives:
        """The score with its derivatives."""
        if eta.shape[1] == 1:
            return self._one_output(y, eta, w)
        observed = one_hot(y, eta.shape[1])
        p = softmax(self.slope * eta, axis=1)
        wrong = np.where(observed > 0, 0.0, p).sum(1)
        return ProbabilityDerivatives(wrong, p, -observed, 0.0, self.slope, w)

    def check(self, y: PerRow) -> None:
        """Raises ValueError unless y holds class numbers."""
        _refuse_fractions(y)

    def lacks(self, y: PerRow) -> None:
        """None: any rows can be scored."""

    @property
    def by_row(self) -> SmoothedError:
        """Itself."""
        return self

    def slope_change(self, y: PerRow, eta: Outputs, radius: PerRow) -> PerRow:
        """Bound on the change of a row's slope.

        With one output the slope is the curvature of the log-loss, scaled. With several it is `a p_y (p - o)`, and
        `p_y' (p' - o) - p_y (p - o) = (p_y' - p_y) (p' - o) + p_y (p' - p)` with `|p' - o| <= sqrt(2) (1 - p_y')`.
        """
        loss, z, reach = _log_loss(eta), self.slope * eta, self.slope * radius
        if eta.shape[1] == 1:
            return self.slope * loss.curvature_change(y, z, reach)
        observed = one_hot(y, eta.shape[1])
        p = softmax(z, axis=1)
        wrong = np.where(observed > 0, 0.0, p).sum(1)
        p_change = (observed * probability_change(z, reach)).sum(1)
        of_error = (observed * p).sum(1) * loss.slope_change(y, z, reach)
        return self.slope * (np.sqrt(2.0) * p_change * np.minimum(wrong + p_change, 1.0) + of_error)

    def _one_output(self, y: PerRow, eta: Column, w: PerRow) -> Elementwise:
        sign = 1.0 - 2.0 * y
        z = self.slope * sign * eta[:, 0]
        wrong = expit(z)
        steep, turn = wrong * expit(-z), np.tanh(z / 2)
        first, second = self.slope * sign * steep, -(self.slope**2) * steep * turn
        return Elementwise(wrong, first, second, self.slope**3 * sign * steep * (turn**2 - 2.0 * steep), w)


@dataclass(frozen=True, slots=True)
class Deviance(SelectionLoss):
    """Twice the log-likelihood that a perfect prediction of the row would gain, in the likelihood of the training loss.

    Poisson `2 (y log(y / mu) - (y - mu))`, gamma `2 ((y - mu) / mu - log(y / mu))`, classes twice the log-loss.
    """

    kind: Literal["deviance"] = "deviance"

    needs: ClassVar[Prediction] = "likelihood"
    length: ClassVar[None] = None
    residual_loss: ClassVar[None] = None

    def of_family(self, loss: TrainingLoss) -> DevianceOf:
        """The deviance of the likelihood that training maximizes. Raises ValueError if its loss is not a likelihood."""
        if loss.is_likelihood:
            return DevianceOf(loss)
        raise ValueError("deviance needs a training loss that is a likelihood, which a hinge is not")

    def in_units(self, problem: Problem, rows: Int[Array, " m"]) -> Deviance:
        """Itself: it has no length."""
        return self


@dataclass(frozen=True, slots=True)
class DevianceOf(PredictorScore):
    """Twice the excess of a loss over its minimum for the row's target."""

    loss: TrainingLoss
    kind: Literal["deviance"] = "deviance"

    calibrator: ClassVar[None] = None
    in_nats: ClassVar[bool] = True
    length: ClassVar[None] = None

    def at(self, y: PerRow, eta: Outputs, w: PerRow) -> ScoreDerivatives:
        """The score with its derivatives."""
        half = self.loss.at(y, eta, w)
        return Scaled(half.with_losses(self.loss.excess(y, eta, half.losses)), 2.0)

    def check(self, y: PerRow) -> None:
        """Raises ValueError if the likelihood does not allow a target."""
        self.loss.check(y)

    def lacks(self, y: PerRow) -> None:
        """None: any rows can be scored."""

    @property
    def by_row(self) -> DevianceOf:
        """Itself."""
        return self

    def slope_change(self, y: PerRow, eta: Outputs, radius: PerRow) -> PerRow:
        """Bound on the change of a row's slope."""
        return 2.0 * self.loss.slope_change(y, eta, radius)


def _log_loss(eta: Outputs) -> LogisticLoss | MultinomialLoss:
    return LogisticLoss() if eta.shape[1] == 1 else MultinomialLoss(eta.shape[1])


def _brier(y: PerRow, eta: Column, w: PerRow) -> Elementwise:
    """`q^2` with the probability q of the wrong class, and derivatives through its log-odds `-s eta`."""
    sign = 1.0 - 2.0 * y
    q, rest = expit(sign * eta[:, 0]), expit(-sign * eta[:, 0])
    half = 2.0 * q**2 * rest
    return Elementwise(
        q**2, sign * half, half * (2.0 * rest - q), sign * half * (4.0 * rest**2 - 7.0 * q * rest + q**2), w
    )


def _brier_slope(z: PerRow) -> PerRow:
    return 2.0 * expit(z) ** 2 * expit(-z)


def _refuse_fractions(y: PerRow) -> None:
    refuse(~((y >= 0) & (y == np.floor(y))), y, "this score takes the number of the class, 0, 1, ...")
