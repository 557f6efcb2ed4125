"""Kernel machines: ridge regression, support vector machines and logistic regression in a kernel's space.

`C = sum_i w_i loss(y_i, f(x_i) + b) / sum_i w_i + lam / 2 |f|^2`. The loss is a mean, so a penalty means the same in
a fold and in the refit; `lam` is `1 / (n C)` of support vector machines and `alpha / n` of kernel ridge.
Theta are coefficients of rows (Keerthi, Sindhwani and Chapelle 2006; Chapelle 2007).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Lt
from jaxtyping import Float, Int

from worker.core.capabilities import Misfit
from worker.core.costs import Sizes, TrainingCost
from worker.core.family import ByKind
from worker.core.hypergradient import ExactHypergradient
from worker.core.hyperparameters import Box, Hyperparameters
from worker.core.inner.kernel.cost_of_kernels import cost_of_kernels
from worker.core.inner.kernel.kernel_fit import KernelSystem, Split
from worker.core.inner.kernel.kernel_model import KernelModel, Standard
from worker.core.kernels import Kernel, KernelFunction, Rbf
from worker.core.losses import PredictorScore, SelectionLoss
from worker.core.losses.over_rows import LossOfScored
from worker.core.losses.training import (
    LogisticLoss,
    MachineLoss,
)
from worker.core.objective.means import mean_of_machines
from worker.core.objective.objective import Objective
from worker.core.records import Array
from worker.core.rows.column_remarks import observations
from worker.core.rows.filled import split_problems, with_variances
from worker.core.rows.problem import Partition, Problem
from worker.core.rows.tables import mean_and_variance
from worker.core.training.class_weights import (
    ClassWeights,
    class_weight_misfits,
    weights_of_classes,
)
from worker.core.training.training_criterion import TrainingCriterion

MAX_EXACT_ROWS = 10_000  # of an exact kernel matrix: five matrices of its size are held, 4 GB
MAX_DENSE_VALUES = 200_000_000  # of the table as a dense array, and of its rows times the landmarks


@dataclass(frozen=True, slots=True)
class KernelPenalty(Box):
    """The box and the initial value of the penalty, `1 / (n C)` of a support vector machine.

    Given numbers are natural units. Omitted ones (null) are 1e-2, 1e-6 and 1e2. They are in units of the mean variance
    of the features if the kernel is linear without widths and features are not standardized.
    """

    defaults: ClassVar[tuple[float, float, float]] = (1e-2, 1e-6, 1e2)


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Nystrom approximation: `count` random training rows represent all of them (Williams and Seeger 2001).

    `nugget`, relative to the mean diagonal of their kernel matrix, is added to that diagonal.
    """

    count: Annotated[int, Ge(1), Lt(2**31)] = 500
    seed: Annotated[int, Ge(0), Lt(2**63)] = 0
    nugget: Annotated[float, Gt(0), Lt(1)] = 1e-8


@dataclass(frozen=True, slots=True)
class KernelTraining(TrainingCriterion, ABC):
    """`f(x) = sum_i theta_i k(x_i, x)` plus an intercept that is not penalized.

    `standardize`: features are scaled to unit variance over the training rows of each split.
    """

    kernel: Annotated[Kernel, ByKind(named=True)] = Rbf()  # noqa: RUF009 - frozen
    penalty: KernelPenalty = KernelPenalty()
    intercept: bool = True
    standardize: bool = True
    landmarks: Landmarks | None = None

    splines: ClassVar[tuple[()]] = ()
    weights: ClassVar[None] = None
    length: ClassVar[None] = None
    iterative: ClassVar[bool]  # whether a fit takes more than one factorization

    @property
    @abstractmethod
    def class_weights(self) -> ClassWeights | None:
        """Factors of the training weights by class, if there are any."""

    @property
    def refuses_offset(self) -> str:
        """A kernel machine fits no part beside its own."""
        return f"{self.kind} takes no offset; leave it out."

    @abstractmethod
    def row_loss(self, problem: Problem, rows: Int[Array, " m"] | None = None) -> MachineLoss:
        """The loss of a row."""

    @abstractmethod
    def score(self, loss: SelectionLoss | None) -> SelectionLoss:
        """The selection loss, or the default for None. Raises ValueError if it does not fit."""

    def selection_loss(self, problem: Problem, loss: SelectionLoss | None, rows: Int[Array, " m"]) -> PredictorScore:
        """The selection loss; a deviance takes its family from the training loss."""
        return self.score(loss).in_units(problem, rows).of_family(LogisticLoss())

    def misfits(self, problem: Problem, rows: int) -> Iterator[Misfit]:
        """Class weights and a kernel that do not fit the classes or columns, or more rows than a matrix can have."""
        yield from class_weight_misfits(self.class_weights, problem.classes)
        try:
            self.kernel.over(problem.features)
        except ValueError as error:
            yield Misfit(("training", "kernel"), str(error))
        try:
            self.check_size(rows, len(problem.features))
        except ValueError as error:
            yield Misfit(("training", "landmarks"), str(error), "too_large")

    def prefers_inexact(self, problem: Problem) -> bool:
        """No: fits are exact to rounding."""
        return False

    def observations(self, problem: Problem, rows: Int[Array, " m"], partition: Partition) -> tuple[str, ...]:
        """Remarks about constant and equal columns."""
        return observations(problem, problem.trained(rows), linear=False)

    def function(self, problem: Problem) -> KernelFunction:
        """The kernel over the features of the problem."""
        return self.kernel.over(problem.features, problem.variances)

    @property
    def needs_variances(self) -> bool:
        """Unless features are standardized."""
        return not self.standardize

    def hyperparameters(self, problem: Problem) -> Hyperparameters:
        """The penalty, then those of the kernel. Raises ValueError when the kernel does not fit the features."""
        kernel, penalty = self.function(problem), self.penalty.hyperparameters(("penalty",))
        return self.penalty.in_units(penalty, np.array([kernel.unit])) + kernel.box

    def expanded(self, problem: Problem, rows: Int[Array, " m"]) -> Problem:
        """The problem; with the variances of its columns if features are not standardized."""
        return with_variances(problem, rows, centred=True) if self.needs_variances else problem

    @abstractmethod
    def check_target(self, problem: Problem) -> None:
        """Raises ValueError if a target cannot be trained on."""

    @abstractmethod
    def check_splits(self, problem: Problem, partition: Partition, loss: SelectionLoss | None) -> None:
        """Raises ValueError if a split lacks what training or the selection loss needs."""

    def check_size(self, rows: int, features: int) -> None:
        """Raises ValueError if these rows and features do not fit in memory."""
        if self.landmarks is None and rows > MAX_EXACT_ROWS:
            gigabytes, flops = 40e-9 * rows**2, rows**3 / 3
            raise ValueError(
                f"the kernel matrix of {rows} rows takes about {gigabytes:.0f} GB and {flops:.0e} operations for each "
                f'evaluation; set training.landmarks (such as {{"count": 500}}), or use at most {MAX_EXACT_ROWS} rows'
            )
        if rows * features > MAX_DENSE_VALUES:
            raise ValueError(
                f"kernels take at most {MAX_DENSE_VALUES:.0e} values as an array; use fewer rows or features"
            )
        if self.landmarks is not None and self.landmarks.count * rows > MAX_DENSE_VALUES:
            raise ValueError(f"{self.landmarks.count} landmarks of {rows} rows are too many; choose fewer landmarks")

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
        self.check_splits(problem, partition, loss)
        score, kernel = self.selection_loss(problem, loss, partition.used), self.function(problem)
        systems = [
            KernelSystem(split, kernel, LossOfScored(split.y_scored, score, split.w_scored))
            for split in self.splits(problem, partition)
        ]
        return mean_of_machines(systems, self.hyperparameters(problem), hypergradient, score, split_weights)

    def splits(self, problem: Problem, partition: Partition) -> list[Split]:
        """The rows of each split as kernels take them: standardized, with landmarks if there are any."""
        rows_of_splits = [(partition.rows(train), partition.rows(scored)) for train, scored in partition.splits]
        # the refit uses all of these rows
        self.check_size(len(partition.used), problem.X.shape[1])
        problems = split_problems(problem, partition)
        return [self._split(split, *rows)[0] for split, rows in zip(problems, rows_of_splits, strict=True)]

    def model(self, problem: Problem, rows: Int[Array, " m"], lam: Float[Array, " k"]) -> KernelModel | None:
        """The model of the given rows, whose missing values are filled; None if training has no minimum."""
        split, standard = self._split(problem, rows, rows[:1])
        kernel = self.function(problem)
        fit = split.fit(kernel, lam, None)
        if fit is None:
            return None
        kept = np.flatnonzero(fit.coefficients)
        return KernelModel(
            kernel, lam[1:], standard, fit.support.rows(kept), fit.coefficients[kept], float(fit.minimum.b),
            fit.inner_gradient_norm(),
        )  # fmt: skip

    def _split(self, problem: Problem, rows: Int[Array, " m"], scored: Int[Array, " v"]) -> tuple[Split, Standard]:
        base, class_factors = problem.base_weights(rows), weights_of_classes(self.class_weights, problem, rows)
        base = base if class_factors is None else base * class_factors
        rows, base = rows[base > 0], base[base > 0]
        mean, variance = mean_and_variance(problem.X, rows, base)
        scale = np.sqrt(np.where(variance > 0, variance, 1.0)) if self.standardize else np.ones(len(variance))
        standard = Standard(mean.high, scale)
        X, landmarks, nugget = standard.points(problem.X, rows), None, 0.0
        if self.landmarks is not None:
            random = np.random.default_rng([self.landmarks.seed, 7])
            landmarks = X.rows(np.sort(random.permutation(len(rows))[: self.landmarks.count]))
            nugget = self.landmarks.nugget
        return Split(
            X, problem.y[rows], base / base.sum(), standard.points(problem.X, scored), problem.y[scored],
            problem.score_weights(scored), self.row_loss(problem), self.intercept, landmarks, nugget,
        ), standard  # fmt: skip

    def cost(self, problem: Problem, sizes: Sizes) -> TrainingCost:
        """What it costs. Needs no rows."""
        landmarks = None if self.landmarks is None else self.landmarks.count
        return cost_of_kernels(len(problem.features), landmarks, sizes, iterative=self.iterative)
