"""Ridge regression with many penalties, a quadratic training criterion (Bengio 2000, section 3).

`C(theta; rho) = 1/(2n) sum_i (y_i - eta_i)^2 + 1/2 sum_j lam_j theta^T S_j theta`: a mean, not a sum, so that a penalty
means the same in a fold and in the refit on all rows. `lam` is scikit-learn's `Ridge(alpha)` divided by the number
of training rows. The intercept is not penalized.

The intercept is eliminated: rows are centred at the means of the split's training rows, theta are the slopes, and the
intercept follows. Slopes are those of the original columns; standardizing is a matter of the penalty only, whose `S_j`
carries the variance of the training rows.
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

SPECTRAL_TRIALS = 36  # evaluations from which one eigendecomposition costs less than their factorizations (measured)
NEARLY_EXACT = 1e-4  # share of the variance of y left unexplained, below which moments of y lose too many digits


@dataclass(frozen=True, slots=True)
class Ridge(LinearPredictor):
    """Linear regression with squared error and any number of L2 penalties.

    `weights`: example weights to tune along with the penalties; they multiply fixed weights of the data. `splines`:
    features whose straight line becomes a smooth function with a penalty of its own, in the box of `penalty`, which is
    that of the other features.
    """

    kind: Literal["ridge"] = "ridge"

    iterative: ClassVar[bool] = False

    def row_loss(self, problem: Problem) -> HalfSquaredError:
        """Half the squared error."""
        return HalfSquaredError()

    def score(self, loss: Score | None) -> ResidualLoss:
        """The selection loss: squared error unless another one is named. Raises ValueError where it is for classes."""
        if loss is None:
            return SquaredError()
        if not isinstance(loss, ResidualLoss):
            raise ValueError(
                f"{loss.kind} scores classes or counts; ridge predicts numbers: use squared_error or huber"
            )
        return loss

    def selection_loss(self, problem: Problem, loss: Score | None) -> ResidualLoss:
        """The selection loss as it is computed."""
        return self.score(loss)

    @property
    def eliminates_intercept(self) -> bool:
        """Whether there is an intercept and it is no part of theta: it depends on weights that are tuned."""
        return self.intercept and self.weights is None

    def prefers_dual(self, train_rows: int, forms: PenaltyForms) -> bool:
        """Whether an n x n matrix can be factored instead of a p x p one, for less: `n^2 p + n^3 / 3` flops."""
        possible = self.weights is None and forms.is_positive_diagonal
        return possible and 3 * train_rows**2 * forms.p + train_rows**3 < forms.p**3

    def solver(self, train_rows: int, forms: PenaltyForms, trials: int = 1, *, dual: bool | None = None) -> Solver:
        """How the systems of splits with so many training rows are solved; `dual` and `trials` as for `systems`."""
        if self.weights is not None:
            return "primal"
        if self.prefers_dual(train_rows, forms) if dual is None else dual:
            return "dual"
        spectral = trials >= SPECTRAL_TRIALS and forms.k == 1 and forms.is_positive_diagonal
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

        So many `trials` that an eigendecomposition costs less than a factorization for each make it spectral, where
        one penalty on all columns allows that.

        With `score_rows` the losses keep the rows, for criteria that need more than their moments.
        """
        problems, loss = split_problems(problem, partition), self.score(loss)
        if self.weights is not None:
            return self._weighted(problem, problems, partition, self.weights, loss)
        forms = self.penalties(problem)[1]
        most = max(len(partition.rows(train)) for train, _ in partition.splits)
        solver = self.solver(most, forms, trials, dual=dual)
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
            if nearly_exact is None:  # the first split speaks for all
                nearly_exact = not score_rows and unexplained(train) < NEARLY_EXACT
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
            return system if fit is None else replace(system, loss=_about(scored, problem, rows, centre, fit.theta))
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
        root = np.sqrt(len(w) / w.sum() * w)
        X, y = centred(problem.X, train, centre[:-1]), root * (problem.y[train] - centre[-1])
        scored = _loss_of_rows(problem, validation, centre, loss)
        yy = float(y @ y) / len(y)
        return DualRidge(scored, self._scaled(forms, variance), centre, yy, X, y, root, centred=self.intercept)

    def _weighted(
        self, problem: Problem, splits: list[Problem], partition: Partition, weights: ExampleWeights, loss: ResidualLoss
    ) -> list[System]:
        forms, i = self.penalties(problem)[1], int(self.intercept)
        used = np.flatnonzero(partition.block_of_row >= 0)
        origin = self._centre(np.append(_dense(splits[0], used).mean(axis=0), problem.y[used].mean()))
        whole = None if problem.imputation is not None else _with_ones(splits[0], used, origin, i)
        place = np.full(len(problem.y), -1)
        place[used] = np.arange(len(used))
        systems: list[System] = []
        for split, (train, validation) in zip(splits, partition.splits, strict=True):
            Z = _with_ones(split, used, origin, i) if whole is None else whole
            rows, scored_rows = partition.rows(train), partition.rows(validation)
            Z_train, base = take(Z, place[rows]), problem.base_weights(rows)
            variance = mean_and_variance(Z_train, np.arange(len(rows)), base)[1][i:]
            y, penalty = problem.y - origin[-1], self._scaled(forms, variance)
            scored = LossOfRows(take(Z, place[scored_rows]), y[scored_rows], loss, _given(problem, scored_rows))
            systems.append(
                WeightedRidge(
                    scored, penalty.after_intercept() if i else penalty, origin, self.intercept,
                    Z_train, y[rows], base, weights.weighting(problem, rows),
                )
            )  # fmt: skip
        return systems

    def _centre(self, mean: Float[Array, " p1"]) -> Float[Array, " p1"]:
        return mean if self.intercept else np.zeros_like(mean)

    def _scaled(self, forms: PenaltyForms, variance: Float[Array, " p"]) -> PenaltyForms:
        return forms.scaled(self._scale(variance)) if self.standardize else forms


def _dense(problem: Problem, rows: Int[Array, " m"]) -> Float[Array, "m p"]:
    part = take(problem.X, rows)
    return part.toarray() if isinstance(part, csr_array) else part


def _with_ones(problem: Problem, rows: Int[Array, " m"], origin: Float[Array, " p1"], ones: int) -> Float[Array, "m q"]:
    """The rows about the origin, behind so many columns of ones."""
    return np.hstack([np.ones((len(rows), ones)), _dense(problem, rows) - origin[:-1]])


def _given(problem: Problem, rows: Int[Array, " v"]) -> Float[Array, " v"] | None:
    """The scoring weights of the rows, None where all are one."""
    if problem.weights is None and problem.scoring is None:
        return None
    return problem.score_weights(rows)


def _loss_of_rows(
    problem: Problem, rows: Int[Array, " v"], centre: Float[Array, " p1"], loss: ResidualLoss
) -> ValidationLoss:
    X = centred(problem.X, rows, centre[:-1])
    return LossOfRows(X, problem.y[rows] - centre[-1], loss, _given(problem, rows))


def _about(
    loss: SquaredErrorOfMoments,
    problem: Problem,
    rows: Int[Array, " v"],
    centre: Float[Array, " p1"],
    reference: Float[Array, " p"],
) -> SquaredErrorOfMoments:
    """The same loss about a reference near the minimizers, whose residuals are taken from the rows, in chunks."""
    M = loss.M.copy(order="F")
    M[:, -1] = M[-1, :] = 0.0
    for some in np.array_split(rows, max(1, len(rows) * len(reference) // CHUNK_VALUES)):
        X = centred(problem.X, some, centre[:-1])
        residual = problem.y[some] - centre[-1] - X @ reference
        weighted = problem.score_weights(some) * residual
        M[:-1, -1] += weighted @ X
        M[-1, -1] += weighted @ residual
    M[-1, :-1] = M[:-1, -1]
    return SquaredErrorOfMoments(loss.weight, M, reference)
