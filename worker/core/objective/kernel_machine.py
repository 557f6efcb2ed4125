"""The outer objective of kernel machines: validation scores, which depend on the kernel directly and through theta."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from worker.core.hyperparameters import Hyperparameters
from worker.core.inner.kernel.damped_newton import KernelStart
from worker.core.inner.kernel.kernel_fit import MachineFit, Split
from worker.core.inner.protocols import Solver
from worker.core.kernels import KernelFunction
from worker.core.losses.derivatives import ScoreDerivatives
from worker.core.losses.measures import Pooled
from worker.core.losses.over_rows import PredictorScore
from worker.core.objective.learning import learning_remark
from worker.core.objective.objective import UNKNOWN_RESIDUALS, Objective, Residuals, Scores, failed, means
from worker.core.records import Array, Evaluation, Outcome
from worker.core.rows.problem import Partition, Problem

T = TypeVar("T")


@dataclass(slots=True)
class MachineObjective(Objective):
    """Mean score over the validation rows of all splits. Splits are fitted one at a time: kernel matrices are large.

    The gradient costs one more solve with the factor of training and a few matrix products, whatever the number of
    hyperparameters (Keerthi, Sindhwani and Chapelle 2006). Newton's method starts at the last evaluation's theta.
    """

    splits: list[Split]
    hyperparameters: Hyperparameters
    kernel: KernelFunction
    loss: PredictorScore
    split_weights: Float[Array, " splits"] | None = None
    _starts: dict[int, KernelStart] = field(default_factory=dict, init=False)

    @property
    def factors(self) -> Float[Array, " splits"]:
        """The factor of each split's sum of scores in J."""
        weights = np.ones(len(self.splits)) if self.split_weights is None else self.split_weights
        return weights / sum(f * split.weight for f, split in zip(weights, self.splits, strict=True))

    @property
    def solver(self) -> Solver:
        """Whether coefficients belong to landmarks or to all rows."""
        return "landmarks" if self.splits[0].landmarks is not None else "kernel_matrix"

    def forget(self) -> None:
        """Start the next fits at zero."""
        self._starts.clear()

    def memory(self) -> Mapping[str, Array]:
        """The starts of the next fits: intercept and theta of each split."""
        return {f"theta{i}": np.append(b, theta) for i, (theta, b) in self._starts.items()}

    def recall(self, memory: Mapping[str, Array]) -> None:
        """Restore the starts that `memory` saved."""
        self._starts = {int(name.removeprefix("theta")): (at[1:], float(at[0])) for name, at in memory.items()}

    def value(self, rho: Float[Array, " k"]) -> float:
        """J alone; infinite if training has no minimum."""
        lam, total = self.natural(rho), 0.0
        for number, (factor, split) in enumerate(zip(self.factors, self.splits, strict=True)):
            fit = self._fit(number, lam)
            if fit is None:
                return np.inf
            total += float(factor * self._scored(split, fit).value)
        return total

    def evaluate(self, rho: Float[Array, " k"]) -> Evaluation:
        """J and `dJ/drho`."""
        lam, factors = self.natural(rho), self.factors
        sums, gradient = np.empty(len(self.splits)), np.zeros(len(rho))
        for number, split in enumerate(self.splits):
            fit = self._fit(number, lam)
            if fit is None:
                return failed(rho, len(self.splits), self.singular)
            scored = self._scored(split, fit)
            sums[number] = scored.value
            gradient += fit.pullback(factors[number] * scored.slope[:, 0]).rho_bar
        value = float(factors @ sums)
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            return failed(rho, len(self.splits), Outcome.NON_FINITE)
        return Evaluation(rho.copy(), value, gradient, means(sums, np.array([split.weight for split in self.splits])))

    def residuals(self, rho: Float[Array, " k"]) -> Residuals:
        """The relative residuals of training and of the adjoint at this point."""
        found = self._map_fits(
            rho, lambda split, fit: (fit.inner_gradient_norm(), fit.pullback(self._scored(split, fit).slope[:, 0]))
        )
        if found is None:
            return UNKNOWN_RESIDUALS
        return Residuals(max(inner for inner, _ in found), max(adjoint.residual for _, adjoint in found))

    def remarks(self, rho: Float[Array, " k"]) -> tuple[str, ...]:
        """A warning if nothing was learnt from the features."""
        return learning_remark(self, self.kernel, self.splits[0].X, rho, self.value)

    def row_scores(self, problem: Problem, partition: Partition, rho: Float[Array, " k"]) -> Scores | None:
        """The scores of the validation rows; None if the score is not a mean over rows."""
        found = self._map_fits(rho, lambda split, fit: self._scored(split, fit).losses)
        losses = [row_losses for row_losses in found or () if row_losses is not None]
        if len(losses) < len(self.splits):
            return None
        weights = [factor * split.w_scored for factor, split in zip(self.factors, self.splits, strict=True)]
        return Scores(np.concatenate(losses), np.concatenate(weights))

    def pooled(self, rho: Float[Array, " k"]) -> Pooled | None:
        """The validation rows of all splits with their predictors; None if training has no minimum."""
        predictors = self._map_fits(rho, lambda _, fit: fit.predictor[:, None])
        if predictors is None:
            return None
        parts = zip(self.factors, self.splits, predictors, strict=True)
        return Pooled.of_parts([(split.y_scored, eta, factor * split.w_scored) for factor, split, eta in parts])

    def _map_fits(self, rho: Float[Array, " k"], take: Callable[[Split, MachineFit], T]) -> list[T] | None:
        """`take` of each split and its fit, one split at a time; None if a split has no minimum."""
        lam, taken = self.natural(rho), []
        for number, split in enumerate(self.splits):
            fit = self._fit(number, lam)
            if fit is None:
                return None
            taken.append(take(split, fit))
        return taken

    def _fit(self, number: int, lam: Float[Array, " k"]) -> MachineFit | None:
        """The fit from the last theta; from zero if there is none or that start fails."""
        split, start = self.splits[number], self._starts.get(number)
        fit = split.fit(self.kernel, lam, start)
        if fit is None and start is not None:
            fit = split.fit(self.kernel, lam, None)
        if fit is not None:
            self._starts[number] = fit.minimum.theta, fit.minimum.b
        return fit

    def _scored(self, split: Split, fit: MachineFit) -> ScoreDerivatives:
        return self.loss.at(split.y_scored, fit.predictor[:, None], split.w_scored)
