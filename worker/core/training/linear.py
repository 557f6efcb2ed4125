"""What training criteria with a linear predictor share: penalties, example weights, splines, column scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from jaxtyping import Float, Int

from worker.core.family import ByKind
from worker.core.hyperparameters import Hyperparameters
from worker.core.losses import SelectionLoss
from worker.core.penalties import Penalty, PerFeature, Shared
from worker.core.penalties.forms import PenaltyForms
from worker.core.penalties.splines import Spline, expansion, others
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem
from worker.core.weights import ExampleWeights


@dataclass(frozen=True, slots=True)
class LinearPredictor:
    """`eta = intercept + x^T theta` with any number of L2 penalties on theta; the intercept is not penalized.

    `standardize`: penalties apply to columns scaled to unit variance over the training rows of each split. `weights`:
    example weights to tune along with the penalties; they multiply fixed weights of the data. `splines`: features that
    enter as smooth functions instead of straight lines. Each has its own penalty, in the box of `penalty`, which is for
    the other features.
    """

    intercept: bool = True
    standardize: bool = True
    penalty: Annotated[Penalty, ByKind()] = Shared()  # noqa: RUF009 - frozen
    weights: Annotated[ExampleWeights, ByKind()] | None = None
    splines: tuple[Spline, ...] = ()

    has_hessian: ClassVar[bool] = True  # whether J can have an exact Hessian
    classifies: ClassVar[bool] = False  # whether the target is a class
    takes_offset: ClassVar[bool] = False  # whether a known part of the linear predictor changes the fit

    def check_target(self, problem: Problem) -> None:
        """Raises ValueError (RowError for a single row) if a target cannot be trained on. Here any number can."""

    def check_splits(self, problem: Problem, partition: Partition, loss: SelectionLoss | None) -> None:
        """Raises ValueError if a split lacks what training or the selection loss needs. Here nothing is needed."""

    def hyperparameters(self, problem: Problem) -> Hyperparameters:
        """Names, boxes and initial values: penalties first, then weights. Needs no rows.

        Raises ValueError if a penalty does not fit the features, or weights do not fit the sources.
        """
        penalties = self.penalties(problem)[0]
        return penalties if self.weights is None else penalties + self.weights.hyperparameters(problem)

    def penalties(self, problem: Problem) -> tuple[Hyperparameters, PenaltyForms]:
        """The penalties of features without splines, then of splines. Raises ValueError like `hyperparameters`."""
        return self.penalties_of_features(problem.features)

    def penalties_of_features(self, features: Sequence[str]) -> tuple[Hyperparameters, PenaltyForms]:
        """The same for one output with these features."""
        if not self.splines:
            return self.penalty.matrices(features)
        rest = others(self.splines, features)
        names = tuple(f"penalty[{spline.name}]" for spline in self.splines)
        box, forms = self.penalty.hyperparameters(()), PenaltyForms.build(0, 0, (np.empty(0, int), np.empty(0, int)))
        if rest or not isinstance(self.penalty, Shared | PerFeature):
            try:
                box, forms = self.penalty.matrices(rest)
            except ValueError as error:
                raise ValueError(f"{error} (features with splines have penalties of their own)") from error
        return box + self.penalty.hyperparameters(names), forms.extended_by([spline.root() for spline in self.splines])

    def expanded(self, problem: Problem, rows: Int[Array, " m"]) -> Problem:
        """The problem that `systems` takes: with spline bases, their knots on the range of these rows.

        Raises ValueError if a spline does not fit the features or their values.
        """
        return (
            replace(problem, expansion=expansion(self.splines, problem, problem.trained(rows)))
            if self.splines
            else problem
        )

    def _scale(self, variance: Float[Array, " p"]) -> Float[Array, " p"]:
        """The factor of each coefficient in its penalty: a standard deviation, or 1 for columns of a spline basis."""
        if not self.standardize:
            return np.ones(len(variance))
        scale = np.sqrt(np.where(variance > 0, variance, 1.0))
        scale[len(scale) - sum(spline.basis - 1 for spline in self.splines) :] = 1.0
        return scale
