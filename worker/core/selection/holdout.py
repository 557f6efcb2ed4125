"""One split into training and validation rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Gt, Lt, MinLen
from jaxtyping import Int

from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem
from worker.core.selection.clusters import by_group
from worker.core.selection.listed_rows import numbers_among
from worker.core.selection.outer_folds import ROWS_ARE_LISTED, folds_at_random
from worker.core.selection.resampled import Resampled
from worker.core.selection.selection_criterion import RowsOfSplits
from worker.core.selection.splits import Row, Seed, unassigned_blocks


@dataclass(frozen=True, slots=True)
class Holdout(Resampled):
    """One split: a random `fraction` of the rows, or the rows listed in `validation_rows`, scores the model."""

    fraction: Annotated[float, Gt(0), Lt(1)] = 0.2
    validation_rows: Annotated[tuple[Row, ...], MinLen(1)] | None = None
    seed: Seed = 0
    kind: Literal["holdout"] = "holdout"

    durations: ClassVar[tuple[str, ...]] = ()
    entry_per_row: ClassVar[bool] = False
    enough_rows: ClassVar[int | None] = None

    def partition(self, rows: Int[Array, " m"], n: int, roles: Problem | None = None) -> Partition:
        """Training rows are block 0, validation rows block 1. Raises ValueError if either would be empty."""
        block_of_row = unassigned_blocks(n)
        block_of_row[rows] = 0
        block_of_row[self._validation_rows(rows, n)] = 1
        if not (block_of_row == 0).any():
            raise ValueError("no row is left to train on; hold out fewer rows")
        return self.weighted(Partition(block_of_row, (((0,), (1,)),)))

    def outer_folds(self, rows: Int[Array, " m"], folds: int, seed: int, problem: Problem) -> RowsOfSplits:
        """Random folds. Raises ValueError if the validation rows are listed."""
        if self.validation_rows:
            raise ValueError(ROWS_ARE_LISTED)
        return folds_at_random(rows, folds, seed)

    def clusters(self, problem: Problem, partition: Partition) -> Int[Array, " n"]:
        """The groups of the data; without groups each row by itself."""
        return by_group(problem)

    def settings_of_rows(self, kept: Int[Array, " m"], problem: Problem) -> dict[str, Any]:
        """The validation rows that are kept. Raises ValueError if there are none."""
        return {"validation_rows": numbers_among(kept, self.validation_rows, len(problem.y), "validation_rows")}

    def split_remarks(self, problem: Problem, rows: Int[Array, " m"], partition: Partition) -> tuple[str, ...]:
        """None."""
        return ()

    def _validation_rows(self, rows: Int[Array, " m"], n: int) -> Int[Array, " v"]:
        if self.validation_rows is None:
            count = round(self.fraction * len(rows))
            if count == 0:
                raise ValueError(f"a fraction of {self.fraction:g} of {len(rows)} rows holds out no row")
            return np.random.default_rng(self.seed).permutation(rows)[:count]
        chosen = np.array(self.validation_rows)
        if chosen.max() >= n:
            raise ValueError(
                f"validation_rows names row {chosen.max()}, and the last row is {n - 1} (rows count from 0)"
            )
        if len(np.unique(chosen)) < len(chosen):
            raise ValueError("validation_rows names a row twice")
        if not np.isin(chosen, rows).all():
            raise ValueError(
                "validation_rows names a row of the test part; set test_fraction to 0 or leave that row out"
            )
        return chosen
