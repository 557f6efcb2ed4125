"""Nested cross-validation: the rows on which the whole procedure is repeated, and the rows that score it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le, Lt
from jaxtyping import Int

from worker.core.records import Array
from worker.core.rows.problem import Problem
from worker.core.selection import GivenFolds, GroupKFold, Holdout, Selection


@dataclass(frozen=True, slots=True)
class Nested:
    """Outer cross-validation of the whole tuning: how optimistic the selection value is.

    The rows are cut into `folds`. For each fold everything is tuned again on the other rows, and the refit is scored on
    the fold. A group stays in one fold. A time series is cut into `folds` + 1 equal parts; each part after the first is
    scored after tuning on the parts before it. The cost is `folds` more tunings.
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
            order = rows if problem.time is None else rows[np.argsort(problem.time[rows], kind="stable")]
            parts = np.array_split(order, self.folds + 1)
            return [(np.sort(np.concatenate(parts[: f + 1])), np.sort(parts[f + 1])) for f in range(self.folds)]
        if isinstance(selection, GroupKFold):
            partition = replace(selection, folds=self.folds, seed=self.seed).partition(rows, n, problem)
            return [(partition.rows(train), partition.rows(scored)) for train, scored in partition.splits]
        parts = np.array_split(np.random.default_rng([self.seed, 5]).permutation(rows), self.folds)
        return [(np.setdiff1d(rows, part), np.sort(part)) for part in parts]
