"""Selection criteria from one fit on all rows, without refitting.

They keep the total penalty `n lam` of all rows and, with `standardize`, the column scales of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Int

from worker.core.hypergradient import ExactHypergradient
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem
from worker.core.selection.clusters import by_group
from worker.core.selection.outer_folds import folds_at_random
from worker.core.selection.selection_criterion import RowsOfSplits
from worker.core.selection.splits import ENOUGH_ROWS


@dataclass(frozen=True, slots=True)
class ClosedForm:
    """A selection criterion of one fit on all rows."""

    ordered: ClassVar[bool] = False
    closed_form: ClassVar[bool] = True
    leaves_rows_out: ClassVar[bool] = False  # whether J is of rows under fits without them
    keeps_groups: ClassVar[bool] = False  # each row is scored with the rest of its group in training
    has_hessian: ClassVar[bool] = True  # whether J has an exact Hessian
    takes_factor: ClassVar[bool] = False
    split_weights: ClassVar[tuple[float, ...] | None] = None
    durations: ClassVar[tuple[str, ...]] = ()
    entry_per_row: ClassVar[bool] = False
    enough_rows: ClassVar[int | None] = ENOUGH_ROWS
    enough_groups: ClassVar[int | None] = None

    def partition(self, rows: Int[Array, " m"], n: int, roles: Problem | None = None) -> Partition:
        """One block: every usable row trains and is scored. Raises ValueError if there are fewer than two."""
        if len(rows) < 2:
            raise ValueError("at least two rows are needed")
        return Partition.whole(rows, n)

    def outer_folds(self, rows: Int[Array, " m"], folds: int, seed: int, problem: Problem) -> RowsOfSplits:
        """Random folds."""
        return folds_at_random(rows, folds, seed)

    def clusters(self, problem: Problem, partition: Partition) -> Int[Array, " n"]:
        """The groups of the data; without groups each row by itself."""
        return by_group(problem)

    def settings_of_rows(self, kept: Int[Array, " m"], problem: Problem) -> dict[str, Any]:
        """None lists rows."""
        return {}

    def split_remarks(self, problem: Problem, rows: Int[Array, " m"], partition: Partition) -> tuple[str, ...]:
        """None."""
        return ()


def dual_matrix(hypergradient: ExactHypergradient) -> bool | None:
    """`dual` for systems of least squares: False where the factor of H itself is needed; None chooses by cost."""
    return False if hypergradient.needs_primal_factor else None
