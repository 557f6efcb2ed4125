"""Nested cross-validation: the rows on which the whole procedure is repeated, and the rows that score it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le, Lt
from jaxtyping import Int

from worker.core.records import Array
from worker.core.rows.problem import Problem
from worker.core.selection.selection_criterion import RowsOfSplits, SelectionCriterion

SpreadBy = Literal["auto", "nested"]


@dataclass(frozen=True, slots=True)
class Nested:
    """Outer cross-validation of the whole tuning: how optimistic the selection value is.

    The rows are cut into `folds`. For each fold everything is tuned again on the other rows, and the refit is scored on
    the fold. With group_k_fold and stratified_group_k_fold a group stays in one fold. A time series is cut into `folds`
    + 1 equal parts, rows of equal time together; each part after the first is scored after tuning on the parts before
    it. The cost is `folds` more tunings.
    """

    folds: Annotated[int, Ge(2), Le(50)] = 5
    seed: Annotated[int, Ge(0), Lt(2**63)] = 0

    def splits(self, selection: SelectionCriterion, rows: Int[Array, " m"], problem: Problem) -> RowsOfSplits:
        """Rows to tune on and rows to score, for each fold. Raises ValueError if the rows cannot be cut."""
        if self.folds + 1 > len(rows):
            raise ValueError(f"{self.folds} nested folds need more than the {len(rows)} rows")
        return selection.outer_folds(rows, self.folds, self.seed, problem)

    def shares(self, selection: SelectionCriterion) -> tuple[float, ...]:
        """The fraction of the rows that each fold tunes on. Needs no rows."""
        if selection.ordered:
            return tuple(part / (self.folds + 1) for part in range(1, self.folds + 1))
        return (1.0 - 1.0 / self.folds,) * self.folds
