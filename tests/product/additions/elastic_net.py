"""A training criterion that the product does not have: not smooth, with fits of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int

from worker.core.capabilities import Misfit
from worker.core.costs import Sizes, TrainingCost
from worker.core.hypergradient import ExactHypergradient
from worker.core.hyperparameters import Box, Hyperparameters, Positive
from worker.core.inner.least_squares.cost_of_solves import cost_of_solves
from worker.core.inner.linear_model import LinearModel
from worker.core.losses import ResidualLoss, SelectionLoss, chosen
from worker.core.losses.half_squared_error import HalfSquaredError
from worker.core.losses.over_rows import SumOfResiduals
from worker.core.objective.fits import DirectFits
from worker.core.objective.mean_of_splits import MeanOfSplits
from worker.core.objective.objective import Objective
from worker.core.objective.scored_rows import ReadRows
from worker.core.records import Array
from worker.core.rows.centre import Centre
from worker.core.rows.column_remarks import few_rows, observations
from worker.core.rows.filled import filled_splits
from worker.core.rows.problem import Partition, Problem
from worker.core.training.examples import example_table, normal_errors
from worker.core.training.ridge_rows import dense_rows, loss_of_rows, training_rows
from worker.core.training.training_criterion import Parts, TrainingCriterion

SWEEPS = 10_000


@dataclass(frozen=True, slots=True)
class L1(Box):
    """The box of the penalty of absolute values."""

    initial: Positive = 0.01
    lower: Positive = 1e-4
    upper: Positive = 0.1


@dataclass(frozen=True, slots=True)
class L2(Box):
    """The box of the penalty of squares."""

    initial: Positive = 0.01
    lower: Positive = 1e-4
    upper: Positive = 1e2


@dataclass(frozen=True, slots=True)
class ElasticNetFit:
    """The minimizer theta, whose entries outside the `support` are zero and stay so for small moves of rho.

    On the support `H theta = c - l1 sign(theta)` with `H = G + l2 I`.
    """

    theta: Float[Array, " p"]
    support: Int[Array, " s"]
    H: Float[Array, "s s"]
    c: Float[Array, " s"]
    lam: Float[Array, " 2"]

    sweep: ClassVar[None] = None

    @property
    def scored(self) -> Float[Array, " p"]:
        """Theta."""
        return self.theta

    def pullback(self, bar: Float[Array, " p"]) -> Float[Array, " 2"]:
        """`-l1 u . sign(theta)` and `-l2 u . theta` with `H u = bar` on the support."""
        u, theta = self._adjoint(bar), self.theta[self.support]
        return -self.lam * np.array([u @ np.sign(theta), u @ theta])

    def adjoint_residual(self, bar: Float[Array, " p"]) -> float:
        """Relative to the cotangent."""
        wanted = bar[self.support]
        return float(np.linalg.norm(self.H @ self._adjoint(bar) - wanted) / (np.linalg.norm(wanted) or 1.0))

    def inner_gradient_norm(self) -> float:
        """Of the smallest subgradient on the support, relative to c."""
        theta = self.theta[self.support]
        slope = self.H @ theta - self.c + self.lam[0] * np.sign(theta)
        return float(np.linalg.norm(slope) / (np.linalg.norm(self.c) or 1.0))

    def _adjoint(self, bar: Float[Array, " p"]) -> Float[Array, " s"]:
        return np.linalg.solve(self.H, bar[self.support])


@dataclass(frozen=True, slots=True)
class ElasticNetSystem:
    """`theta^T G theta / 2 - c^T theta + l1 |theta|_1 + l2 |theta|^2 / 2` with the loss that scores theta."""

    loss: SumOfResiduals
    G: Float[Array, "p p"]
    c: Float[Array, " p"]
    mean: Centre  # of the columns of X, and of y

    solver: ClassVar[Literal["primal"]] = "primal"

    def fit(self, lam: Float[Array, " 2"]) -> ElasticNetFit:
        """By coordinate descent (Friedman, Hastie and Tibshirani 2010), then exactly on its support."""
        theta, (l1, l2) = np.zeros(len(self.c)), lam
        for _ in range(SWEEPS):
            before = theta.copy()
            for j in range(len(theta)):
                rest = self.c[j] - self.G[j] @ theta + self.G[j, j] * theta[j]
                theta[j] = np.sign(rest) * max(abs(rest) - l1, 0.0) / (self.G[j, j] + l2)
            if np.abs(theta - before).max() <= 1e-13 * np.abs(theta).max(initial=0.0):
                break
        support = np.flatnonzero(theta)
        H = self.G[np.ix_(support, support)] + l2 * np.eye(len(support))
        theta[support] = np.linalg.solve(H, self.c[support] - l1 * np.sign(theta[support]))
        return ElasticNetFit(theta, support, H, self.c[support], np.asarray(lam))

    def coefficients(self, theta: Float[Array, " p"]) -> tuple[float, Float[Array, " p"]]:
        """Intercept and slopes of the model in original units."""
        return float(self.mean.high[-1] - self.mean.high[:-1] @ theta), theta


@dataclass(frozen=True, slots=True)
class ElasticNet(TrainingCriterion):
    """Linear regression whose coefficients are shrunk, some of them to zero (Zou and Hastie 2005)."""

    l1: L1 = L1()
    l2: L2 = L2()
    kind: Literal["elastic_net"] = "elastic_net"

    classifies: ClassVar[bool] = False
    most_classes: ClassVar[None] = None
    length: ClassVar[None] = None
    refuses_offset: ClassVar[str] = "elastic_net takes no offset; subtract it from the target, and leave it out."

    @staticmethod
    def example() -> Problem:
        """A straight line with normal errors."""
        return example_table(normal_errors)

    @property
    def parts(self) -> Parts:
        """Rows."""
        return Parts(rows=self)

    @property
    def needs_variances(self) -> bool:
        """No: the boxes have numbers."""
        return False

    def hyperparameters(self, problem: Problem) -> Hyperparameters:
        """Both penalties."""
        return self.l1.hyperparameters(("l1",)) + self.l2.hyperparameters(("l2",))

    def misfits(self, problem: Problem, rows: int) -> Iterator[Misfit]:
        """None: it fits any columns."""
        return iter(())

    def check_target(self, problem: Problem) -> None:
        """Any number can be trained on."""

    def check_splits(self, problem: Problem, partition: Partition, loss: SelectionLoss | None) -> None:
        """Nothing is needed of a split."""

    def expanded(self, problem: Problem, rows: Int[Array, " m"]) -> Problem:
        """The problem itself."""
        return problem

    def prefers_inexact(self, problem: Problem) -> bool:
        """No: fits are exact."""
        return False

    def observations(self, problem: Problem, rows: Int[Array, " m"], partition: Partition) -> tuple[str, ...]:
        """Remarks about constant and equal columns, and splits of fewer rows than columns."""
        trained = problem.trained(rows)
        return observations(problem, trained, linear=True, intercept=True) + few_rows(problem, partition)

    def cost(self, problem: Problem, sizes: Sizes) -> TrainingCost:
        """That of one factorization on the support; sweeps of coordinate descent are cheap beside it."""
        return cost_of_solves("primal", len(problem.features), sizes, reweighted=False)

    def penalties_of_separable(self, problem: Problem) -> int:
        """None: there are no classes."""
        return 0

    def row_loss(self, problem: Problem, rows: Int[Array, " m"] | None = None) -> HalfSquaredError:
        """Half the squared error."""
        return HalfSquaredError()

    def score(self, loss: SelectionLoss | None) -> ResidualLoss:
        """The selection loss; squared error by default. Raises ValueError for a loss of classes or counts."""
        found = chosen(loss, frozenset({"number"})).residual_loss
        assert found is not None
        return found

    def selection_loss(self, problem: Problem, loss: SelectionLoss | None, rows: Int[Array, " m"]) -> ResidualLoss:
        """The selection loss in units of the target in these rows."""
        return self.score(self.score(loss).in_units(problem, rows))

    def mean_of_splits(
        self,
        problem: Problem,
        partition: Partition,
        loss: SelectionLoss | None,
        split_weights: Float[Array, " s"] | None,
        hypergradient: ExactHypergradient,
        trials: int,
    ) -> Objective:
        """The mean selection loss over the validation rows of all splits."""
        score, box = self.selection_loss(problem, loss, partition.used), self.hyperparameters(problem)
        each = zip(filled_splits(problem, partition).problems, partition.splits, strict=True)
        systems = [
            self._system(split, partition.rows(train), partition.rows(scored), score) for split, (train, scored) in each
        ]
        fits = DirectFits(systems, box)
        formula = MeanOfSplits(fits, hypergradient, split_weights)
        rows = ReadRows(fits, score, split_weights)
        return Objective(formula, box, score, systems[0].solver, len(systems), rows=rows.scores)

    def model(self, problem: Problem, rows: Int[Array, " m"], lam: Float[Array, " k"]) -> LinearModel:
        """The model of these rows."""
        system = self._system(problem, rows, rows, self.score(None))
        return LinearModel(*system.coefficients(system.fit(lam).theta))

    def _system(
        self, problem: Problem, train: Int[Array, " m"], scored: Int[Array, " v"], score: ResidualLoss
    ) -> ElasticNetSystem:
        w, mean, _ = training_rows(problem, train)
        X, y = dense_rows(problem, train, mean)
        share = w / w.sum()
        loss = loss_of_rows(problem, scored, mean, score)
        return ElasticNetSystem(loss, (X.T * share) @ X, X.T @ (share * y), mean)
