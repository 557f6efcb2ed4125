"""Selection losses summed over the validation rows of one split, as functions of theta."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from worker.core.losses.derivatives import ScoreDerivatives
from worker.core.losses.score import PredictorScore, ResidualLoss
from worker.core.records import Array
from worker.core.rows.design import Design
from worker.core.rows.tables import DenseRows, Rows


@runtime_checkable
class ScoredLoss(Protocol):
    """A weighted sum of losses over the validation rows of one split, as a function of what is scored of its fit."""

    @property
    def weight(self) -> float:
        """Sum of the scoring weights, or the number of validation rows without weights."""

    def value(self, scored: Float[Array, " q"]) -> float:
        """Sum of the losses."""

    def value_and_gradient(self, scored: Float[Array, " q"]) -> tuple[float, Float[Array, " q"]]:
        """Sum of the losses and its derivative, at little more than the cost of the value."""


@runtime_checkable
class ValidationLoss(ScoredLoss, Protocol):
    """A loss of theta, with its second derivative."""

    def hessian_form(self, D: Float[Array, "p f"], theta: Float[Array, " p"]) -> Float[Array, "f f"]:
        """`D^T E'' D` with the second derivative `E''` of the sum in theta."""


@runtime_checkable
class SumOfResiduals(ValidationLoss, Protocol):
    """A loss of the residuals of least squares, which knows what subtractions cost."""

    @property
    def rows(self) -> LossOfRows | None:
        """The loss from its rows; None if only their moments are kept."""

    def kept(self, theta: Float[Array, " p"]) -> float:
        """The smallest fraction that subtractions have left of a number."""

    def rotated(self, rotation: Float[Array, "p p"]) -> SumOfResiduals:
        """The same loss as a function of theta', with `theta = rotation theta'`."""

    def bend(self, D: Float[Array, "p f"], theta: Float[Array, " p"]) -> Float[Array, "p f"]:
        """`E'' D`."""

    def in_level(self, D: Float[Array, "p f"], theta: Float[Array, " p"]) -> tuple[float, Float[Array, " f"]]:
        """The derivative in a common shift of all predictors, and how it moves along each column of D."""


@dataclass(frozen=True, slots=True)
class SquaredErrorOfMoments:
    """Sum of `(y - eta)^2` from second moments, without rows: `z^T S z + weight (mean . z)^2`, z = theta and -1.

    `S` holds the moments of `[X, y]` about their mean over the validation rows, and `mean` is relative to the centre of
    the training rows. The two parts are kept apart: the rows of a trend lie far from those before them, and their
    distance cancels in the sum `mean . z` before it is squared. With a `reference` theta, z is relative to it, and y is
    the residual there. The relative error is about machine epsilon times (last entry of S) / value. A nearly perfect
    fit therefore needs a reference near theta; otherwise zero is enough.
    """

    weight: float
    S: Float[Array, "p1 p1"]
    mean: Float[Array, " p1"]
    reference: Float[Array, " p"]
    rows: ClassVar[None] = None

    def value(self, theta: Float[Array, " p"]) -> float:
        """The sum."""
        return self.value_and_gradient(theta)[0]

    def value_and_gradient(self, theta: Float[Array, " p"]) -> tuple[float, Float[Array, " p"]]:
        """The sum, and its derivative in theta."""
        z = np.append(theta - self.reference, -1.0)
        Sz, miss = self.S @ z, self.weight * float(self.mean @ z)
        return float(max(z @ Sz, 0.0)) + miss**2 / (self.weight or 1.0), 2.0 * (Sz[:-1] + miss * self.mean[:-1])

    def kept(self, theta: Float[Array, " p"]) -> float:
        """The sum relative to that of y."""
        total = float(self.S[-1, -1] + self.weight * self.mean[-1] ** 2)
        return self.value(theta) / (total or 1.0)

    def hessian_form(self, D: Float[Array, "p f"], theta: Float[Array, " p"]) -> Float[Array, "f f"]:
        """`2 D^T S D` over the columns of X, plus the part of the mean."""
        of_mean = self.mean[:-1] @ D
        return 2.0 * (D.T @ (self.S[:-1, :-1] @ D) + self.weight * np.outer(of_mean, of_mean))

    def bend(self, D: Float[Array, "p f"], theta: Float[Array, " p"]) -> Float[Array, "p f"]:
        """From the moments of X."""
        mean = self.mean[:-1]
        return 2.0 * (self.S[:-1, :-1] @ D + self.weight * np.outer(mean, mean @ D))

    def in_level(self, D: Float[Array, "p f"], theta: Float[Array, " p"]) -> tuple[float, Float[Array, " f"]]:
        """From the means."""
        miss = float(self.mean @ np.append(theta - self.reference, -1.0))
        return 2.0 * self.weight * miss, 2.0 * self.weight * (self.mean[:-1] @ D)

    def rotated(self, rotation: Float[Array, "p p"]) -> SquaredErrorOfMoments:
        """The moments of the columns `X rotation`."""
        S, mean = np.empty_like(self.S), np.append(self.mean[:-1] @ rotation, self.mean[-1])
        S[:-1, :-1] = rotation.T @ self.S[:-1, :-1] @ rotation
        S[-1, :-1] = S[:-1, -1] = self.S[-1, :-1] @ rotation
        S[-1, -1] = self.S[-1, -1]
        return SquaredErrorOfMoments(self.weight, S, mean, np.linalg.solve(rotation, self.reference))


@dataclass(frozen=True, slots=True)
class LossOfRows:
    """Sum of `w_i loss(y_i - x_i^T theta)` from the rows themselves, for any loss."""

    X: Rows
    y: Float[Array, " n"]
    loss: ResidualLoss
    w: Float[Array, " n"] | None = None

    @property
    def rows(self) -> LossOfRows:
        """Itself."""
        return self

    @property
    def weight(self) -> float:
        """Sum of the scoring weights."""
        return float(len(self.y)) if self.w is None else float(self.w.sum())

    def value(self, theta: Float[Array, " p"]) -> float:
        """Sum of the losses."""
        return float(self._weighted(self.loss.of(self.y - self.X @ theta)[0]).sum())

    def value_and_gradient(self, theta: Float[Array, " p"]) -> tuple[float, Float[Array, " p"]]:
        """Sum of the losses, and `-X^T (w loss')`."""
        losses, slopes, _ = self.loss.of(self.y - self.X @ theta)
        return float(self._weighted(losses).sum()), -(self._weighted(slopes) @ self.X)

    def kept(self, theta: Float[Array, " p"]) -> float:
        """The norm of the residuals relative to those of what is subtracted."""
        eta = self.X @ theta
        return float(np.linalg.norm(self.y - eta) / (np.linalg.norm(self.y) + np.linalg.norm(eta) or 1.0))

    def hessian_form(self, D: Float[Array, "p f"], theta: Float[Array, " p"]) -> Float[Array, "f f"]:
        """`(X D)^T diag(w loss'') X D`."""
        curvatures = self._weighted(self.loss.of(self.y - self.X @ theta)[2])
        eta_dot = self.X @ D
        return (eta_dot.T * curvatures) @ eta_dot

    def bend(self, D: Float[Array, "p f"], theta: Float[Array, " p"]) -> Float[Array, "p f"]:
        """`X^T diag(w loss'') X D`."""
        curvatures = self._weighted(self.loss.of(self.y - self.X @ theta)[2])
        return self.X.back(curvatures[:, None] * (self.X @ D))

    def in_level(self, D: Float[Array, "p f"], theta: Float[Array, " p"]) -> tuple[float, Float[Array, " f"]]:
        """From the slopes and the curvatures of the rows."""
        _, slopes, curvatures = self.loss.of(self.y - self.X @ theta)
        return -float(self._weighted(slopes).sum()), self._weighted(curvatures) @ (self.X @ D)

    def rotated(self, rotation: Float[Array, "p p"]) -> LossOfRows:
        """The rows `X rotation`."""
        return LossOfRows(DenseRows(self.X @ rotation), self.y, self.loss, self.w)

    def _weighted(self, a: Float[Array, " n"]) -> Float[Array, " n"]:
        return a if self.w is None else self.w * a


@dataclass(frozen=True, slots=True)
class LossOfPredictors:
    """Sum of `w_i score(y_i, eta_i)` over rows, or the sum of the weights times a score of all rows together."""

    design: Design
    y: Float[Array, " n"]
    offset: Float[Array, " n"] | None
    score: PredictorScore
    w: Float[Array, " n"]

    @property
    def weight(self) -> float:
        """Sum of the scoring weights."""
        return float(self.w.sum())

    def predictor(self, theta: Float[Array, " mq"]) -> Float[Array, "n m"]:
        """`eta` of the rows."""
        eta = self.design.predictor(theta)
        return eta if self.offset is None else eta + self.offset[:, None]

    def at(self, theta: Float[Array, " mq"]) -> ScoreDerivatives:
        """The score with its derivatives in eta."""
        return self.score.at(self.y, self.predictor(theta), self.w)

    def value(self, theta: Float[Array, " mq"]) -> float:
        """Sum of the losses."""
        return self.at(theta).value

    def value_and_gradient(self, theta: Float[Array, " mq"]) -> tuple[float, Float[Array, " mq"]]:
        """Sum of the losses, and its derivative in theta."""
        at = self.at(theta)
        return at.value, self.design.back(at.slope[:, :, None])[:, 0]

    def hessian_form(self, D: Float[Array, "mq f"], theta: Float[Array, " mq"]) -> Float[Array, "f f"]:
        """`D^T E'' D`, by chunks of columns if the changes of the predictors take too much memory."""
        at, f = self.at(theta), D.shape[1]
        width = self.design.columns_at_once(D)
        if f <= width:
            eta_dot = self.design.along(D)
            return eta_dot.reshape(-1, f).T @ np.ascontiguousarray(at.bend(eta_dot)).reshape(-1, f)
        parts = [D[:, begin : begin + width] for begin in range(0, f, width)]
        return np.hstack([D.T @ self.design.back(at.bend(self.design.along(part))) for part in parts])


@dataclass(frozen=True, slots=True)
class LossOfScored:
    """Sum of `w_i score(y_i, eta_i)` over rows whose predictors eta are given."""

    y: Float[Array, " n"]
    score: PredictorScore
    w: Float[Array, " n"]

    @property
    def weight(self) -> float:
        """Sum of the scoring weights."""
        return float(self.w.sum())

    def predictor(self, eta: Float[Array, " n"]) -> Float[Array, "n 1"]:
        """`eta` of the rows."""
        return eta[:, None]

    def at(self, eta: Float[Array, " n"]) -> ScoreDerivatives:
        """The score with its derivatives."""
        return self.score.at(self.y, eta[:, None], self.w)

    def value(self, eta: Float[Array, " n"]) -> float:
        """Sum of the losses."""
        return self.at(eta).value

    def value_and_gradient(self, eta: Float[Array, " n"]) -> tuple[float, Float[Array, " n"]]:
        """Sum of the losses, and its derivative in eta."""
        at = self.at(eta)
        return at.value, at.slope[:, 0]
