"""The interface of the outer objective J(rho), as optimizers and all later steps see it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from worker.core.hyperparameters import Hyperparameters
from worker.core.inner.protocols import Solver
from worker.core.losses.measures import Pooled
from worker.core.losses.over_rows import PredictorScore
from worker.core.records import Array, Evaluation, Outcome
from worker.core.rows.problem import Partition, Problem


@dataclass(frozen=True, slots=True)
class Scores:
    """Losses of single rows. J is their mean under the weights, which sum to one."""

    losses: Float[Array, " v"]
    weights: Float[Array, " v"]

    def standard_error(self) -> float | None:
        """Of the weighted mean, for independent rows; None for a single row. Rows of weight zero do not count."""
        m = int(np.count_nonzero(self.weights))
        if m < 2:
            return None
        deviations = self.losses - self.weights @ self.losses
        deviations *= self.weights  # in place: there may be many rows
        return float(np.linalg.norm(deviations) * np.sqrt(m / (m - 1)))


@dataclass(frozen=True, slots=True)
class Residuals:
    """The relative residuals of training and of the adjoint, each of the worst split."""

    inner_gradient_norm: float
    adjoint_residual: float


UNKNOWN_RESIDUALS = Residuals(np.nan, np.nan)  # if training from scratch fails at a point that warm starts reached


class Objective(ABC):
    """`J(rho) = E(theta(rho); rho)` with its exact derivatives. `loss` scores a row, or all rows together."""

    __slots__ = ()

    hyperparameters: Hyperparameters
    loss: PredictorScore
    singular: ClassVar[Outcome] = Outcome.SINGULAR

    @abstractmethod
    def value(self, rho: Float[Array, " k"]) -> float:
        """J alone; infinite if training is singular."""

    @abstractmethod
    def evaluate(self, rho: Float[Array, " k"]) -> Evaluation:
        """J and `dJ/drho`."""

    @abstractmethod
    def residuals(self, rho: Float[Array, " k"]) -> Residuals:
        """The relative residuals of training and of the adjoint at this point."""

    @property
    @abstractmethod
    def solver(self) -> Solver:
        """How training is solved."""

    def approximate(self, rho: Float[Array, " k"], accuracy: float) -> Evaluation:
        """J and `dJ/drho` from fits of this accuracy, with error bounds; exact if training is solved directly."""
        return self.evaluate(rho)

    @property
    def has_hessian(self) -> bool:
        """Whether `hessian` gives the exact Hessian of J."""
        return False

    def hessian(self, rho: Float[Array, " k"], chosen: Int[Array, " f"] | None = None) -> Float[Array, "f f"]:
        """`d2J/drho2` in the chosen hyperparameters (ascending indices; all by default), if `evaluate` succeeded.

        Raises ValueError where there is none.
        """
        raise ValueError("this criterion has no exact Hessian; use lbfgs")

    def unit(self, value: float) -> float:
        """The unit for changes of J near `value`: J itself, which is positive."""
        return abs(value) or 1.0

    @property
    def is_mean_loss(self) -> bool:
        """Whether J is a mean of the loss over rows, comparable with a score on other rows."""
        return True

    def noticeable(self, standard_error: float | None) -> float | None:
        """The smallest rise of J that matters: its standard error; None if not known."""
        return standard_error

    def noise_variance(self, rho: Float[Array, " k"]) -> float | None:
        """The noise variance that the criterion implies, if any."""
        return None

    def forget(self) -> None:  # noqa: B027 - most have no state
        """Drop all state of earlier evaluations, so that the next ones do not depend on them."""

    def memory(self) -> Mapping[str, Array]:
        """The state that the next evaluation depends on: empty if training is solved directly."""
        return {}

    def recall(self, memory: Mapping[str, Array]) -> None:
        """Restore the state that `memory` saved."""
        self.forget()

    def natural(self, rho: Float[Array, " k"]) -> Float[Array, " h"]:
        """The hyperparameters of the training criterion, in natural units."""
        return self.hyperparameters.natural(rho)

    def pooled(self, rho: Float[Array, " k"]) -> Pooled | None:
        """The validation rows of all splits with their predictors, for measures of classes; None by default."""
        return None

    def remarks(self, rho: Float[Array, " k"]) -> tuple[str, ...]:
        """Sentences about the result that the user should read: none by default."""
        return ()

    def row_scores(self, problem: Problem, partition: Partition, rho: Float[Array, " k"]) -> Scores | None:
        """The losses of the validation rows of all splits; None if J is not their mean."""
        return None


def failed(rho: Float[Array, " k"], splits: int, failure: Outcome) -> Evaluation:
    """The evaluation of a point at which training or J is not defined."""
    return Evaluation(rho.copy(), np.inf, np.zeros(len(rho)), np.full(splits, np.inf), failure)


def means(sums: Float[Array, " s"], weights: Float[Array, " s"]) -> Float[Array, " s"]:
    """The mean loss of each split; NaN if all its rows have the scoring weight zero."""
    return np.divide(sums, weights, out=np.full(len(sums), np.nan), where=weights > 0)


def relative(residual: Float[Array, " p"], scale: Float[Array, " p"]) -> float:
    """The norm of the residual relative to the norm of the scale."""
    return float(np.linalg.norm(residual) / (np.linalg.norm(scale) or 1.0))
