"""A quadratic training criterion that the caller brings (Bengio 2000, section 3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import MaxLen, MinLen
from jaxtyping import Float, Int

from worker.core.capabilities import Misfit
from worker.core.costs import Sizes, TrainingCost
from worker.core.hyperparameters import Hyperparameters, check_box
from worker.core.inner.given.cost_of_sums import cost_of_sums
from worker.core.inner.given.matrix_sum import SumSystem
from worker.core.inner.linear_model import LinearModel
from worker.core.linalg.assembled import Shape
from worker.core.losses import SelectionLoss
from worker.core.records import Array
from worker.core.rows.matrices import Criteria
from worker.core.rows.problem import Partition, Problem
from worker.core.training.examples import example_of_matrices
from worker.core.training.training_criterion import Parts, TrainingCriterion


@dataclass(frozen=True, slots=True)
class Multiplier:
    """A number h_j that multiplies `A_j` and `b_j`: its name, its box and its initial value in natural units.

    On the scale `log` it is positive, and its logarithm is tuned. On the scale `linear` it may have any sign; `newton`
    then changes it by at most about 1.5 in one step: choose units in which that is a large change.
    """

    name: Annotated[str, MinLen(1), MaxLen(200)]
    scale: Literal["log", "linear"] = "log"
    initial: float = 1.0
    lower: float = 1e-6
    upper: float = 1e6

    def __post_init__(self) -> None:
        if self.scale == "log" and self.lower <= 0:
            raise ValueError(f"lower ({self.lower:g}) must be positive on the scale log; use the scale linear")
        check_box(self.lower, self.initial, self.upper)

    def hyperparameter(self) -> Hyperparameters:
        """The multiplier as a hyperparameter."""
        if self.scale == "linear":
            return Hyperparameters.real(self.name, self.initial, self.lower, self.upper)
        return Hyperparameters.positive((self.name,), self.initial, self.lower, self.upper)


@dataclass(frozen=True, slots=True)
class Quadratic(TrainingCriterion):
    """The caller's own criterion `C = theta^T H theta / 2 - b^T theta`, with the matrices and vectors in the data.

    `H = A_0 + sum_j h_j A_j` and `b = b_0 + sum_j h_j b_j`: each h_j has one entry in `multipliers`. By default these
    are `h[1]`, `h[2]`, ..., on the scale `log`, with initial value 1 and bounds 1e-6 and 1e6. H is factored as a dense,
    banded or sparse matrix, whichever costs least. The selection criterion has to be `quadratic`, too.
    """

    multipliers: Annotated[tuple[Multiplier, ...], MinLen(1)] | None = None
    kind: Literal["quadratic"] = "quadratic"

    classifies: ClassVar[bool] = False
    most_classes: ClassVar[None] = None
    refuses_offset: ClassVar[str] = "quadratic takes no offset; leave it out."

    @staticmethod
    def example() -> Problem:
        """Three parameters and two multipliers."""
        return example_of_matrices()

    @property
    def parts(self) -> Parts:
        """The caller's matrices, with an exact Hessian and a factor of H."""
        return Parts(own=self, has_hessian=True, has_factor=True)

    def of(self, criteria: Criteria) -> tuple[Multiplier, ...]:
        """One multiplier for each pair `A_j`, `b_j`. Raises ValueError if their number or names do not fit."""
        if self.multipliers is None:
            return numbered(criteria.k)
        count, names = len(self.multipliers), [multiplier.name for multiplier in self.multipliers]
        if count != criteria.k:
            raise ValueError(f"there are {count} multipliers for {criteria.k} matrices and vectors after A_0 and b_0")
        if duplicate := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two multipliers have the name {duplicate!r}")
        return self.multipliers

    @property
    def needs_variances(self) -> bool:
        """No: there are no columns."""
        return False

    def hyperparameters(self, problem: Problem) -> Hyperparameters:
        """Names, boxes and initial values. Raises ValueError if they do not fit the matrices of the problem."""
        multipliers = self.multipliers if problem.criteria is None else self.of(problem.criteria)
        first, *rest = (multiplier.hyperparameter() for multiplier in multipliers or ())
        for other in rest:
            first += other
        return first

    def misfits(self, problem: Problem, rows: int) -> Iterator[Misfit]:
        """Multipliers that do not fit the matrices."""
        try:
            self.hyperparameters(problem)
        except ValueError as error:
            yield Misfit(("training", "multipliers"), str(error))

    def check_target(self, problem: Problem) -> None:
        """There is no target."""

    def check_splits(self, problem: Problem, partition: Partition, loss: SelectionLoss | None) -> None:
        """There are no rows to split."""

    def expanded(self, problem: Problem, rows: Int[Array, " m"]) -> Problem:
        """The problem, unchanged."""
        return problem

    def prefers_inexact(self, problem: Problem) -> bool:
        """No: training is solved directly."""
        return False

    def observations(self, problem: Problem, rows: Int[Array, " m"], partition: Partition) -> tuple[str, ...]:
        """None: there are no columns."""
        return ()

    def penalties_of_separable(self, problem: Problem) -> int:
        """None: there are no classes."""
        return 0

    def system(self, problem: Problem, *, shape: Shape | None = None) -> SumSystem:
        """The training system; `shape` None takes the cheapest factorization."""
        assert problem.criteria is not None
        return SumSystem.build(problem.criteria, self.hyperparameters(problem).log, shape)

    def model(self, problem: Problem, rows: Int[Array, " m"], lam: Float[Array, " k"]) -> LinearModel | None:
        """Theta as coefficients; None if H is not positive definite."""
        fit = self.system(problem).fit(lam)
        return None if fit is None else LinearModel(0.0, fit.theta, fit.inner_gradient_norm())

    def cost(self, problem: Problem, sizes: Sizes) -> TrainingCost:
        """What it costs with the factorization that the matrices allow."""
        assert problem.criteria is not None
        return cost_of_sums(problem.criteria, sizes)


def numbered(k: int) -> tuple[Multiplier, ...]:
    """The default multipliers of `k` matrices."""
    return tuple(Multiplier(f"h[{j}]") for j in range(1, k + 1))


def empty_problem(criteria: Criteria) -> Problem:
    """A problem of these criteria, without a table."""
    return Problem(np.empty((0, 0)), np.empty(0), (), criteria=criteria)
