"""The outer objective that fits one system per split and scores its validation rows: exact gradient and Hessian."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, cast

import numpy as np
from jaxtyping import Float, Int

from worker.core.hypergradient import ExactHypergradient
from worker.core.hyperparameters import Hyperparameters
from worker.core.inner.least_squares.accurate import AccurateFit, AccurateKind
from worker.core.inner.protocols import Fit, LeastSquaresFit, Solver, System
from worker.core.losses import ResidualLoss, SquaredError
from worker.core.losses.over_rows import LossOfRows, PredictorScore, SquaredErrorOfMoments
from worker.core.objective.objective import UNKNOWN_RESIDUALS, Objective, Residuals, Scores, failed, means, relative
from worker.core.records import Array, Evaluation, Outcome
from worker.core.rows.filled import split_problems
from worker.core.rows.problem import Partition, Problem
from worker.core.rows.tables import CHUNK_VALUES, rows_at_a_time, take


@dataclass(slots=True)
class FittedObjective(Objective):
    """Weighted mean of the selection loss over all validation rows, pooled over the splits.

    `J = sum_s f_s sum_i w_i loss_i / sum_s f_s sum_i w_i` with the weights `f` of the splits and `w` of the rows.
    The fits of the last evaluation are kept, so that a Hessian at the same point needs no new factorization.
    """

    recomputed_from: ClassVar[AccurateKind] = "residuals"  # the fits that `recomputed` takes

    systems: list[System]
    hyperparameters: Hyperparameters
    hypergradient: ExactHypergradient
    loss: PredictorScore = field(default_factory=SquaredError)
    split_weights: Float[Array, " splits"] | None = None
    _fitted: tuple[bytes, list[Fit]] | None = field(default=None, init=False)

    @property
    def factors(self) -> Float[Array, " splits"]:
        """The factor of each split's sum of losses in J."""
        weights = np.ones(len(self.systems)) if self.split_weights is None else self.split_weights
        return weights / sum(f * system.loss.weight for f, system in zip(weights, self.systems, strict=True))

    @property
    def solver(self) -> Solver:
        """How the systems are solved."""
        return self.systems[0].solver

    @property
    def has_hessian(self) -> bool:
        """Whether `hessian` gives the exact Hessian of J."""
        return True

    def forget(self) -> None:
        """Drop all state of earlier evaluations, so that the next ones do not depend on them."""
        self._fitted = None

    def inner_gradient_norm(self, fit: Fit) -> float:
        """The norm of `dC/dtheta` at theta, relative to its norm at theta = 0."""
        gradient = fit.gradient()
        return relative(gradient, gradient - fit.apply(fit.theta))

    def units_of(self, fit: Fit) -> Float[Array, " p"] | float:
        """The units of the entries of an adjoint residual: 1 for all."""
        return 1.0

    def adjoint_residual(self, fit: Fit, u: Float[Array, " p"], theta_bar: Float[Array, " p"]) -> Float[Array, " p"]:
        """What the adjoint u leaves of its equation."""
        return fit.apply(u) - theta_bar

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
        """The fits of a quadratic training criterion."""
        return cast("list[LeastSquaresFit] | None", self.fits(rho))

    def _fit(self, split: int, rho: Float[Array, " k"], lam: Float[Array, " h"]) -> Fit | None:
        return self.systems[split].fit(lam)

    def _tangents(self, chosen: Int[Array, " f"], fits: list[Fit]) -> list[Float[Array, "_ f"]]:
        """`dtheta/drho` of the chosen hyperparameters for each split."""
        return [fit.sensitivity(chosen) for fit in fits]

    def value(self, rho: Float[Array, " k"]) -> float:
        """J alone; infinite if training is singular."""
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
        if not (np.isfinite(value) and np.isfinite(gradient).all()):  # an adjoint is NaN if H is singular
            return self._failed(rho, self.singular if np.isfinite(value) else Outcome.NON_FINITE)
        return Evaluation(rho.copy(), value, gradient, means(sums, np.array([s.loss.weight for s in self.systems])))

    def hessian(self, rho: Float[Array, " k"], chosen: Int[Array, " f"] | None = None) -> Float[Array, "f f"]:
        """`d2J/drho2` in the chosen hyperparameters (ascending indices; all by default), if `evaluate` succeeded.

        With `D = dtheta/drho`, the adjoint u and the gradient g of the training criterion:
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
            curvature = fit.curvature(u)[np.ix_(chosen, chosen)] + fit.third(u, D)
            total += factor * (system.loss.hessian_form(D, fit.theta) - cross - cross.T - curvature)
        return (total + total.T) / 2

    def row_scores(self, problem: Problem, partition: Partition, rho: Float[Array, " k"]) -> Scores | None:
        """The losses of the validation rows of all splits; J is their weighted mean."""
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
        for begin in range(0, len(problem.y), size):  # all splits in one pass, so that the table is read once
            for end, rows, X, (constant, slopes), factor in parts:
                low, high = np.searchsorted(rows, (begin, begin + size))
                if low < high:
                    chunk, place = rows[low:high], slice(end - len(rows) + low, end - len(rows) + high)
                    scores.losses[place] = self.loss.of(problem.y[chunk] - constant - take(X, chunk) @ slopes)[0]
                    scores.weights[place] = factor * problem.score_weights(chunk)
        return scores

    def kept(self, rho: Float[Array, " k"]) -> float:
        """The smallest fraction that subtractions have left of a number in J of ridge; zero if training is singular."""
        fits = self.least_squares_fits(rho)
        if fits is None:
            return 0.0
        losses = [cast("LossOfRows | SquaredErrorOfMoments", system.loss) for system in self.systems]
        return min(min(fit.kept(), loss.kept(fit.theta)) for fit, loss in zip(fits, losses, strict=True))

    def recomputed(self, rho: Float[Array, " k"], fits: list[AccurateFit]) -> float:
        """J from accurate fits at rho, one for each split, of ridge."""
        loss = self.loss
        assert isinstance(loss, ResidualLoss)
        sums = [float(fit.weights @ loss.of(fit.residuals)[0]) for fit in fits]
        return float(self.factors @ np.array(sums))

    def residuals(self, rho: Float[Array, " k"]) -> Residuals:
        """The relative residuals of training and of the adjoint at this point."""
        inner, adjoint, fits = 0.0, 0.0, self.fits(rho)
        if fits is None:
            return UNKNOWN_RESIDUALS
        for system, fit in zip(self.systems, fits, strict=True):
            _, theta_bar = system.loss.value_and_gradient(fit.theta)
            u = fit.solve(theta_bar)
            units = self.units_of(fit)
            adjoint = max(adjoint, relative(self.adjoint_residual(fit, u, theta_bar) / units, theta_bar / units))
            inner = max(inner, self.inner_gradient_norm(fit))
        return Residuals(inner, adjoint)

    def _failed(self, rho: Float[Array, " k"], failure: Outcome) -> Evaluation:
        return failed(rho, len(self.systems), failure)
