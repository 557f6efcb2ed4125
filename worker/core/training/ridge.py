"""Ridge regression with many penalties, a quadratic training criterion (Bengio 2000, section 3).

`C(theta; rho) = 1/(2n) sum_i (y_i - eta_i)^2 + 1/2 sum_j lam_j theta^T S_j theta`. The loss is a mean, so a penalty
means the same in a fold and in the refit on all rows. `lam` is scikit-learn's `Ridge(alpha)` divided by the number
of training rows. The intercept is not penalized.

Unless example weights are tuned, the intercept is eliminated: rows are centred at the means of the split's training
rows, theta are the slopes, and the intercept follows from them. Slopes refer to the original columns. Standardizing
changes only the penalty: `S_j` contains the variances of the training rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from worker.core.inner.least_squares.dual import DualRidge
from worker.core.inner.least_squares.primal import PrimalRidge
from worker.core.inner.least_squares.spectral import SpectralRidge
from worker.core.inner.least_squares.weighted import WeightedRidge
from worker.core.inner.protocols import Solver, System
from worker.core.losses import ResidualLoss, Score, SquaredError
from worker.core.losses.over_rows import LossOfRows, SquaredErrorOfMoments, ValidationLoss
from worker.core.losses.training import HalfSquaredError
from worker.core.penalties.forms import PenaltyForms
from worker.core.records import Array
from worker.core.rows.filled import moments_of_splits, split_problems
from worker.core.rows.moments import Moments, unexplained
from worker.core.rows.problem import Partition, Problem
from worker.core.rows.tables import CHUNK_VALUES, centred, mean_and_variance, take
from worker.core.training.linear import LinearPredictor
from worker.core.weights import ExampleWeights

MIN_TRIALS_FOR_SPECTRAL = 36  # from here on one eigendecomposition costs less than a factorization per trial (measured)
NEARLY_EXACT_FRACTION = 1e-4  # unexplained fraction of the variance of y below which moments of y lose too many digits


@dataclass(frozen=True, slots=True)
class Ridge(LinearPredictor):
    """Linear regression with squared error and any number of L2 penalties.

    `weights`: example weights to tune along with the penalties; they multiply fixed weights of the data. `splines`:
    features that enter as smooth functions instead of straight lines. Each has its own penalty, in the box of
    `penalty`, which is for the other features.
    """

    kind: Literal["ridge"] = "ridge"

    iterative: ClassVar[bool] = False

    def row_loss(self, problem: Problem) -> HalfSquaredError:
        """Half the squared error."""
        return HalfSquaredError()

    def score(self, loss: Score | None) -> ResidualLoss:
        """The selection loss; squared error by default. Raises ValueError for a loss of classes or counts."""
        if loss is None:
            return SquaredError()
        if not isinstance(loss, ResidualLoss):
            raise ValueError(
                f"{loss.kind} scores classes or counts; ridge predicts numbers: use squared_error or huber"
            )
        return loss

    def selection_loss(self, problem: Problem, loss: Score | None) -> ResidualLoss:
        """The selection loss; it needs nothing from the training loss."""
        return self.score(loss)

    @property
    def eliminates_intercept(self) -> bool:
        """Whether there is an intercept that is not in theta. With tuned weights it depends on them and is in theta."""
        return self.intercept and self.weights is None

    def prefers_dual(self, train_rows: int, forms: PenaltyForms) -> bool:
        """Whether an n x n matrix can be factored for less than a p x p one: `n^2 p + n^3 / 3 < p^3 / 3` flops."""
        possible = self.weights is None and forms.is_positive_diagonal
        return possible and 3 * train_rows**2 * forms.p + train_rows**3 < forms.p**3

    def solver(self, train_rows: int, forms: PenaltyForms, trials: int = 1, *, dual: bool | None = None) -> Solver:
        """How systems with this number of training rows are solved; `dual` and `trials` as for `systems`."""
        if self.weights is not None:
            return "primal"
        if self.prefers_dual(train_rows, forms) if dual is None else dual:
            return "dual"
        spectral = trials >= MIN_TRIALS_FOR_SPECTRAL and forms.k == 1 and forms.is_positive_diagonal
        return "spectral" if spectral else "primal"

    def systems(
        self,
        problem: Problem,
        partition: Partition,
        *,
        loss: Score | None = None,
        dual: bool | None = None,
        score_rows: bool = False,
        trials: int = 1,
    ) -> list[System]:
        """One training system with its validation loss for each split; `dual` None chooses by cost.

        With one penalty on all columns and many `trials`, systems are spectral: one eigendecomposition then costs less
        than a factorization for each trial.

        With `score_rows` the losses keep the rows, for criteria that need more than their moments.
        """
        problems, loss = split_problems(problem, partition), self.score(loss)
        if self.weights is not None:
            return self._weighted(problem, problems, partition, self.weights, loss)
        forms = self.penalties(problem)[1]
        most_train_rows = max(len(partition.rows(train)) for train, _ in partition.splits)
        solver = self.solver(most_train_rows, forms, trials, dual=dual)
        score_rows = score_rows or not isinstance(loss, SquaredError)
        if solver == "dual":
            return [
                self._dual(split, forms, partition.rows(train), partition.rows(val), loss)
                for split, (train, val) in zip(problems, partition.splits, strict=True)
            ]
        nearly_exact: bool | None = None
        systems: list[PrimalRidge] = []
        moments = moments_of_splits(problem, partition, problems)
        for split, (train, validation), (_, rows) in zip(problems, moments, partition.splits, strict=True):
            if nearly_exact is None:  # the first split decides for all
                nearly_exact = not score_rows and unexplained(train) < NEARLY_EXACT_FRACTION
            systems.append(
                self._primal(
                    split, forms, train, validation, partition.rows(rows), loss,
                    from_rows=nearly_exact, score_rows=score_rows,
                )
            )  # fmt: skip
        return [SpectralRidge.build(system) for system in systems] if solver == "spectral" else list(systems)

    def refit(self, problem: Problem, rows: Int[Array, " m"], *, dual: bool | None = None) -> System:
        """The training system of all given rows; its validation loss scores the same rows."""
        block_of_row = np.full(len(problem.y), -1, np.int8)
        block_of_row[rows] = 0
        return self.systems(problem, Partition(block_of_row, (((0,), (0,)),)), dual=dual)[0]

    def _primal(
        self,
        problem: Problem,
        forms: PenaltyForms,
        train: Moments,
        validation: Moments,
        rows: Int[Array, " m"],
        loss: ResidualLoss,
        *,
        from_rows: bool,
        score_rows: bool,
    ) -> PrimalRidge:
        centre = self._centre(train.mean())
        M = train.about(centre)
        M /= train.weight
        scored: ValidationLoss
        if score_rows or len(rows) < problem.X.shape[1]:
            scored = _loss_of_rows(problem, rows, centre, loss)
        else:
            scored = SquaredErrorOfMoments(validation.weight, validation.about(centre), np.zeros(problem.X.shape[1]))
        penalty = self._scaled(forms, train.variance()[:-1])
        system = PrimalRidge(scored, penalty, centre, float(M[-1, -1]), M[:-1, :-1], M[:-1, -1].copy())
        if from_rows and isinstance(scored, SquaredErrorOfMoments):
            lower = self.hyperparameters(problem).box[0]
            fit = system.fit(lower)
            return (
                system
                if fit is None
                else replace(system, loss=_loss_about_reference(scored, problem, rows, centre, fit.theta))
            )
        return system

    def _dual(
        self,
        problem: Problem,
        forms: PenaltyForms,
        train: Int[Array, " m"],
        validation: Int[Array, " v"],
        loss: ResidualLoss,
    ) -> System:
        w = problem.base_weights(train)
        mean, variance = mean_and_variance(problem.X, train, w)
        centre = self._centre(np.append(mean, w @ problem.y[train] / w.sum()))
        root_weights = np.sqrt(len(w) / w.sum() * w)
        X, y = centred(problem.X, train, centre[:-1]), root_weights * (problem.y[train] - centre[-1])
        scored = _loss_of_rows(problem, validation, centre, loss)
        yy = float(y @ y) / len(y)
        return DualRidge(scored, self._scaled(forms, variance), centre, yy, X, y, root_weights, centred=self.intercept)

    def _weighted(
        self, problem: Problem, splits: list[Problem], partition: Partition, weights: ExampleWeights, loss: ResidualLoss
    ) -> list[System]:
        forms, ones = self.penalties(problem)[1], int(self.intercept)
        used = np.flatnonzero(partition.block_of_row >= 0)
        trained = problem.trained(used)
        origin = self._centre(np.append(_dense_rows(splits[0], trained).mean(axis=0), problem.y[trained].mean()))
        all_rows = None if problem.imputation is not None else _with_ones(splits[0], used, origin, ones)
        position = np.full(len(problem.y), -1)
        position[used] = np.arange(len(used))
        systems: list[System] = []
        for split, (train, validation) in zip(splits, partition.splits, strict=True):
            Z = _with_ones(split, used, origin, ones) if all_rows is None else all_rows
            rows, scored_rows = partition.rows(train), partition.rows(validation)
            Z_train, base = take(Z, position[rows]), problem.base_weights(rows)
            variance = mean_and_variance(Z_train, np.arange(len(rows)), base)[1][ones:]
            y, penalty = problem.y - origin[-1], self._scaled(forms, variance)
            scored = LossOfRows(
                take(Z, position[scored_rows]), y[scored_rows], loss, _score_weights_or_none(problem, scored_rows)
            )
            systems.append(
                WeightedRidge(
                    scored, penalty.after_intercept() if ones else penalty, origin, self.intercept,
                    Z_train, y[rows], base, weights.weighting(problem, rows),
                )
            )  # fmt: skip
        return systems

    def _centre(self, mean: Float[Array, " p1"]) -> Float[Array, " p1"]:
        return mean if self.intercept else np.zeros_like(mean)

    def _scaled(self, forms: PenaltyForms, variance: Float[Array, " p"]) -> PenaltyForms:
        return forms.scaled(self._scale(variance)) if self.standardize else forms


def _dense_rows(problem: Problem, rows: Int[Array, " m"]) -> Float[Array, "m p"]:
    part = take(problem.X, rows)
    return part.toarray() if isinstance(part, csr_array) else part


def _with_ones(problem: Problem, rows: Int[Array, " m"], origin: Float[Array, " p1"], ones: int) -> Float[Array, "m q"]:
    """The rows minus the origin, after `ones` columns of ones."""
    return np.hstack([np.ones((len(rows), ones)), _dense_rows(problem, rows) - origin[:-1]])


def _score_weights_or_none(problem: Problem, rows: Int[Array, " v"]) -> Float[Array, " v"] | None:
    """The scoring weights of the rows; None if all are one."""
    if problem.weights is None and problem.scoring is None:
        return None
    return problem.score_weights(rows)


def _loss_of_rows(
    problem: Problem, rows: Int[Array, " v"], centre: Float[Array, " p1"], loss: ResidualLoss
) -> ValidationLoss:
    X = centred(problem.X, rows, centre[:-1])
    return LossOfRows(X, problem.y[rows] - centre[-1], loss, _score_weights_or_none(problem, rows))


def _loss_about_reference(
    loss: SquaredErrorOfMoments,
    problem: Problem,
    rows: Int[Array, " v"],
    centre: Float[Array, " p1"],
    reference: Float[Array, " p"],
) -> SquaredErrorOfMoments:
    """The same loss about a reference near the minimizers; the residuals there come from the rows, in chunks."""
    M = loss.M.copy(order="F")
    M[:, -1] = M[-1, :] = 0.0
    for chunk in np.array_split(rows, max(1, len(rows) * len(reference) // CHUNK_VALUES)):
        X = centred(problem.X, chunk, centre[:-1])
        residual = problem.y[chunk] - centre[-1] - X @ reference
        weighted = problem.score_weights(chunk) * residual
        M[:-1, -1] += weighted @ X
        M[-1, -1] += weighted @ residual
    M[-1, :-1] = M[:-1, -1]
    return SquaredErrorOfMoments(loss.weight, M, reference)
