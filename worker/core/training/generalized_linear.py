"""Generalized linear models with any number of L2 penalties: smooth training criteria that are not quadratic.

`C(theta; rho) = sum_i w_i loss(y_i, eta_i) / sum_i w_i + 1/2 sum_j lam_j theta^T S_j theta`. The loss is a mean, so a
penalty means the same in a fold and in the refit. `lam` is `1 / (n C)` of scikit-learn's LogisticRegression.

The hypergradient follows from the implicit function theorem (Bengio 2000, section 4; Foo, Do and Ng 2007).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from worker.core.family import ByKind
from worker.core.hypergradient import ExactHypergradient
from worker.core.hyperparameters import Hyperparameters
from worker.core.inner.smooth.fit import GeneralizedLinear
from worker.core.inner.smooth.minimize import IterativeSolver
from worker.core.losses import Huber, Prediction, PredictorScore, SelectionLoss, chosen
from worker.core.losses.over_rows import LossOfPredictors
from worker.core.losses.relative import Delta, Length, RelativeDelta
from worker.core.losses.training import (
    GammaLoss,
    HuberLoss,
    LogisticLoss,
    MultinomialLoss,
    PoissonLoss,
    SquaredHingeLoss,
    TrainingLoss,
)
from worker.core.objective.means import mean_of_iterative
from worker.core.objective.objective import Objective
from worker.core.penalties import ClassPenalty, PerClass, PerCoefficient, Shared
from worker.core.penalties.forms import PenaltyForms
from worker.core.records import Array
from worker.core.rows.design import Design
from worker.core.rows.filled import split_problems
from worker.core.rows.problem import Partition, Problem
from worker.core.rows.tables import mean_and_variance
from worker.core.training.class_weights import ClassWeights, check_classes, weights_of_classes
from worker.core.training.examples import (
    THREE_CLASSES,
    TWO_CLASSES,
    amounts,
    counts,
    example_table,
    heavy_tails,
    likely_classes,
)
from worker.core.training.linear import LinearPredictor

SMALLEST_SPREAD = 1e-4  # variance over squared mean; sparse columns with a smaller one are centred
AUTO_CHOLESKY_MAX_COEFFICIENTS = 1000  # above, a factor costs more than the products of conjugate gradients
MAX_FACTORED_COEFFICIENTS = 20_000  # two matrices of that size are held: 6 GB
MAX_HELD_VALUES = 64_000_000  # of dense rows over all splits; above, each product reads the rows from the table


@dataclass(frozen=True, slots=True)
class GeneralizedLinearTraining(LinearPredictor, ABC):
    """`solver`: Newton's method with a Cholesky factor or, truncated, with conjugate gradients; `auto` by size."""

    solver: Literal["auto", "newton_cholesky", "newton_cg"] = "auto"

    iterative: ClassVar[bool] = True
    takes_offset: ClassVar[bool] = True
    eliminates_intercept: ClassVar[bool] = False
    predicts: ClassVar[frozenset[Prediction]] = frozenset({"likelihood"})

    @abstractmethod
    def row_loss(self, problem: Problem) -> TrainingLoss:
        """The loss of a row."""

    def row_loss_on(self, problem: Problem, rows: Int[Array, " m"]) -> TrainingLoss:
        """The loss of a row in a split that trains on these rows."""
        return self.row_loss(problem)

    def score(self, loss: SelectionLoss | None) -> SelectionLoss:
        """The selection loss; by default the first that fits. Raises ValueError for one that does not."""
        return chosen(loss, self.predicts)

    def check_target(self, problem: Problem) -> None:
        """Raises RowError if the loss does not accept a target."""
        self.row_loss(problem).check(problem.y)

    def selection_loss(self, problem: Problem, loss: SelectionLoss | None) -> PredictorScore:
        """The selection loss; a deviance takes its family from the training loss."""
        return self.score(loss).of_family(self.row_loss(problem))

    def class_weights_of(self, problem: Problem, rows: Int[Array, " m"]) -> Float[Array, " m"] | None:
        """The factor of each row's training weight, by its class; None without class weights."""
        return None

    def outputs(self, problem: Problem) -> int:
        """Number of linear predictors of a row."""
        return 1

    def penalties(self, problem: Problem) -> tuple[Hyperparameters, PenaltyForms]:
        """Hyperparameters and matrices of the penalties on the slopes, one output after the other."""
        box, forms = self.penalties_of_features(problem.features)
        m = self.outputs(problem)
        return box, forms if m == 1 else forms.placed([c * forms.p + np.arange(forms.p) for c in range(m)], m * forms.p)

    def method(self, columns: int) -> IterativeSolver:
        """The inner solver for this number of coefficients."""
        if self.solver != "auto":
            return self.solver
        return "newton_cholesky" if columns <= AUTO_CHOLESKY_MAX_COEFFICIENTS else "newton_cg"

    def coefficients(self, problem: Problem) -> int:
        """Number of coefficients over all outputs, intercepts included. Needs no rows."""
        columns = len(problem.features) + sum(spline.basis - 2 for spline in self.splines)
        return self.outputs(problem) * (columns + self.intercept)

    def check_size(self, problem: Problem) -> None:
        """Raises ValueError if the Hessian has to be factored and is too large for memory."""
        size = self.coefficients(problem)
        if self.method(size) == "newton_cholesky" and size > MAX_FACTORED_COEFFICIENTS:
            raise ValueError(
                f"a factor for {size} coefficients takes about {16e-9 * size**2:.0f} GB for each split and "
                f"{size**3 / 3:.0e} operations for each step, and {MAX_FACTORED_COEFFICIENTS} coefficients are the most"
            )

    def systems(
        self, problem: Problem, partition: Partition, *, loss: SelectionLoss | None = None
    ) -> list[GeneralizedLinear]:
        """One training system with its validation loss for each split."""
        self.check_splits(problem, partition, loss)
        forms, used = self.penalties(problem)[1], np.flatnonzero(partition.block_of_row >= 0)
        score = self.selection_loss(problem, self.score(loss).in_units(problem, used))
        rows_of_splits = [(partition.rows(train), partition.rows(scored)) for train, scored in partition.splits]
        p = problem.X.shape[1]
        hold = sum(map(len, sum(rows_of_splits, ()))) * (p + 1) <= MAX_HELD_VALUES
        return [
            self._system(split, forms, score, rows, scored, hold=hold)
            for split, (rows, scored) in zip(split_problems(problem, partition), rows_of_splits, strict=True)
        ]

    def mean_of_splits(
        self,
        problem: Problem,
        partition: Partition,
        loss: SelectionLoss | None,
        split_weights: Float[Array, " s"] | None,
        hypergradient: ExactHypergradient,
        trials: int,
    ) -> Objective:
        """The mean score over the validation rows of all splits."""
        systems, box = self.systems(problem, partition, loss=loss), self.hyperparameters(problem)
        return mean_of_iterative(systems, box, hypergradient, self.selection_loss(problem, loss), split_weights)

    def refit(self, problem: Problem, rows: Int[Array, " m"]) -> GeneralizedLinear:
        """The training system of all given rows; its validation loss scores the same rows."""
        block_of_row = np.full(len(problem.y), -1, np.int8)
        block_of_row[rows] = 0
        return self.systems(problem, Partition(block_of_row, (((0,), (0,)),)))[0]

    def _system(
        self,
        problem: Problem,
        forms: PenaltyForms,
        score: PredictorScore,
        rows: Int[Array, " m"],
        scored: Int[Array, " v"],
        *,
        hold: bool,
    ) -> GeneralizedLinear:
        row_loss, base = self.row_loss_on(problem, rows), problem.base_weights(rows)
        m = row_loss.outputs
        class_factors = self.class_weights_of(problem, rows)
        base = base if class_factors is None else base * class_factors
        mean, variance = mean_and_variance(problem.X, rows, base)
        origin = mean.high if self.intercept else np.zeros_like(mean.high)
        if isinstance(problem.X, csr_array):  # columns far from zero are nearly full, and centring them costs little
            origin = np.where(variance < SMALLEST_SPREAD * mean.high**2, origin, 0.0)
        design = Design.build(problem.X, rows, origin, intercept=self.intercept, hold=hold)
        same_rows = len(rows) == len(scored) and bool((rows == scored).all())
        validation_design = (
            design if same_rows else Design.build(problem.X, scored, origin, intercept=self.intercept, hold=hold)
        )
        offset, offset_mean = problem.offset, 0.0
        if offset is not None and self.intercept:  # it takes up their mean, so that no fit starts far away
            offset_mean = float(base @ offset[rows] / base.sum())
            offset = offset - offset_mean
        penalty = forms.scaled(np.tile(self._scale(variance), m)) if self.standardize else forms
        if self.intercept:
            penalty = penalty.placed([_slope_positions(m, len(origin))], m * design.q)
        return GeneralizedLinear(
            LossOfPredictors(
                validation_design, problem.y[scored], None if offset is None else offset[scored], score,
                problem.score_weights(scored),
            ),
            penalty, row_loss, design, problem.y[rows], None if offset is None else offset[rows], base,
            None if self.weights is None else self.weights.weighting(problem, rows),
            self.method(m * design.q), offset_mean,
        )  # fmt: skip


def _slope_positions(m: int, p: int) -> Int[Array, " mp"]:
    """Indices of the slopes in theta, in which each output begins with its intercept."""
    return (np.arange(m)[:, None] * (p + 1) + 1 + np.arange(p)).ravel()


@dataclass(frozen=True, slots=True)
class _Classifier(GeneralizedLinearTraining):
    """A classifier.

    `class_weights`: factors of the training weights by class name (1 for a class that is not named), or `balanced`:
    inversely proportional to the class's fraction of the training rows.
    """

    class_weights: ClassWeights | None = None

    classifies: ClassVar[bool] = True
    predicts: ClassVar[frozenset[Prediction]] = frozenset({"probability", "likelihood", "class", "rank"})

    def check_splits(self, problem: Problem, partition: Partition, loss: SelectionLoss | None) -> None:
        """Raises ValueError if a split trains on no row of a class, or lacks one that its AUC or F measure needs."""
        check_classes(problem, partition, self.selection_loss(problem, loss))

    def class_weights_of(self, problem: Problem, rows: Int[Array, " m"]) -> Float[Array, " m"] | None:
        """Weights by class."""
        return weights_of_classes(self.class_weights, problem, rows)


@dataclass(frozen=True, slots=True)
class LogisticRegression(_Classifier):
    """Logistic regression of two classes with any number of L2 penalties (Foo, Do and Ng 2007)."""

    kind: Literal["logistic"] = "logistic"

    @staticmethod
    def example() -> Problem:
        """Two classes."""
        return example_table(likely_classes, TWO_CLASSES, offset=True)

    def row_loss(self, problem: Problem) -> TrainingLoss:
        """`log(1 + e^eta) - y eta`."""
        return LogisticLoss()


@dataclass(frozen=True, slots=True)
class SquaredHinge(_Classifier):
    """A linear support vector machine with the squared hinge loss `max(0, 1 - s eta)^2 / 2`, s = -1 or 1."""

    kind: Literal["squared_hinge"] = "squared_hinge"

    predicts: ClassVar[frozenset[Prediction]] = frozenset({"class", "rank"})

    @staticmethod
    def example() -> Problem:
        """Two classes."""
        return example_table(likely_classes, TWO_CLASSES, offset=True)

    def row_loss(self, problem: Problem) -> TrainingLoss:
        """The squared hinge."""
        return SquaredHingeLoss()


@dataclass(frozen=True, slots=True)
class MultinomialRegression(_Classifier):
    """Multinomial logistic regression: a softmax over two or more classes, each with its own coefficients.

    All classes share the penalties; `per_class` and `per_coefficient` give each class or each coefficient its own.
    """

    penalty: Annotated[ClassPenalty, ByKind()] = Shared()  # type: ignore[assignment]  # noqa: RUF009 - frozen
    kind: Literal["multinomial"] = "multinomial"

    takes_offset: ClassVar[bool] = False  # an offset common to all classes changes nothing
    predicts: ClassVar[frozenset[Prediction]] = frozenset({"probability", "likelihood", "class"})

    @staticmethod
    def example() -> Problem:
        """Three classes."""
        return example_table(likely_classes, THREE_CLASSES)

    def outputs(self, problem: Problem) -> int:
        """One for each class."""
        return len(problem.classes)

    def row_loss(self, problem: Problem) -> TrainingLoss:
        """The log-loss of the softmax."""
        return MultinomialLoss(len(problem.classes))

    def penalties(self, problem: Problem) -> tuple[Hyperparameters, PenaltyForms]:
        """Hyperparameters and matrices of the penalties on the slopes, one class after the other."""
        if not isinstance(self.penalty, PerClass | PerCoefficient):
            return super(MultinomialRegression, self).penalties(problem)
        if self.splines:
            raise ValueError(f"{self.penalty.kind} does not go with splines, which have penalties of their own")
        return self.penalty.matrices_of_classes(problem.features, problem.classes)


@dataclass(frozen=True, slots=True)
class PoissonRegression(GeneralizedLinearTraining):
    """Poisson regression of counts with the mean `e^eta`."""

    kind: Literal["poisson"] = "poisson"

    @staticmethod
    def example() -> Problem:
        """Counts."""
        return example_table(counts, offset=True)

    def check_splits(self, problem: Problem, partition: Partition, loss: SelectionLoss | None) -> None:
        """Raises ValueError if a split trains on zero counts only: no finite intercept fits them."""
        for number, (train, _) in enumerate(partition.splits, start=1):
            rows, split = partition.rows(train), f"split {number} of {len(partition.splits)}"
            lacks = self.row_loss(problem).lacks(problem.y[rows], problem.base_weights(rows), split)
            if self.intercept and lacks:
                raise ValueError(lacks)

    def row_loss(self, problem: Problem) -> TrainingLoss:
        """`e^eta - y eta`."""
        return PoissonLoss()


@dataclass(frozen=True, slots=True)
class GammaRegression(GeneralizedLinearTraining):
    """Regression of positive targets whose spread is proportional to their mean `e^eta`."""

    kind: Literal["gamma"] = "gamma"

    @staticmethod
    def example() -> Problem:
        """Positive amounts."""
        return example_table(amounts, offset=True)

    def row_loss(self, problem: Problem) -> TrainingLoss:
        """`y e^-eta + eta`."""
        return GammaLoss()


@dataclass(frozen=True, slots=True)
class HuberRegression(GeneralizedLinearTraining):
    """Linear regression with the Huber loss: squared error up to residuals of `delta`, absolute error beyond.

    `delta` is a number in units of the target, or relative to the spread of the target in the training rows of each
    split.
    """

    delta: Delta = RelativeDelta()  # noqa: RUF009 - frozen
    kind: Literal["huber"] = "huber"

    predicts: ClassVar[frozenset[Prediction]] = frozenset({"number"})

    @staticmethod
    def example() -> Problem:
        """A straight line with outliers."""
        return example_table(heavy_tails, offset=True)

    def row_loss(self, problem: Problem) -> TrainingLoss:
        """The Huber loss; a relative delta is only known for the rows of a split."""
        return HuberLoss(Length.given(self.delta).number or 1.0)

    def row_loss_on(self, problem: Problem, rows: Int[Array, " m"]) -> TrainingLoss:
        """The Huber loss with its delta for these rows."""
        return HuberLoss(Length.given(self.delta).of(problem, rows))

    def score(self, loss: SelectionLoss | None) -> SelectionLoss:
        """The selection loss; by default the Huber error with the same delta."""
        return chosen(loss, self.predicts, Huber(self.delta))
