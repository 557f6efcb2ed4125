"""What training criteria with a linear predictor share: penalties, example weights, splines, column scales."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from worker.core.capabilities import Misfit
from worker.core.family import ByKind
from worker.core.hyperparameters import Hyperparameters
from worker.core.inner.linear_model import LinearModel
from worker.core.inner.protocols import LinearSystem, SmoothFit
from worker.core.inner.refit_gradient import refit_gradient_norm
from worker.core.losses.training import MachineLoss, TrainingLoss
from worker.core.names import places
from worker.core.penalties import Penalty, Shared
from worker.core.penalties.forms import PenaltyForms
from worker.core.penalties.splines import Spline, expansion, others
from worker.core.records import Array
from worker.core.rows.centre import Centre
from worker.core.rows.column_remarks import crowded, few_rows, observations
from worker.core.rows.design import Design
from worker.core.rows.filled import with_variances
from worker.core.rows.problem import Partition, Problem
from worker.core.rows.tables import mean_and_variance
from worker.core.training.class_weights import ClassWeights, class_weight_misfits, weights_of_classes
from worker.core.training.training_criterion import TrainingCriterion
from worker.core.weights import ExampleWeights, Weighting

SMALLEST_SPREAD = 1e-4  # variance over squared mean; sparse columns with a smaller one are centred
NO_SPLINES = (
    "Penalties of splines leave straight lines free, and those of all classes could move together: multinomial takes "
    "no splines; use logistic for two classes, or one for each class against the rest."
)


@dataclass(frozen=True, slots=True)
class LinearPredictor(TrainingCriterion, ABC):
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

    takes_splines: ClassVar[bool] = True

    @property
    @abstractmethod
    def class_weights(self) -> ClassWeights | None:
        """Factors of the training weights by class, if there are any."""

    @abstractmethod
    def row_loss(self, problem: Problem, rows: Int[Array, " m"] | None = None) -> TrainingLoss | MachineLoss:
        """The loss of a row in a split that trains on these rows."""

    @abstractmethod
    def penalties(self, problem: Problem) -> tuple[Hyperparameters, PenaltyForms]:
        """Hyperparameters and matrices of the penalties: of features without splines, then of splines.

        Needs no rows. Raises ValueError if a penalty does not fit the features.
        """

    @abstractmethod
    def refit(self, problem: Problem, rows: Int[Array, " m"]) -> LinearSystem[SmoothFit]:
        """The training system of all given rows; its validation loss scores the same rows."""

    def hyperparameters(self, problem: Problem) -> Hyperparameters:
        """Names, boxes and initial values: penalties first, then weights. Needs no rows.

        Raises ValueError if a penalty does not fit the features, or weights do not fit the sources.
        """
        penalties = self.penalties(problem)[0]
        return penalties if self.weights is None else penalties + self.weights.hyperparameters(problem)

    def _misfits_of_columns(self, problem: Problem) -> Iterator[Misfit]:
        """Settings that do not fit the columns or the classes."""
        yield from class_weight_misfits(self.class_weights, problem.classes)
        if self.splines and not self.takes_splines:
            yield Misfit(("training", "splines"), NO_SPLINES)
            return
        try:
            others(self.splines, problem.features)
        except ValueError as error:
            yield Misfit(("training", "splines"), str(error))
            return
        try:
            self.penalties(problem)
        except ValueError as error:
            yield Misfit(("training", "penalty"), str(error))
        try:
            if self.weights is not None:
                self.weights.hyperparameters(problem)
        except ValueError as error:
            yield Misfit(("training", "weights"), str(error))

    def penalties_of_features(self, features: Sequence[str]) -> tuple[Hyperparameters, PenaltyForms]:
        """The same for one output with these features."""
        if not self.splines:
            return self.penalty.matrices(features)
        rest = others(self.splines, features)
        names = tuple(f"penalty[{spline.name}]" for spline in self.splines)
        box, forms = self.penalty.hyperparameters(()), PenaltyForms.build(0, 0, (np.empty(0, int), np.empty(0, int)))
        if rest or self.penalty.names_features:
            try:
                box, forms = self.penalty.matrices(rest)
            except ValueError as error:
                raise ValueError(f"{error} (features with splines have penalties of their own)") from error
        return box + self.penalty.hyperparameters(names), forms.extended_by([spline.root() for spline in self.splines])

    @property
    def needs_variances(self) -> bool:
        """Whether something of the box is omitted, and columns are not standardized."""
        return not (self.standardize or self.penalty.is_given)

    def expanded(self, problem: Problem, rows: Int[Array, " m"]) -> Problem:
        """The problem that `systems` takes: with spline bases, their knots on the range of these rows.

        Raises ValueError if a spline does not fit the features or their values.
        """
        bases = expansion(self.splines, problem, problem.trained(rows)) if self.splines else None
        if self.needs_variances:
            problem = with_variances(problem, rows, centred=self.intercept)
        return problem if bases is None else replace(problem, expansion=bases)

    def _in_units(
        self, problem: Problem, penalties: tuple[Hyperparameters, PenaltyForms]
    ) -> tuple[Hyperparameters, PenaltyForms]:
        """The same penalties, what was omitted of the box in units of the columns if their variances are known.

        Penalties of splines have the unit 1: a spline basis is the same whatever the unit of its feature is.
        """
        variances, (box, forms) = problem.variances, penalties
        if variances is None:
            return penalties
        if self.splines:
            rest = variances[places(problem.features, others(self.splines, problem.features))]
            variances = np.append(rest, np.zeros(forms.p - len(rest)))
        copies = forms.p // max(len(variances), 1)  # one for each class with its own coefficients
        return self.penalty.in_units(box, forms.units(np.tile(variances, copies))), forms

    def model(self, problem: Problem, rows: Int[Array, " m"], lam: Float[Array, " k"]) -> LinearModel | None:
        """The linear model of these rows, whose missing values are filled; None if training is singular."""
        system = self.refit(problem, rows)
        fit = system.fit(lam)
        if fit is None:
            return None
        model = LinearModel(*system.coefficients(fit.theta))
        return replace(model, gradient_norm=self._gradient_norm(model, problem, rows, lam))

    def _gradient_norm(
        self, model: LinearModel, problem: Problem, rows: Int[Array, " m"], lam: Float[Array, " k"]
    ) -> float:
        """The relative norm of the gradient of C at the model of these rows, from the rows themselves."""
        base, class_factors = problem.base_weights(rows), weights_of_classes(self.class_weights, problem, rows)
        base = base if class_factors is None else base * class_factors
        mean, variance = mean_and_variance(problem.X, rows, base)
        forms, loss = self.penalties(problem)[1], self.row_loss(problem, rows)
        scale = np.tile(self._scale(variance), forms.p // len(variance))
        shares = Weighting(base / base.sum(), np.zeros((len(base), 0)), lambda _: np.zeros((0, 0)))
        if self.weights is not None:
            shares = self.weights.weighting(problem, rows)(lam[forms.k :]).normalized(base)
        origin = self._origin(problem, mean, variance)
        design = Design.build(problem.X, rows, origin, intercept=self.intercept, hold=False)
        penalty = forms.scaled(scale).at(lam[: forms.k])
        return refit_gradient_norm(model, problem, design, shares.w, loss, penalty)

    def observations(self, problem: Problem, rows: Int[Array, " m"], partition: Partition) -> tuple[str, ...]:
        """Remarks about constant and equal columns, crowded splines, and splits of fewer rows than columns."""
        trained = problem.trained(rows)
        remarks = observations(problem, trained, linear=True, intercept=self.intercept)
        if problem.unexpanded is not None:
            remarks += crowded(problem.unexpanded, trained)
        return remarks + few_rows(problem, partition)

    def penalties_of_separable(self, problem: Problem) -> int:
        """All penalties, if the target is a class."""
        return len(self.penalties(problem)[0].names) if self.classifies else 0

    def _origin(self, problem: Problem, mean: Centre, variance: Float[Array, " p"]) -> Float[Array, " p"]:
        """Where rows are centred: at their means, without an intercept at zero.

        Sparse columns that are far from zero are nearly full, and centring them costs little; others stay sparse.
        """
        origin = mean.high if self.intercept else np.zeros_like(mean.high)
        if isinstance(problem.X, csr_array):
            origin = np.where(variance < SMALLEST_SPREAD * mean.high**2, origin, 0.0)
        return origin

    def _scale(self, variance: Float[Array, " p"]) -> Float[Array, " p"]:
        """The factor of each coefficient in its penalty: a standard deviation, or 1 for columns of a spline basis."""
        if not self.standardize:
            return np.ones(len(variance))
        scale = np.sqrt(np.where(variance > 0, variance, 1.0))
        scale[len(scale) - sum(spline.basis - 1 for spline in self.splines) :] = 1.0
        return scale
