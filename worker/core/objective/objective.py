"""The outer objective J(rho), as optimizers and all later steps see it: a formula, and the parts that it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from worker.core.hyperparameters import Hyperparameters
from worker.core.inner.least_squares.accurate import AccurateFit, AccurateKind
from worker.core.inner.protocols import Solver
from worker.core.losses.measures import Pooled
from worker.core.losses.score import PredictorScore
from worker.core.objective.clustered import error_of_mean
from worker.core.objective.influence import Chosen
from worker.core.objective.meaning import MEAN_LOSS, Meaning
from worker.core.objective.row_tangents import RowTangents, TangentsOfRows
from worker.core.objective.sandwich import GradientSums, row_gradients
from worker.core.records import Array, Evaluation, Outcome
from worker.core.rows.problem import Partition, Problem


@dataclass(frozen=True, slots=True)
class Scores:
    """Losses of single rows of the problem. J is their mean under the weights, which sum to one.

    A row that several splits score comes several times.
    """

    losses: Float[Array, " v"]
    weights: Float[Array, " v"]
    rows: Int[Array, " v"]

    def standard_error(self, clusters: Int[Array, " n"]) -> float | None:
        """Of the weighted mean; None for a single cluster. Rows of weight zero do not count.

        `clusters` has a label for each row of the problem: see `SelectionCriterion.clusters`.
        """
        return error_of_mean(self.losses, self.weights, clusters[self.rows])


@dataclass(frozen=True, slots=True)
class Residuals:
    """The relative residuals of training and of the adjoint, each of the worst split."""

    inner_gradient_norm: float
    adjoint_residual: float


UNKNOWN_RESIDUALS = Residuals(np.nan, np.nan)  # if training from scratch fails at a point that warm starts reached


@dataclass(frozen=True, slots=True)
class Found:
    """J at a point, its gradient and the mean loss of each split; `errors` bound those of J and of its gradient."""

    value: float
    gradient: Float[Array, " k"]
    per_split: Float[Array, " splits"]
    errors: tuple[float, float] = (0.0, 0.0)


@runtime_checkable
class Formula(Protocol):
    """`J(rho) = E(theta(rho); rho)` with its exact gradient. Nothing here looks whether numbers are finite."""

    def value(self, rho: Float[Array, " k"]) -> float:
        """J alone; infinite if training is singular."""

    def found(self, rho: Float[Array, " k"]) -> Found | None:
        """J and `dJ/drho`; None if training is singular."""

    def residuals(self, rho: Float[Array, " k"]) -> Residuals | None:
        """The relative residuals of training and of the adjoint at this point; None if training is singular."""


@runtime_checkable
class Memory(Protocol):
    """What the next evaluations depend on: the warm starts of iterative training."""

    def memory(self) -> Mapping[str, Array]:
        """All of it."""

    def recall(self, memory: Mapping[str, Array]) -> None:
        """Restore what `memory` saved."""

    def forget(self) -> None:
        """Drop it, and what is kept of earlier evaluations, so that the next ones do not depend on them."""


@runtime_checkable
class Arithmetic(Protocol):
    """How many digits J has: for formulas whose arithmetic can be repeated with about 32 digits."""

    @property
    def recomputed_from(self) -> AccurateKind:
        """The accurate fits that `recomputed` takes."""

    def kept(self, rho: Float[Array, " k"]) -> float:
        """The smallest fraction that subtractions have left of a number in J; zero if training is singular."""

    def recomputed(self, rho: Float[Array, " k"], fits: list[AccurateFit]) -> float:
        """J from accurate fits at rho, one for each split."""


@runtime_checkable
class InfluencesOfRows(Protocol):
    """What rows do to J where they are scored and where they train. `clusters` has a label for each row."""

    def gradients(
        self,
        problem: Problem,
        partition: Partition,
        rho: Float[Array, " k"],
        chosen: Chosen,
        clusters: Int[Array, " n"],
    ) -> GradientSums | None:
        """The influences of clusters on the gradient of J; None where they are not known."""

    def variance_of_pairs(
        self, problem: Problem, partition: Partition, rho: Float[Array, " k"], clusters: Int[Array, " n"]
    ) -> float:
        """What the variance of J less the loss of its model has besides that of the losses of fixed models."""


Hessian = Callable[[Float[Array, " k"], Int[Array, " f"]], Float[Array, "f f"] | None]
Approximation = Callable[[Float[Array, " k"], float], Found | None]
ScoresOfRows = Callable[[Problem, Partition, Float[Array, " k"]], Scores | None]
Remark = Callable[[Float[Array, " k"]], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Objective:
    """J(rho) over a box. `loss` scores a row, or all rows together; the last `own` hyperparameters are not training's.

    Parts that a criterion lacks are None: an exact Hessian, evaluations of any accuracy, warm starts, losses of single
    rows, the tangents of their predictors, the influences of rows that train, the pooled validation rows, a noise
    variance, an arithmetic that can be repeated.
    """

    formula: Formula
    hyperparameters: Hyperparameters
    loss: PredictorScore
    solver: Solver
    splits: int = 1
    meaning: Meaning = MEAN_LOSS
    singular: Outcome = Outcome.SINGULAR
    own: int = 0
    second: Hessian | None = None
    approximation: Approximation | None = None
    warm: Memory | None = None
    rows: ScoresOfRows | None = None
    tangents: TangentsOfRows | None = None
    influences: InfluencesOfRows | None = None
    pool: Callable[[Float[Array, " k"]], Pooled | None] | None = None
    noise: Callable[[Float[Array, " k"]], float | None] | None = None
    arithmetic: Arithmetic | None = None
    notes: tuple[Remark, ...] = field(default=())

    @property
    def has_hessian(self) -> bool:
        """Whether `hessian` gives the exact Hessian of J."""
        return self.second is not None

    def natural(self, rho: Float[Array, " k"]) -> Float[Array, " h"]:
        """The hyperparameters of the training criterion, in natural units."""
        return self.hyperparameters.natural(rho)[: len(rho) - self.own]

    def value(self, rho: Float[Array, " k"]) -> float:
        """J alone; infinite if training is singular."""
        return self.formula.value(rho)

    def evaluate(self, rho: Float[Array, " k"]) -> Evaluation:
        """J and `dJ/drho`."""
        return self._evaluation(rho, self.formula.found(rho))

    def approximate(self, rho: Float[Array, " k"], accuracy: float) -> Evaluation:
        """J and `dJ/drho` from fits of this accuracy, with error bounds; exact where training has no other."""
        if self.approximation is None:
            return self.evaluate(rho)
        return self._evaluation(rho, self.approximation(rho, accuracy))

    def hessian(self, rho: Float[Array, " k"], chosen: Int[Array, " f"] | None = None) -> Float[Array, "f f"]:
        """`d2J/drho2` in the chosen hyperparameters (ascending indices; all by default), if `evaluate` succeeded.

        Raises ValueError where it is not defined.
        """
        if self.second is None:
            raise ValueError("this criterion has no exact Hessian; use lbfgs")
        if chosen is not None and not len(chosen):  # all are at bounds
            return np.empty((0, 0))
        H = self.second(rho, np.arange(len(rho)) if chosen is None else chosen)
        if H is None:
            raise ValueError("the Hessian is not defined where training is singular")
        return (H + H.T) / 2

    def residuals(self, rho: Float[Array, " k"]) -> Residuals:
        """The relative residuals of training and of the adjoint at this point; NaN if training is singular."""
        return self.formula.residuals(rho) or UNKNOWN_RESIDUALS

    def unit(self, value: float) -> float:
        """The unit for changes of J near `value`."""
        return self.meaning.unit(value)

    def row_scores(self, problem: Problem, partition: Partition, rho: Float[Array, " k"]) -> Scores | None:
        """The losses of the validation rows of all splits; None if J is not their mean."""
        return None if self.rows is None else self.rows(problem, partition, rho)

    def row_tangents(
        self, problem: Problem, partition: Partition, rho: Float[Array, " k"], chosen: Int[Array, " f"] | None = None
    ) -> Iterator[RowTangents] | None:
        """The rows of `row_scores`, in chunks, with the derivatives of their predictors in the chosen hyperparameters.

        `chosen` are ascending indices; all by default. None if J is not a mean over rows, or if training has no
        tangents or is singular.
        """
        if self.tangents is None or self.loss.by_row is None:
            return None
        return self.tangents(problem, partition, rho, np.arange(len(rho)) if chosen is None else chosen)

    def gradient_sums(
        self,
        problem: Problem,
        partition: Partition,
        rho: Float[Array, " k"],
        chosen: Chosen,
        clusters: Int[Array, " n"],
    ) -> GradientSums | None:
        """The influences of clusters of rows on the gradient of J: those of scored rows alone if no others are known.

        None where there are no row tangents.
        """
        if self.influences is not None and self.loss.by_row is not None:
            sums = self.influences.gradients(problem, partition, rho, chosen, clusters)
            if sums is not None:
                return sums
        chunks = self.row_tangents(problem, partition, rho, chosen.numbers)
        if chunks is None:
            return None
        sums = GradientSums(int(clusters.max()) + 1, chosen.together.shape[1])
        for chunk in chunks:
            g = row_gradients(chunk.slopes(chunk.eta), chunk.D) @ chosen.together
            sums.add(g, chunk.weights, clusters[chunk.rows])
        return sums

    def standard_error(
        self,
        scores: Scores,
        problem: Problem,
        partition: Partition,
        rho: Float[Array, " k"],
        clusters: Int[Array, " n"],
    ) -> float | None:
        """Of J as the loss of its model on new rows, from the `row_scores` at rho; None for a single cluster.

        That of fixed models, and what is known of how models move with the rows.
        """
        error = scores.standard_error(clusters)
        if error is None or self.influences is None or self.loss.by_row is None:
            return error
        return float(np.sqrt(error**2 + self.influences.variance_of_pairs(problem, partition, rho, clusters)))

    def pooled(self, rho: Float[Array, " k"]) -> Pooled | None:
        """The validation rows of all splits with their predictors, for measures of classes; None without classes."""
        return None if self.pool is None else self.pool(rho)

    def noise_variance(self, rho: Float[Array, " k"]) -> float | None:
        """The noise variance that the criterion implies, if any."""
        return None if self.noise is None else self.noise(rho)

    def remarks(self, rho: Float[Array, " k"]) -> tuple[str, ...]:
        """Sentences about the result that the user should read."""
        return tuple(sentence for note in self.notes for sentence in note(rho))

    def memory(self) -> Mapping[str, Array]:
        """The state that the next evaluation depends on: empty if training is solved directly."""
        return {} if self.warm is None else self.warm.memory()

    def recall(self, memory: Mapping[str, Array]) -> None:
        """Restore the state that `memory` saved."""
        if self.warm is not None:
            self.warm.recall(memory)

    def forget(self) -> None:
        """Drop all state of earlier evaluations, so that the next ones do not depend on them."""
        if self.warm is not None:
            self.warm.forget()

    def _evaluation(self, rho: Float[Array, " k"], found: Found | None) -> Evaluation:
        """The one place that looks whether J is finite. Where H is singular, the adjoint makes the gradient NaN."""
        if found is None:
            return failed(rho, self.splits, self.singular)
        if not np.isfinite(found.value):
            return failed(rho, self.splits, Outcome.NON_FINITE)
        if not np.isfinite(found.gradient).all():
            return failed(rho, self.splits, self.singular)
        return Evaluation(rho.copy(), found.value, found.gradient, found.per_split, None, *found.errors)


def failed(rho: Float[Array, " k"], splits: int, failure: Outcome) -> Evaluation:
    """The evaluation of a point at which training or J is not defined."""
    return Evaluation(rho.copy(), np.inf, np.zeros(len(rho)), np.full(splits, np.inf), failure)


def means(sums: Float[Array, " s"], weights: Float[Array, " s"]) -> Float[Array, " s"]:
    """The mean loss of each split; NaN if all its rows have the scoring weight zero."""
    return np.divide(sums, weights, out=np.full(len(sums), np.nan), where=weights > 0)
