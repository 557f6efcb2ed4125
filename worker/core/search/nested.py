"""Nested cross-validation: the rows on which the whole procedure is repeated, and the rows that score it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le, Lt
from jaxtyping import Int

from worker.core.records import Array
from worker.core.rows.problem import Problem
from worker.core.rows.time_order import completed, in_order
from worker.core.selection import GivenFolds, GroupKFold, Holdout, Selection, StratifiedGroupKFold


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

    def splits(
        self, selection: Selection, rows: Int[Array, " m"], problem: Problem
    ) -> list[tuple[Int[Array, " t"], Int[Array, " v"]]]:
        """Rows to tune on and rows to score, for each fold. Raises ValueError if the rows cannot be cut."""
        if isinstance(selection, GivenFolds) or (isinstance(selection, Holdout) and selection.validation_rows):
            raise ValueError("nested cross-validation cuts the rows itself; use a selection that does not list rows")
        if self.folds + 1 > len(rows):
            raise ValueError(f"{self.folds} nested folds need more than the {len(rows)} rows")
        n = len(problem.y)
        if selection.ordered:
            order, borders = self._borders(rows, problem)
            return [(np.sort(order[:begin]), np.sort(order[begin:end])) for begin, end in pairwise(borders)]
        if isinstance(selection, GroupKFold | StratifiedGroupKFold):
            partition = replace(selection, folds=self.folds, seed=self.seed).partition(rows, n, problem)
            return [(partition.rows(train), partition.rows(scored)) for train, scored in partition.splits]
        parts = np.array_split(np.random.default_rng([self.seed, 5]).permutation(rows), self.folds)
        return [(np.setdiff1d(rows, part), np.sort(part)) for part in parts]

    def _borders(self, rows: Int[Array, " m"], problem: Problem) -> tuple[Int[Array, " m"], list[int]]:
        """The rows in the order of time, and the ends of the parts. Raises ValueError if a part would be empty."""
        ends = np.cumsum([len(part) for part in np.array_split(rows, self.folds + 1)])
        if problem.time is None:
            return rows, ends.tolist()
        order, clock = in_order(rows, problem.time[rows])
        borders = [completed(clock, int(end)) for end in ends]
        if len(set(borders)) < len(borders):
            raise ValueError(
                f"rows of equal time stay together, so that {self.folds} nested folds do not all get rows; use fewer"
            )
        return order, borders

    def shares(self, selection: Selection) -> tuple[float, ...]:
        """The fraction of the rows that each fold tunes on. Needs no rows."""
        if selection.ordered:
            return tuple(part / (self.folds + 1) for part in range(1, self.folds + 1))
        return (1.0 - 1.0 / self.folds,) * self.folds
