"""Generalized linear models with many L2 penalties: smooth training criteria that are not quadratic.

`C(theta; rho) = sum_i w_i loss(y_i, eta_i) / sum_i w_i + 1/2 sum_j lam_j theta^T S_j theta`: the mean loss, so that a
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

from worker.core.family import ByKind, kind_of
from worker.core.hyperparameters import Hyperparameters, Positive
from worker.core.inner.protocols import System
from worker.core.inner.smooth.fit import GeneralizedLinear
from worker.core.inner.smooth.minimize import IterativeSolver
from worker.core.losses import (
    AbsoluteError,
    Brier,
    Deviance,
    Huber,
    LogLoss,
    QuantileError,
    Score,
    SmoothedAuc,
    SmoothedError,
    SmoothedF,
    SquaredError,
)
from worker.core.losses.hinges import SquaredHingeLoss
from worker.core.losses.over_rows import LossOfPredictors, PredictorScore
from worker.core.losses.training import GammaLoss, HuberLoss, LogisticLoss, MultinomialLoss, PoissonLoss, TrainingLoss
from worker.core.penalties import ClassPenalty, PerClass, PerCoefficient, Shared
from worker.core.penalties.forms import PenaltyForms
from worker.core.records import Array
from worker.core.rows.design import Design
from worker.core.rows.filled import split_problems
from worker.core.rows.problem import Partition, Problem
from worker.core.rows.tables import mean_and_variance
from worker.core.training.class_weights import ClassWeights, check_classes, weights_of_classes
from worker.core.training.linear import LinearPredictor

CHOLESKY_UP_TO = 1000  # coefficients; beyond, factors cost more than the products of conjugate gradients
MOST_FACTORED = 20_000  # coefficients; two matrices of that size are held, 6 GB
HELD_VALUES = 64_000_000  # of dense rows over all splits, kept in memory; more are read from the table at each product


@dataclass(frozen=True, slots=True)
class GeneralizedLinearTraining(LinearPredictor, ABC):
    """`solver`: Newton's method with a Cholesky factor, or truncated, with conjugate gradients; `auto` by size."""

    solver: Literal["auto", "newton_cholesky", "newton_cg"] = "auto"

    iterative: ClassVar[bool] = True
    takes_offset: ClassVar[bool] = True
    eliminates_intercept: ClassVar[bool] = False
    scores: ClassVar[tuple[type, ...]] = (Deviance,)  # the first is the default

    @abstractmethod
    def row_loss(self, problem: Problem) -> TrainingLoss:
        """The loss of a row."""

    def score(self, loss: Score | None) -> Score:
        """The selection loss; the first of `scores` unless another one is named. Raises ValueError where none fits."""
        if loss is None:
            default: Score = self.scores[0]()
            return default
        if not isinstance(loss, self.scores):
            names = ", ".join(kind_of(kind) for kind in self.scores)
            raise ValueError(f"{loss.kind} does not score this training criterion; use one of {names}")
        return loss

    def check_target(self, problem: Problem) -> None:
        """Raises RowError where a target is not one that the loss takes."""
        self.row_loss(problem).check(problem.y)

    def selection_loss(self, problem: Problem, loss: Score | None) -> PredictorScore:
        """The selection loss with what it takes from the training loss."""
        score, row_loss = self.score(loss), self.row_loss(problem)
        return score.of_family(row_loss) if isinstance(score, Deviance) else score

    def class_weights_of(self, problem: Problem, rows: Int[Array, " m"]) -> Float[Array, " m"] | None:
        """What the weights of training rows are multiplied with, None where nothing."""
        return None

    def outputs(self, problem: Problem) -> int:
        """Linear predictors of a row."""
        return 1

    def penalties(self, problem: Problem) -> tuple[Hyperparameters, PenaltyForms]:
        """The hyperparameters and the matrices, of the slopes of one output after the other."""
        box, forms = self.penalties_of_features(problem.features)
        m = self.outputs(problem)
        return box, forms if m == 1 else forms.placed([c * forms.p + np.arange(forms.p) for c in range(m)], m * forms.p)

    def method(self, columns: int) -> IterativeSolver:
        """The inner solver for so many coefficients."""
        if self.solver != "auto":
            return self.solver
        return "newton_cholesky" if columns <= CHOLESKY_UP_TO else "newton_cg"

    def coefficients(self, problem: Problem) -> int:
        """Coefficients of all outputs, intercepts included. Needs no rows."""
        columns = len(problem.features) + sum(spline.basis - 2 for spline in self.splines)
        return self.outputs(problem) * (columns + self.intercept)

    def check_size(self, problem: Problem) -> None:
        """Raises ValueError where a factor of the Hessian would be asked for that no memory takes."""
        size = self.coefficients(problem)
        if self.method(size) == "newton_cholesky" and size > MOST_FACTORED:
            raise ValueError(
                f"a factor for {size} coefficients takes about {16e-9 * size**2:.0f} GB for each split and "
                f"{size**3 / 3:.0e} operations for each step, and {MOST_FACTORED} coefficients are the most"
            )

    def systems(
        self, problem: Problem, partition: Partition, *, loss: Score | None = None, trials: int = 1
    ) -> list[System]:
        """One training system with its validation loss for each split."""
        self.check_splits(problem, partition, loss)
        forms, row_loss, score = self.penalties(problem)[1], self.row_loss(problem), self.selection_loss(problem, loss)
        used = [(partition.rows(train), partition.rows(scored)) for train, scored in partition.splits]
        p = problem.X.shape[1]
        hold = sum(map(len, sum(used, ()))) * (p + 1) <= HELD_VALUES
        return [
            self._system(split, forms, row_loss, score, rows, scored, hold=hold)
            for split, (rows, scored) in zip(split_problems(problem, partition), used, strict=True)
        ]

    def refit(self, problem: Problem, rows: Int[Array, " m"]) -> System:
        """The training system of all given rows; its validation loss scores the same rows."""
        block_of_row = np.full(len(problem.y), -1, np.int8)
        block_of_row[rows] = 0
        return self.systems(problem, Partition(block_of_row, (((0,), (0,)),)))[0]

    def _system(
        self,
        problem: Problem,
        forms: PenaltyForms,
        row_loss: TrainingLoss,
        score: PredictorScore,
        rows: Int[Array, " m"],
        scored: Int[Array, " v"],
        *,
        hold: bool,
    ) -> GeneralizedLinear:
        m, base = row_loss.outputs, problem.base_weights(rows)
        by_class = self.class_weights_of(problem, rows)
        base = base if by_class is None else base * by_class
        mean, variance = mean_and_variance(problem.X, rows, base)
        centre = self.intercept and not isinstance(problem.X, csr_array)
        origin = mean if centre else np.zeros_like(mean)
        design = Design.build(problem.X, rows, origin, intercept=self.intercept, hold=hold)
        same = len(rows) == len(scored) and bool((rows == scored).all())
        judged = design if same else Design.build(problem.X, scored, origin, intercept=self.intercept, hold=hold)
        offset, level = problem.offset, 0.0
        if offset is not None and self.intercept:  # which takes up their mean, so that no fit begins far away
            level = float(base @ offset[rows] / base.sum())
            offset = offset - level
        penalty = forms.scaled(np.tile(self._scale(variance), m)) if self.standardize else forms
        if self.intercept:
            penalty = penalty.placed([_slopes_of_all(m, len(mean))], m * design.q)
        return GeneralizedLinear(
            LossOfPredictors(
                judged, problem.y[scored], None if offset is None else offset[scored], score,
                problem.score_weights(scored),
            ),
            penalty, row_loss, design, problem.y[rows], None if offset is None else offset[rows], base,
            None if self.weights is None else self.weights.weighting(problem, rows),
            self.method(m * design.q), level,
        )  # fmt: skip


def _slopes_of_all(m: int, p: int) -> Int[Array, " mp"]:
    """The places of the slopes in theta where each output has an intercept before them."""
    return (np.arange(m)[:, None] * (p + 1) + 1 + np.arange(p)).ravel()


@dataclass(frozen=True, slots=True)
class _Classifier(GeneralizedLinearTraining):
    """A loss of classes.

    `class_weights`: what rows of a class count in training, by the name of the class (1 where it is not named), or
    `balanced`: in inverse proportion to its share of the training rows.
    """

    class_weights: ClassWeights | None = None

    classifies: ClassVar[bool] = True
    scores: ClassVar[tuple[type, ...]] = (LogLoss, Brier, Deviance, SmoothedError, SmoothedAuc, SmoothedF)

    def check_splits(self, problem: Problem, partition: Partition, loss: Score | None) -> None:
        """Raises ValueError where a class has no row to train on, or none that a loss of all rows together needs."""
        check_classes(problem, partition, self.score(loss))

    def class_weights_of(self, problem: Problem, rows: Int[Array, " m"]) -> Float[Array, " m"] | None:
        """Weights by class."""
        return weights_of_classes(self.class_weights, problem, rows)


@dataclass(frozen=True, slots=True)
class LogisticRegression(_Classifier):
    """Logistic regression of two classes with any number of L2 penalties (Foo, Do and Ng 2007)."""

    kind: Literal["logistic"] = "logistic"

    def row_loss(self, problem: Problem) -> TrainingLoss:
        """`log(1 + e^eta) - y eta`."""
        return LogisticLoss()


@dataclass(frozen=True, slots=True)
class SquaredHinge(_Classifier):
    """A linear support vector machine with the squared hinge loss `max(0, 1 - s eta)^2 / 2`, s = -1 or 1."""

    kind: Literal["squared_hinge"] = "squared_hinge"

    scores: ClassVar[tuple[type, ...]] = (SmoothedError, SmoothedAuc, SmoothedF)

    def row_loss(self, problem: Problem) -> TrainingLoss:
        """The squared hinge."""
        return SquaredHingeLoss()


@dataclass(frozen=True, slots=True)
class MultinomialRegression(_Classifier):
    """Multinomial logistic regression: a softmax over two or more classes, each with coefficients of its own.

    Penalties are those of each class alike, or with `per_class` and `per_coefficient` one for each class or each
    coefficient.
    """

    penalty: Annotated[ClassPenalty, ByKind()] = Shared()  # type: ignore[assignment]  # noqa: RUF009 - frozen
    kind: Literal["multinomial"] = "multinomial"

    takes_offset: ClassVar[bool] = False  # the same for every class, it would change nothing
    scores: ClassVar[tuple[type, ...]] = (LogLoss, Brier, Deviance, SmoothedError)

    def outputs(self, problem: Problem) -> int:
        """One for each class."""
        return len(problem.classes)

    def row_loss(self, problem: Problem) -> TrainingLoss:
        """The log-loss of the softmax."""
        return MultinomialLoss(len(problem.classes))

    def penalties(self, problem: Problem) -> tuple[Hyperparameters, PenaltyForms]:
        """The hyperparameters and the matrices, of the slopes of one class after the other."""
        if not isinstance(self.penalty, PerClass | PerCoefficient):
            return super(MultinomialRegression, self).penalties(problem)
        if self.splines:
            raise ValueError(f"{self.penalty.kind} does not go with splines, which have penalties of their own")
        return self.penalty.matrices_of_classes(problem.features, problem.classes)


@dataclass(frozen=True, slots=True)
class PoissonRegression(GeneralizedLinearTraining):
    """Poisson regression of counts with the mean `e^eta`."""

    kind: Literal["poisson"] = "poisson"

    def check_splits(self, problem: Problem, partition: Partition, loss: Score | None) -> None:
        """Raises ValueError where all counts that a split trains on are zero, as no finite intercept fits them."""
        for number, (train, _) in enumerate(partition.splits, start=1):
            rows = partition.rows(train)
            if self.intercept and not (problem.base_weights(rows) * problem.y[rows]).any():
                split = f"split {number} of {len(partition.splits)}"
                raise ValueError(
                    f"all counts that {split} trains on are zero, so that the intercept has no finite value; use other "
                    "folds, leave these rows out, or set intercept to false"
                )

    def row_loss(self, problem: Problem) -> TrainingLoss:
        """`e^eta - y eta`."""
        return PoissonLoss()


@dataclass(frozen=True, slots=True)
class GammaRegression(GeneralizedLinearTraining):
    """Regression of positive targets whose spread is in proportion to their mean `e^eta`."""

    kind: Literal["gamma"] = "gamma"

    def row_loss(self, problem: Problem) -> TrainingLoss:
        """`y e^-eta + eta`."""
        return GammaLoss()


@dataclass(frozen=True, slots=True)
class HuberRegression(GeneralizedLinearTraining):
    """Linear regression with the Huber loss: squared error up to residuals of `delta`, absolute error beyond."""

    delta: Positive = 1.0
    kind: Literal["huber"] = "huber"

    scores: ClassVar[tuple[type, ...]] = (Huber, SquaredError, AbsoluteError, QuantileError)

    def row_loss(self, problem: Problem) -> TrainingLoss:
        """The Huber loss."""
        return HuberLoss(self.delta)

    def score(self, loss: Score | None) -> Score:
        """The Huber error with the same delta unless another loss of residuals is named."""
        return Huber(self.delta) if loss is None else super(HuberRegression, self).score(loss)
