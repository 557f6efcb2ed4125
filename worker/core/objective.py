"""The outer objective `J(rho) = E(theta(rho); rho)` with its exact gradient and Hessian."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, cast

import numpy as np
from jaxtyping import Float, Int

from worker.core.glm.validation import PredictorScore
from worker.core.hypergradient import ExactHypergradient
from worker.core.hyperparameters import Hyperparameters
from worker.core.imputation import split_problems
from worker.core.losses import ResidualLoss, SquaredError
from worker.core.measures import Pooled
from worker.core.records import Array, Evaluation, Outcome, Partition, Problem
from worker.core.systems import Fit, LeastSquaresFit, System
from worker.core.tables import CHUNK_VALUES, rows_at_a_time, take


@dataclass(frozen=True, slots=True)
class Scores:
    """Losses of single rows, and weights that sum to one and give J as their mean."""

    losses: Float[Array, " v"]
    weights: Float[Array, " v"]

    def standard_error(self) -> float | None:
        """Of the weighted mean, rows being independent; None for a single row."""
        m = len(self.losses)
        if m < 2:
            return None
        deviations = self.losses - self.weights @ self.losses
        deviations *= self.weights  # in place: there may be very many rows
        return float(np.linalg.norm(deviations) * np.sqrt(m / (m - 1)))


@dataclass(slots=True)
class Objective:
    """Weighted mean of the selection loss over all validation rows, pooled over the splits.

    `J = sum_s f_s sum_i w_i loss_i / sum_s f_s sum_i w_i` with the weights `f` of the splits and `w` of the rows. Keeps
    the fits of the last evaluation, so that a Hessian at the same point needs no new factorization.
    """

    systems: list[System]
    hyperparameters: Hyperparameters
    hypergradient: ExactHypergradient
    loss: PredictorScore = field(default_factory=SquaredError)
    split_weights: Float[Array, " splits"] | None = None
    singular: ClassVar[Outcome] = Outcome.SINGULAR
    _fitted: tuple[bytes, list[Fit]] | None = field(default=None, init=False)

    @property
    def factors(self) -> Float[Array, " splits"]:
        """What the sum of losses of each split is multiplied with in J."""
        weights = np.ones(len(self.systems)) if self.split_weights is None else self.split_weights
        return weights / sum(f * system.loss.weight for f, system in zip(weights, self.systems, strict=True))

    def unit(self, value: float) -> float:
        """The size that changes of J near `value` are measured by: J itself, which is positive."""
        return abs(value) or 1.0

    @property
    def is_mean_loss(self) -> bool:
        """Whether J is a mean of the loss over rows, which a score on other rows can be compared with."""
        return True

    def noticeable(self, standard_error: float | None) -> float | None:
        """A rise of J that means something: its standard error, where it is known."""
        return standard_error

    def noise_variance(self, rho: Float[Array, " k"]) -> float | None:
        """The noise variance that the criterion implies, None where it implies none."""
        del rho
        return None

    @property
    def has_hessian(self) -> bool:
        """Whether `hessian` gives the exact Hessian of J."""
        return True

    def forget(self) -> None:
        """Keep nothing of earlier evaluations, so that the next ones do not depend on them."""
        self._fitted = None

    def memory(self) -> Mapping[str, Array]:
        """What the next evaluation depends on beyond its point: nothing where training is solved directly."""
        return {}

    def recall(self, memory: Mapping[str, Array]) -> None:
        """Go on from what `memory` gave."""
        del memory
        self.forget()

    def inner_gradient_norm(self, fit: Fit) -> float:
        """The norm of `dC/dtheta` at theta over that at theta = 0."""
        gradient = fit.gradient()
        return relative(gradient, gradient - fit.apply(fit.theta))

    def natural(self, rho: Float[Array, " k"]) -> Float[Array, " h"]:
        """The hyperparameters of the training criterion, in natural units."""
        return self.hyperparameters.natural(rho)

    def fits(self, rho: Float[Array, " k"]) -> list[Fit] | None:
        """A fit for each split, or None if one of them is singular to working precision."""
        key = rho.tobytes()
        if self._fitted is not None and self._fitted[0] == key:
            return self._fitted[1]
        self._fitted = None  # free the factors before the next ones are made
        lam = self.natural(rho)
        fits: list[Fit] = []
        for split in range(len(self.systems)):
            fit = self._fit(split, rho, lam)
            if fit is None:
                return None
            fits.append(fit)
        self._fitted = (key, fits)
        return fits

    def least_squares_fits(self, rho: Float[Array, " k"]) -> list[LeastSquaresFit] | None:
        """The same where training is quadratic."""
        return cast("list[LeastSquaresFit] | None", self.fits(rho))

    def _fit(self, split: int, rho: Float[Array, " k"], lam: Float[Array, " h"]) -> Fit | None:
        del rho
        return self.systems[split].fit(lam)

    def _tangents(self, chosen: Int[Array, " f"], fits: list[Fit]) -> list[Float[Array, "_ f"]]:
        """`dtheta/drho` of the chosen hyperparameters for each split."""
        return [fit.sensitivity(chosen) for fit in fits]

    def value(self, rho: Float[Array, " k"]) -> float:
        """J alone; infinite where training is singular."""
        fits = self.fits(rho)
        if fits is None:
            return np.inf
        parts = zip(self.factors, self.systems, fits, strict=True)
        return float(sum(factor * system.loss.value(fit.theta) for factor, system, fit in parts))

    def evaluate(self, rho: Float[Array, " k"]) -> Evaluation:
        """J and `dJ/drho`."""
        fits = self.fits(rho)
        if fits is None:
            return self._failed(rho, self.singular)
        factors = self.factors
        sums = np.empty(len(fits))
        gradient = np.zeros(len(rho))
        for i, (system, fit) in enumerate(zip(self.systems, fits, strict=True)):
            sums[i], theta_bar = system.loss.value_and_gradient(fit.theta)
            gradient += self.hypergradient(fit, factors[i] * theta_bar)
        value = float(factors @ sums)
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            return self._failed(rho, Outcome.NON_FINITE)
        return Evaluation(rho.copy(), value, gradient, sums / np.array([s.loss.weight for s in self.systems]))

    def approximate(self, rho: Float[Array, " k"], accuracy: float) -> Evaluation:
        """J and `dJ/drho` from fits of some accuracy, with bounds of their errors; solved directly they are exact."""
        del accuracy
        return self.evaluate(rho)

    def hessian(self, rho: Float[Array, " k"], chosen: Int[Array, " f"] | None = None) -> Float[Array, "f f"]:
        """`d2J/drho2` in the chosen hyperparameters (ascending indices; all by default), where `evaluate` succeeded.

        With `D = dtheta/drho`, the adjoint u and g the gradient of the training criterion:
        `J_jl = D_j^T E'' D_l - u^T H_j D_l - u^T H_l D_j - u^T g_jl - C'''[u, D_j, D_l]`.
        """
        fits = self.fits(rho)
        if fits is None:
            raise ValueError("the Hessian is not defined where training is singular")
        chosen = np.arange(len(rho)) if chosen is None else chosen
        total = np.zeros((len(chosen), len(chosen)))
        tangents = self._tangents(chosen, fits)
        for factor, system, fit, D in zip(self.factors, self.systems, fits, tangents, strict=True):
            u = fit.solve(system.loss.value_and_gradient(fit.theta)[1])
            cross = fit.contract_columns(u, D)[chosen]
            curved = fit.curvature(u)[np.ix_(chosen, chosen)] + fit.third(u, D)
            total += factor * (system.loss.hessian_form(D, fit.theta) - cross - cross.T - curved)
        return (total + total.T) / 2

    def pooled(self, rho: Float[Array, " k"]) -> Pooled | None:
        """The validation rows of all splits with their predictors, where training is of classes; it is not here."""
        del rho
        return None

    def row_scores(self, problem: Problem, partition: Partition, rho: Float[Array, " k"]) -> Scores | None:
        """The losses of the single validation rows of all splits, whose weighted mean J is."""
        fits = self.fits(rho)
        if fits is None:
            return None
        assert isinstance(self.loss, ResidualLoss)
        models = [system.coefficients(fit.theta) for system, fit in zip(self.systems, fits, strict=True)]
        tables = [split.X for split in split_problems(problem, partition)]
        validation = [partition.rows(blocks) for _, blocks in partition.splits]
        ends = np.cumsum([len(rows) for rows in validation])
        scores = Scores(np.empty(ends[-1]), np.empty(ends[-1]))
        size = rows_at_a_time(problem.X, CHUNK_VALUES)
        parts = list(zip(ends, validation, tables, models, self.factors, strict=True))
        for begin in range(0, len(problem.y), size):  # all splits together, so that the table is read once
            for end, rows, X, (constant, slopes), factor in parts:
                low, high = np.searchsorted(rows, (begin, begin + size))
                if low < high:
                    some, place = rows[low:high], slice(end - len(rows) + low, end - len(rows) + high)
                    scores.losses[place] = self.loss.of(problem.y[some] - constant - take(X, some) @ slopes)[0]
                    scores.weights[place] = factor * problem.score_weights(some)
        return scores

    def _failed(self, rho: Float[Array, " k"], failure: Outcome) -> Evaluation:
        return Evaluation(rho.copy(), np.inf, np.zeros(len(rho)), np.full(len(self.systems), np.inf), failure)


def relative(residual: Float[Array, " p"], scale: Float[Array, " p"]) -> float:
    """The norm of the residual over that of the scale."""
    return float(np.linalg.norm(residual) / (np.linalg.norm(scale) or 1.0))
