"""Generalized linear models with any number of L2 penalties: smooth training criteria that are not quadratic.

`C(theta; rho) = sum_i w_i loss(y_i, eta_i) / sum_i w_i + 1/2 sum_j lam_j theta^T S_j theta`. The loss is a mean, so a
penalty means the same in a fold and in the refit. `lam` is `1 / (n C)` of scikit-learn's LogisticRegression.

The hypergradient follows from the implicit function theorem (Bengio 2000, section 4; Foo, Do and Ng 2007).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int

from worker.core.capabilities import Capability, Misfit
from worker.core.costs import Sizes, TrainingCost
from worker.core.hypergradient import ExactHypergradient
from worker.core.hyperparameters import Hyperparameters
from worker.core.inner.smooth.cost_of_iterations import cost_of_iterations
from worker.core.inner.smooth.fit import GeneralizedLinear
from worker.core.inner.smooth.minimize import IterativeSolver
from worker.core.losses import Prediction, PredictorScore, SelectionLoss
from worker.core.losses.over_rows import LossOfPredictors
from worker.core.losses.relative import Length
from worker.core.losses.training import (
    TrainingLoss,
)
from worker.core.objective.means import mean_of_iterative
from worker.core.objective.objective import Objective
from worker.core.penalties.forms import PenaltyForms
from worker.core.records import Array
from worker.core.rows.design import Design
from worker.core.rows.filled import split_problems
from worker.core.rows.problem import Partition, Problem
from worker.core.rows.tables import mean_and_variance
from worker.core.training.class_weights import check_classes, weights_of_classes
from worker.core.training.linear import LinearPredictor
from worker.core.training.training_criterion import Parts

AUTO_CHOLESKY_MAX_COEFFICIENTS = 1000  # above, a factor costs more than the products of conjugate gradients
MAX_FACTORED_COEFFICIENTS = 20_000  # two matrices of that size are held: 6 GB
MAX_HELD_VALUES = 64_000_000  # of dense rows over all splits; above, each product reads the rows from the table


@dataclass(frozen=True, slots=True)
class GeneralizedLinearTraining(LinearPredictor, ABC):
    """`solver`: Newton's method with a Cholesky factor or, truncated, with conjugate gradients; `auto` by size."""

    solver: Literal["auto", "newton_cholesky", "newton_cg"] = "auto"

    family: ClassVar[TrainingLoss]  # the loss of a row, up to what the data add
    predicts: ClassVar[frozenset[Prediction]]

    @abstractmethod
    def row_loss(self, problem: Problem, rows: Int[Array, " m"] | None = None) -> TrainingLoss:
        """The loss of a row in a split that trains on these rows."""

    @property
    @abstractmethod
    def length(self) -> Length | None:
        """The size of residuals at which the loss bends, as it was given; None without such a size."""

    @property
    def parts(self) -> Parts:
        """Rows and curvature, means with an exact Hessian; a likelihood if the loss is one and weights are fixed."""
        fixed = self.weights is None
        remedy = ("weights", "does not tune example weights; leave them out, or use approximate_leave_one_out")
        withheld = {} if fixed else {Capability.LIKELIHOOD: remedy}
        parts = Parts(rows=self, curved=self, has_hessian=True)
        if not self.family.is_likelihood:
            return parts
        return replace(parts, likelihood=self if fixed else None, withheld=withheld)

    @abstractmethod
    def score(self, loss: SelectionLoss | None) -> SelectionLoss:
        """The selection loss, or the default for None. Raises ValueError for one that does not fit."""

    def check_target(self, problem: Problem) -> None:
        """Raises RowError if the loss does not accept a target."""
        self.row_loss(problem).check(problem.y)

    def selection_loss(self, problem: Problem, loss: SelectionLoss | None, rows: Int[Array, " m"]) -> PredictorScore:
        """The selection loss; a deviance takes its family from the training loss."""
        return self.score(loss).in_units(problem, rows).of_family(self.row_loss(problem))

    def check_splits(self, problem: Problem, partition: Partition, loss: SelectionLoss | None) -> None:
        """Raises ValueError if a split lacks a class, or what the training or the selection loss needs."""
        if self.classifies:
            check_classes(problem, partition, self.selection_loss(problem, loss, partition.used))
        if self.intercept:
            check_parts(self.row_loss(problem), problem, partition)

    def outputs(self, problem: Problem) -> int:
        """Number of linear predictors of a row. Needs no rows."""
        return self.row_loss(problem).outputs

    def penalties(self, problem: Problem) -> tuple[Hyperparameters, PenaltyForms]:
        """Hyperparameters and matrices of the penalties on the slopes, one output after the other."""
        if self.outputs(problem) == 1:
            return self._in_units(problem, self.penalties_of_features(problem.features))
        return self._in_units(problem, self.penalty.matrices_of_classes(problem.features, problem.classes))

    def prefers_inexact(self, problem: Problem) -> bool:
        """With conjugate gradients, whose number depends on the accuracy."""
        return self.method(self.coefficients(problem)) == "newton_cg"

    def misfits(self, problem: Problem, rows: int) -> Iterator[Misfit]:
        """As of all linear predictors, and a factor that is too large."""
        yield from self._misfits_of_columns(problem)
        if self.solver == "newton_cholesky":
            try:
                self.check_factor(problem)
            except ValueError as error:
                yield Misfit(("training", "solver"), f"{error}; use newton_cg or auto", "too_large")

    def method(self, columns: int) -> IterativeSolver:
        """The inner solver for this number of coefficients."""
        if self.solver != "auto":
            return self.solver
        return "newton_cholesky" if columns <= AUTO_CHOLESKY_MAX_COEFFICIENTS else "newton_cg"

    def coefficients(self, problem: Problem) -> int:
        """Number of coefficients over all outputs, intercepts included. Needs no rows."""
        columns = len(problem.features) + sum(spline.basis - 2 for spline in self.splines)
        return self.outputs(problem) * (columns + self.intercept)

    def check_factor(self, problem: Problem) -> None:
        """Raises ValueError if the factor of the Hessian is too large for memory. Needs no rows."""
        size = self.coefficients(problem)
        if size > MAX_FACTORED_COEFFICIENTS:
            raise ValueError(
                f"a factor for {size} coefficients takes about {16e-9 * size**2:.0f} GB for each split and "
                f"{size**3 / 3:.0e} operations for each step, and {MAX_FACTORED_COEFFICIENTS} coefficients are the most"
            )

    def systems(
        self, problem: Problem, partition: Partition, *, loss: SelectionLoss | None = None
    ) -> list[GeneralizedLinear]:
        """One training system with its validation loss for each split."""
        self.check_splits(problem, partition, loss)
        forms, score = self.penalties(problem)[1], self.selection_loss(problem, loss, partition.used)
        rows_of_splits = [(partition.rows(train), partition.rows(scored)) for train, scored in partition.splits]
        p = problem.X.shape[1]
        hold = sum(map(len, sum(rows_of_splits, ()))) * (p + 1) <= MAX_HELD_VALUES
        return [
            self._system(split, forms, score, rows, scored, hold=hold)
            for split, (rows, scored) in zip(split_problems(problem, partition), rows_of_splits, strict=True)
        ]

    def factored_systems(
        self, problem: Problem, partition: Partition, loss: SelectionLoss | None = None
    ) -> list[GeneralizedLinear]:
        """The same with the solver that leaves the factor of the Hessian."""
        return replace(self, solver="newton_cholesky").systems(problem, partition, loss=loss)

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
        scored = self.selection_loss(problem, loss, partition.used)
        return mean_of_iterative(systems, box, hypergradient, scored, split_weights)

    def refit(self, problem: Problem, rows: Int[Array, " m"]) -> GeneralizedLinear:
        """The training system of all given rows; its validation loss scores the same rows."""
        return self.systems(problem, Partition.whole(rows, len(problem.y)))[0]

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
        row_loss, base = self.row_loss(problem, rows), problem.base_weights(rows)
        m = row_loss.outputs
        class_factors = weights_of_classes(self.class_weights, problem, rows)
        base = base if class_factors is None else base * class_factors
        mean, variance = mean_and_variance(problem.X, rows, base)
        origin = self._origin(problem, mean, variance)
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

    def cost(self, problem: Problem, sizes: Sizes) -> TrainingCost:
        """What it costs. Criteria of one fit take the factor of the Hessian. Needs no rows."""
        size, m = self.coefficients(problem), self.outputs(problem)
        solver: IterativeSolver = "newton_cholesky" if sizes.closed_form else self.method(size)
        return cost_of_iterations(solver, size // m, m, sizes, intercept=self.intercept)


def check_parts(row_loss: TrainingLoss, problem: Problem, partition: Partition) -> None:
    """Raises ValueError if a split trains on rows that no finite intercept fits."""
    for number, (train, _) in enumerate(partition.splits, start=1):
        rows = partition.rows(train)
        split = f"split {number} of {len(partition.splits)}"
        if text := row_loss.lacks(problem.y[rows], problem.base_weights(rows), split):
            raise ValueError(text)


def _slope_positions(m: int, p: int) -> Int[Array, " mp"]:
    """Indices of the slopes in theta, in which each output begins with its intercept."""
    return (np.arange(m)[:, None] * (p + 1) + 1 + np.arange(p)).ravel()
