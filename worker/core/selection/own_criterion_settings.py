"""A quadratic selection criterion that the caller brings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Int

from worker.core.hypergradient import CholeskyBackprop, ExactHypergradient
from worker.core.hyperparameters import Hyperparameters
from worker.core.linalg.assembled import Shape
from worker.core.objective.objective import Objective
from worker.core.objective.own_criterion import own_criterion
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem
from worker.core.training import Quadratic


@dataclass(frozen=True, slots=True)
class QuadraticSelection:
    """The caller's own `E = c + e^T theta + theta^T Q theta / 2`, with `c`, `e` and `Q` in the data.

    For the training criterion `quadratic`, whose data have no rows to resample.
    """

    kind: Literal["quadratic"] = "quadratic"

    ordered: ClassVar[bool] = False
    closed_form: ClassVar[bool] = False
    leaves_rows_out: ClassVar[bool] = False
    keeps_groups: ClassVar[bool] = True  # there are no rows
    has_hessian: ClassVar[bool] = True

    def partition(self, rows: Int[Array, " m"], n: int, roles: Problem | None = None) -> Partition:
        """One split of no rows. Raises ValueError if there are rows."""
        if n > 0 or len(rows) > 0:
            raise ValueError("quadratic scores no rows; choose another selection criterion for a table")
        return Partition(np.empty(0, np.int16), (((0,), (0,)),))

    def hyperparameters(self) -> Hyperparameters | None:
        """Hyperparameters of the selection criterion: none."""
        return None

    def objective(self, problem: Problem, training: Quadratic, hypergradient: ExactHypergradient) -> Objective:
        """The outer objective. CholeskyBackprop needs a dense factor."""
        shape: Shape | None = "dense" if isinstance(hypergradient, CholeskyBackprop) else None
        return own_criterion(training.system(problem, shape=shape), training.hyperparameters(problem), hypergradient)
