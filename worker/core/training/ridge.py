"""Ridge regression with many penalties, a quadratic training criterion (Bengio 2000, section 3).

`C(theta; rho) = 1/(2n) sum_i (y_i - eta_i)^2 + 1/2 sum_j lam_j theta^T S_j theta`. The loss is a mean, so a penalty
means the same in a fold and in the refit on all rows. `lam` is scikit-learn's `Ridge(alpha)` divided by the number
of training rows. The intercept is not penalized.

Unless example weights are tuned, the intercept is eliminated: rows are centred at the means of the split's training
rows, theta are the slopes, and the intercept follows from them. Slopes refer to the original columns. Standardizing
changes only the penalty: `S_j` contains the variances of the training rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int

from worker.core.capabilities import Misfit
from worker.core.costs import Sizes, TrainingCost
from worker.core.hypergradient import ExactHypergradient
from worker.core.hyperparameters import Hyperparameters
from worker.core.inner.least_squares.accurate import AccurateFit, AccurateKind, accurate_fit
from worker.core.inner.least_squares.cost_of_solves import cost_of_solves
from worker.core.inner.least_squares.primal import SMALLEST_KEPT_FRACTION
from worker.core.inner.least_squares.spectral import SpectralRidge
from worker.core.inner.protocols import LeastSquaresSystem, Solver
from worker.core.losses import ResidualLoss, SelectionLoss, SquaredError
from worker.core.losses.training import HalfSquaredError
from worker.core.objective.means import mean_of_ridge
from worker.core.objective.objective import Objective
from worker.core.objective.whole_sample import Sample
from worker.core.penalties.forms import PenaltyForms
from worker.core.records import Array
from worker.core.rows.centre import Centre
from worker.core.rows.filled import filled_splits, split_problems
from worker.core.rows.problem import Partition, Problem
from worker.core.training.examples import example_table, normal_errors
from worker.core.training.linear import LinearPredictor
from worker.core.training.ridge_rows import (
    dense_rows,
    far_from_zero,
    training_rows,
)
from worker.core.training.ridge_systems import RidgeSystems
from worker.core.training.training_criterion import Parts
from worker.core.weights import ExampleWeights

MIN_TRIALS_FOR_SPECTRAL = 36  # from here on one eigendecomposition costs less than a factorization per trial (measured)
SMALLEST_REMAINDER_OF_DUAL = 1e-10  # one minus a leverage, which the n x n matrix gives without subtraction from one
MOST_ORTHOGONAL_FLOPS = 2e7  # of an evaluation; up to here rows may be factored where moments lose digits


@dataclass(frozen=True, slots=True)
class Ridge(LinearPredictor):
    """Linear regression with squared error and any number of L2 penalties.

    `weights`: example weights to tune along with the penalties; they multiply fixed weights of the data. `splines`:
    features that enter as smooth functions instead of straight lines. Each has its own penalty, in the box of
    `penalty`, which is for the other features.
    """

    kind: Literal["ridge"] = "ridge"

    classifies: ClassVar[bool] = False
    most_classes: ClassVar[None] = None
    class_weights: ClassVar[None] = None
    length: ClassVar[None] = None
    refuses_offset: ClassVar[str] = "ridge takes no offset; subtract it from the target, and leave it out."
    arithmetic: ClassVar[Literal["auto", "moments", "rows"]] = "auto"  # what is factored: rows keep more digits

    @staticmethod
    def example() -> Problem:
        """A straight line with normal errors."""
        return example_table(normal_errors)

    @property
    def parts(self) -> Parts:
        """Rows, least squares with an exact Hessian, and a factor of the Hessian."""
        return Parts(rows=self, least_squares=self, has_hessian=True, has_factor=True)

    def penalties(self, problem: Problem) -> tuple[Hyperparameters, PenaltyForms]:
        """The penalties of features without splines, then of splines."""
        return self._in_units(problem, self.penalties_of_features(problem.features))

    def misfits(self, problem: Problem, rows: int) -> Iterator[Misfit]:
        """Settings that do not fit the columns."""
        return self._misfits_of_columns(problem)

    def check_target(self, problem: Problem) -> None:
        """Any number can be trained on."""

    def check_splits(self, problem: Problem, partition: Partition, loss: SelectionLoss | None) -> None:
        """Nothing is needed of a split."""

    def prefers_inexact(self, problem: Problem) -> bool:
        """No: training is solved directly."""
        return False

    def row_loss(self, problem: Problem, rows: Int[Array, " m"] | None = None) -> HalfSquaredError:
        """Half the squared error."""
        return HalfSquaredError()

    def score(self, loss: SelectionLoss | None) -> ResidualLoss:
        """The selection loss; squared error by default. Raises ValueError for a loss of classes or counts."""
        if loss is None:
            return SquaredError()
        if loss.residual_loss is None:
            raise ValueError(
                f"{loss.kind} scores classes or counts; ridge predicts numbers: use squared_error or huber"
            )
        return loss.residual_loss

    def selection_loss(self, problem: Problem, loss: SelectionLoss | None, rows: Int[Array, " m"]) -> ResidualLoss:
        """The selection loss, its delta in units of the target in these rows."""
        return self.score(self.score(loss).in_units(problem, rows))

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
        loss: ResidualLoss | None = None,
        dual: bool | None = None,
        left_out: bool = False,
        trials: int = 1,
    ) -> list[LeastSquaresSystem]:
        """One training system with its validation loss for each split; `dual` None chooses by cost.

        With one penalty on all columns and many `trials`, systems are spectral: one eigendecomposition then costs less
        than a factorization for each trial.

        With `left_out` the losses keep the rows, for the residuals of rows under fits without them.
        """
        filled, loss = filled_splits(problem, partition), loss or SquaredError()
        problems = filled.problems
        if self.weights is not None:
            return list(self._weighted(problem, problems, partition, self.weights, loss))
        penalties, forms = self.penalties(problem)
        made = self._systems_with(forms)
        most_train_rows = max(len(partition.rows(train)) for train, _ in partition.splits)
        if left_out and dual is None and forms.is_positive_diagonal and forms.p >= most_train_rows:
            dual = True  # leverages near one are many, and the n x n matrix gives what is left of them directly
        solver = self.solver(most_train_rows, forms, trials, dual=dual)
        score_rows = left_out or not loss.by_moments
        by_rows = self._may_use_rows(len(partition.splits), most_train_rows, forms.p)
        if solver == "dual" and not (by_rows and (forms.p <= most_train_rows or self._is_far(problems, partition))):
            return [
                made.dual(split, partition.rows(train), partition.rows(scored), loss, orthogonal=by_rows)
                for split, (train, scored) in zip(problems, partition.splits, strict=True)
            ]
        lower = penalties.box[0]
        if self.arithmetic != "rows" and solver != "dual":
            systems = [
                made.primal(split, train, validation, partition.rows(rows), loss, lower, score_rows=score_rows)
                for split, (train, validation), (_, rows) in zip(
                    problems, filled.moments(), partition.splits, strict=True
                )
            ]
            if not (by_rows and any(system.loses_digits(lower) for system in systems)):
                spectral = [SpectralRidge.build(system) for system in systems] if solver == "spectral" else []
                return list(spectral) if spectral and all(s.keeps_digits(lower) for s in spectral) else list(systems)
        return [
            made.orthogonal(split, partition.rows(train), partition.rows(val), loss)
            for split, (train, val) in zip(problems, partition.splits, strict=True)
        ]

    def mean_of_splits(
        self,
        problem: Problem,
        partition: Partition,
        loss: SelectionLoss | None,
        split_weights: Float[Array, " s"] | None,
        hypergradient: ExactHypergradient,
        trials: int,
    ) -> Objective:
        """The mean loss over the validation rows of all splits."""
        scored = self.selection_loss(problem, loss, partition.used)
        systems, box = self.systems(problem, partition, loss=scored, trials=trials), self.hyperparameters(problem)
        eliminated = self.eliminates_intercept
        return mean_of_ridge(systems, box, hypergradient, scored, split_weights, eliminated=eliminated)

    def columns(self, problem: Problem) -> int:
        """The number of penalized coefficients."""
        return self.penalties(problem)[1].p

    def sample(self, problem: Problem, rows: Int[Array, " m"]) -> Sample:
        """What criteria of one fit on these rows know of them."""
        trained, penalties = int(np.count_nonzero(problem.base_weights(rows))), len(self.penalties(problem)[0].names)
        return Sample(trained, penalties, self.intercept, self.eliminates_intercept)

    def of_moments(self) -> RidgeOfMoments:
        """The same criterion, which never factors rows."""
        return RidgeOfMoments(self.intercept, self.standardize, self.penalty, self.weights, self.splines)

    def _may_use_rows(self, splits: int, rows: int, columns: int) -> bool:
        """Whether orthogonal factorizations of the rows are wanted, or are allowed and cheap enough."""
        flops = 2.0 * splits * (rows + columns) * min(rows, columns) ** 2
        return self.arithmetic == "rows" or (self.arithmetic == "auto" and flops <= MOST_ORTHOGONAL_FLOPS)

    def _is_far(self, splits: list[Problem], partition: Partition) -> bool:
        """Whether there is no intercept and columns lie far from zero in units of their spread."""
        return any(
            self._is_far_from_zero(split, partition.rows(train))
            for split, (train, _) in zip(splits, partition.splits, strict=True)
        )

    def _is_far_from_zero(self, split: Problem, train: Int[Array, " m"]) -> bool:
        """The same of these rows."""
        if self.intercept:
            return False
        _, mean, variance = training_rows(split, train)
        return far_from_zero(mean.high[:-1], variance)

    def refit(self, problem: Problem, rows: Int[Array, " m"], *, dual: bool | None = None) -> LeastSquaresSystem:
        """The training system of all given rows; its validation loss scores the same rows."""
        return self.systems(problem, Partition.whole(rows, len(problem.y)), dual=dual)[0]

    def accurate_fits(
        self, problem: Problem, partition: Partition, lam: Float[Array, " k"], kind: AccurateKind
    ) -> list[AccurateFit] | None:
        """The fits with about 32 digits; None if one is singular. `refits` are for a single split of all its rows."""
        forms = self.penalties(problem)[1]
        fits: list[AccurateFit | None] = []
        for split, (train, validation) in zip(split_problems(problem, partition), partition.splits, strict=True):
            rows, scored = partition.rows(train), partition.rows(validation)
            w, _, variance = training_rows(split, rows)
            P = self._systems_with(forms).penalty(variance).at(lam[: forms.k]).apply(np.eye(forms.p))
            if self.weights is not None:
                w = self.weights.weighting(problem, rows)(lam[forms.k :]).normalized(w).w
            X, y = dense_rows(split, rows, Centre.zero(forms.p + 1))
            if kind == "refits":
                weights = problem.score_weights(rows)
                for i in range(len(rows)):
                    others, one, share = np.arange(len(rows)) != i, slice(i, i + 1), w.sum() / (w.sum() - w[i])
                    trained, left_out = (X[others], y[others]), (X[one], y[one])
                    fits.append(
                        accurate_fit(trained, left_out, weights[one], w[others], share * P, intercept=self.intercept)
                    )
                continue
            X_scored, y_scored = dense_rows(split, scored, Centre.zero(forms.p + 1))
            fits.append(
                accurate_fit(
                    (X, y), (X_scored, y_scored), problem.score_weights(scored), w, P,
                    intercept=self.intercept,
                    leverages=kind == "leverages",
                )
            )  # fmt: skip
        found = [fit for fit in fits if fit is not None]
        return found if len(found) == len(fits) else None

    def refits(self, problem: Problem, rows: Int[Array, " m"], loss: ResidualLoss) -> list[LeastSquaresSystem] | None:
        """A system without each row, which is scored, if the table is small and a closed form would lose digits.

        It keeps the total penalty of all rows and their column scales, like the closed form of leave-one-out.
        """
        whole = Partition.whole(rows, len(problem.y))
        forms, lower = self.penalties(problem)[1], self.hyperparameters(problem).box[0]
        if self.weights is not None or not self._may_use_rows(len(rows), len(rows), forms.p):
            return None
        (split,) = split_problems(problem, whole)
        w, mean, variance = training_rows(split, rows)
        made = self._systems_with(forms)
        system = made.orthogonal(split, rows, rows, loss)
        is_far = not self.intercept and far_from_zero(mean.high[:-1], variance)
        dual = forms.is_positive_diagonal and forms.p >= len(rows)  # as in `systems`
        fraction = SMALLEST_REMAINDER_OF_DUAL if dual else SMALLEST_KEPT_FRACTION
        if not (is_far or system.leaves_little_of_a_row(lower, fraction)):
            return None
        systems: list[LeastSquaresSystem] = []
        for i, row in enumerate(rows):
            system = made.orthogonal(split, np.delete(rows, i), np.array([row]), loss)
            scale = self._scale(variance) * np.sqrt(w.sum() / (w.sum() - w[i]))
            systems.append(replace(system, penalty=forms.scaled(scale)))
        return systems

    def _weighted(
        self, problem: Problem, splits: list[Problem], partition: Partition, weights: ExampleWeights, loss: ResidualLoss
    ) -> Iterator[LeastSquaresSystem]:
        """The systems of splits with tuned example weights. Rows are factored where moments would lose digits."""
        forms = self.penalties(problem)[1]
        made = self._systems_with(forms)
        for split, (train, validation) in zip(splits, partition.splits, strict=True):
            rows = partition.rows(train)
            may = self._may_use_rows(len(splits), len(rows), forms.p)
            orthogonal = may and (self.arithmetic == "rows" or self._is_far_from_zero(split, rows))
            yield made.weighted(problem, split, rows, partition.rows(validation), weights, loss, orthogonal=orthogonal)

    def cost(self, problem: Problem, sizes: Sizes) -> TrainingCost:
        """What it costs, with the solver that `systems` takes unless rows are few and lose digits. Needs no rows."""
        forms, dual = self.penalties(problem)[1], False if sizes.closed_form and sizes.needs_primal_factor else None
        if sizes.leaves_rows_out and dual is None and forms.is_positive_diagonal and forms.p >= sizes.train:
            dual = True  # as in `systems`
        whole_sample = sizes.closed_form and not sizes.leaves_rows_out
        solver = self.solver(sizes.train, forms, 1 if whole_sample or dual is False else sizes.trials, dual=dual)
        return cost_of_solves(solver, forms.p, sizes, reweighted=self.weights is not None)

    def _systems_with(self, forms: PenaltyForms) -> RidgeSystems:
        return RidgeSystems(forms, self._scale if self.standardize else None, self.intercept)


class RidgeOfMoments(Ridge):
    """Ridge that never factors rows where moments would do: the arithmetic that a certificate checks."""

    __slots__ = ()
    arithmetic = "moments"
