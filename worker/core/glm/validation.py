"""Scores of linear predictors over the validation rows of one split, as functions of theta."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from worker.core.glm.derivatives import ScoreDerivatives
from worker.core.glm.design import Design
from worker.core.records import Array


@runtime_checkable
class PredictorScore(Protocol):
    """A score of the target and the linear predictors."""

    def at(self, y: Float[Array, " n"], eta: Float[Array, "n m"], w: Float[Array, " n"]) -> ScoreDerivatives:
        """The weighted sum of the scores, with derivatives."""


@runtime_checkable
class RowScore(PredictorScore, Protocol):
    """A score that is a sum over rows."""

    def slope_change(
        self, y: Float[Array, " n"], eta: Float[Array, "n m"], radius: Float[Array, " n"]
    ) -> Float[Array, " n"]:
        """Bound of the norm of the change of a row's slope, without its weight, when each eta moves by `radius`."""


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
        """`D^T E'' D`, some columns after the other where the changes of their predictors are many."""
        at, f = self.at(theta), D.shape[1]
        some = self.design.columns_at_once(D)
        if f <= some:
            eta_dot = self.design.along(D)
            return eta_dot.reshape(-1, f).T @ np.ascontiguousarray(at.bend(eta_dot)).reshape(-1, f)
        parts = [D[:, begin : begin + some] for begin in range(0, f, some)]
        return np.hstack([D.T @ self.design.back(at.bend(self.design.along(part))) for part in parts])
