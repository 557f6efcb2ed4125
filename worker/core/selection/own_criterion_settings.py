"""A quadratic selection criterion that the caller brings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Int

from worker.core.capabilities import Capability, Need
from worker.core.hypergradient import ExactHypergradient
from worker.core.hyperparameters import Hyperparameters
from worker.core.linalg.assembled import Shape
from worker.core.losses import Score
from worker.core.objective.objective import Objective
from worker.core.objective.own_criterion import own_criterion
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem
from worker.core.selection.clusters import by_group
from worker.core.selection.selection_criterion import RowsOfSplits, lacking
from worker.core.training import TrainingCriterion


@dataclass(frozen=True, slots=True)
class QuadraticSelection:
    """The caller's own `E = c + e^T theta + theta^T Q theta / 2`, with `c`, `e` and `Q` in the data.

    For the training criterion `quadratic`, whose data have no rows to resample.
    """

    kind: Literal["quadratic"] = "quadratic"

    needs: ClassVar[tuple[Need, ...]] = (frozenset({Capability.OWN_MATRICES}),)
    alternatives: ClassVar[tuple[str, ...]] = ("k_fold",)
    takes_factor: ClassVar[bool] = False
    leaves_rows_out: ClassVar[bool] = False
    ordered: ClassVar[bool] = False
    closed_form: ClassVar[bool] = False
    keeps_groups: ClassVar[bool] = True  # there are no rows
    has_hessian: ClassVar[bool] = True
    takes_loss: ClassVar[bool] = False
    given_loss: ClassVar[Score | None] = None
    split_weights: ClassVar[tuple[float, ...] | None] = None
    durations: ClassVar[tuple[str, ...]] = ()
    entry_per_row: ClassVar[bool] = False
    enough_rows: ClassVar[int | None] = None
    enough_groups: ClassVar[int | None] = None

    def partition(self, rows: Int[Array, " m"], n: int, roles: Problem | None = None) -> Partition:
        """One split of no rows. Raises ValueError if there are rows."""
        if n > 0 or len(rows) > 0:
            raise ValueError("quadratic scores no rows; choose another selection criterion for a table")
        return Partition(np.empty(0, np.int16), (((0,), (0,)),))

    def outer_folds(self, rows: Int[Array, " m"], folds: int, seed: int, problem: Problem) -> RowsOfSplits:
        """Raises ValueError: there are no rows to cut."""
        raise ValueError("nested cross-validation cuts rows, and quadratic has none")

    def clusters(self, problem: Problem, partition: Partition) -> Int[Array, " n"]:
        """None: there are no rows."""
        return by_group(problem)

    def settings_of_rows(self, kept: Int[Array, " m"], problem: Problem) -> dict[str, Any]:
        """None: there are no rows."""
        return {}

    def split_remarks(self, problem: Problem, rows: Int[Array, " m"], partition: Partition) -> tuple[str, ...]:
        """None."""
        return ()

    def hyperparameters(self) -> Hyperparameters | None:
        """Hyperparameters of the selection criterion: none."""
        return None

    def objective(
        self,
        problem: Problem,
        partition: Partition,
        training: TrainingCriterion,
        hypergradient: ExactHypergradient,
        trials: int = 1,
    ) -> Objective:
        """The outer objective. Its factor is dense if the hypergradient differentiates through it."""
        if (own := training.parts.own) is None:
            raise lacking(self.kind, training)
        shape: Shape | None = "dense" if hypergradient.needs_primal_factor else None
        return own_criterion(own.system(problem, shape=shape), training.hyperparameters(problem), hypergradient)
