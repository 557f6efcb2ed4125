"""The outer objective `J(rho) = E(theta(rho); rho)` with its exact gradient and Hessian."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from worker.core import cholesky
from worker.core.hypergradient import ExactHypergradient
from worker.core.hyperparameters import Hyperparameters
from worker.core.imputation import split_problems
from worker.core.records import Array, Evaluation, Outcome, Partition, Problem
from worker.core.statistics import CHUNK_VALUES
from worker.core.systems import Fit, System
from worker.core.tables import rows_at_a_time, take


@dataclass(slots=True)
class Objective:
    """Mean selection loss over all validation rows, pooled over the splits.

    Keeps the fits of the last evaluation, so that a Hessian at the same point needs no new factorization.
    """

    systems: list[System]
    hyperparameters: Hyperparameters
    hypergradient: ExactHypergradient
    _fitted: tuple[bytes, list[Fit]] | None = field(default=None, init=False)

    @property
    def rows(self) -> int:
        """Number of validation rows, summed over the splits."""
        return sum(system.loss.n for system in self.systems)

    def fits(self, rho: Float[Array, " k"]) -> list[Fit] | None:
        """A fit for each split, or None if one of them is singular to working precision."""
        key = rho.tobytes()
        if self._fitted is not None and self._fitted[0] == key:
            return self._fitted[1]
        self._fitted = None  # free the factors before the next ones are made
        lam = self.hyperparameters.natural(rho)
        fits: list[Fit] = []
        for system in self.systems:
            fit = system.fit(lam)
            if fit is None:
                return None
            fits.append(fit)
        self._fitted = (key, fits)
        return fits

    def value(self, rho: Float[Array, " k"]) -> float:
        """J alone; infinite where training is singular."""
        fits = self.fits(rho)
        if fits is None:
            return np.inf
        return sum(system.loss.value(fit.theta) for system, fit in zip(self.systems, fits, strict=True)) / self.rows

    def evaluate(self, rho: Float[Array, " k"]) -> Evaluation:
        """J and `dJ/drho`."""
        fits = self.fits(rho)
        if fits is None:
            return self._failed(rho, Outcome.SINGULAR)
        sums = np.empty(len(fits))
        gradient = np.zeros(len(rho))
        for i, (system, fit) in enumerate(zip(self.systems, fits, strict=True)):
            sums[i], theta_bar = system.loss.value_and_gradient(fit.theta)
            gradient += self.hypergradient(fit, theta_bar)
        gradient /= self.rows
        value = float(sums.sum()) / self.rows
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            return self._failed(rho, Outcome.NON_FINITE)
        per_split = sums / np.array([system.loss.n for system in self.systems])
        return Evaluation(rho.copy(), value, gradient, per_split)

    def hessian(self, rho: Float[Array, " k"], chosen: Int[Array, " f"] | None = None) -> Float[Array, "f f"]:
        """`d2J/drho2` in the chosen hyperparameters (ascending indices; all by default), where `evaluate` succeeded.

        With `D = dtheta/drho = -H^-1 [lam_j S_j theta]_j` and the adjoint u:
        `J_jl = D_j^T E'' D_l - lam_j u^T S_j D_l - lam_l u^T S_l D_j - [j = l] lam_j u^T S_j theta`.
        """
        fits = self.fits(rho)
        if fits is None:
            raise ValueError("the Hessian is not defined where training is singular")
        chosen = np.arange(len(rho)) if chosen is None else chosen
        total = np.zeros((len(chosen), len(chosen)))
        for system, fit in zip(self.systems, fits, strict=True):
            u = fit.solve(system.loss.value_and_gradient(fit.theta)[1])
            D = fit.sensitivity(chosen)
            cross = fit.contract_columns(u, D)[chosen]
            total += system.loss.hessian_form(D, fit.theta) - cross - cross.T
            cholesky.diagonal_of(total)[...] -= fit.contract(u)[chosen]
        return (total + total.T) / (2 * self.rows)

    def row_losses(self, problem: Problem, partition: Partition, rho: Float[Array, " k"]) -> Float[Array, " v"] | None:
        """The losses of the single validation rows of all splits, whose mean J is."""
        fits = self.fits(rho)
        if fits is None:
            return None
        models = [system.coefficients(fit.theta) for system, fit in zip(self.systems, fits, strict=True)]
        tables = [split.X for split in split_problems(problem, partition)]
        validation = [partition.rows(blocks) for _, blocks in partition.splits]
        losses = [np.empty(len(rows)) for rows in validation]
        size = rows_at_a_time(problem.X, CHUNK_VALUES)
        for begin in range(0, len(problem.y), size):  # all splits together, so that the table is read once
            for rows, X, (constant, slopes), of_split in zip(validation, tables, models, losses, strict=True):
                low, high = np.searchsorted(rows, (begin, begin + size))
                if low < high:
                    some = rows[low:high]
                    of_split[low:high] = (problem.y[some] - constant - take(X, some) @ slopes) ** 2
        return np.concatenate(losses)

    def _failed(self, rho: Float[Array, " k"], failure: Outcome) -> Evaluation:
        return Evaluation(rho.copy(), np.inf, np.zeros(len(rho)), np.full(len(self.systems), np.inf), failure)
