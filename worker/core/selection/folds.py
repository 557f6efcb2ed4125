"""K-fold cross-validation with folds that are drawn, balanced over classes, or given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Le, MinLen
from jaxtyping import Int

from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem
from worker.core.selection.clusters import by_group
from worker.core.selection.listed_rows import entries_of, listed_or_column
from worker.core.selection.outer_folds import ROWS_ARE_LISTED
from worker.core.selection.resampled import AnyRows, Resampled
from worker.core.selection.selection_criterion import RowsOfSplits
from worker.core.selection.splits import ENOUGH_ROWS, MAX_FOLDS, Fold, Seed, leave_one_fold_out, unassigned_blocks


@dataclass(frozen=True, slots=True)
class KFold(AnyRows):
    """K-fold cross-validation: each fold is scored by a model trained on the others.

    Folds differ in size by at most one row. With `shuffle` false they are consecutive rows.
    """

    folds: Annotated[int, Ge(2), Le(MAX_FOLDS)] = 5
    seed: Seed = 0
    shuffle: bool = True
    kind: Literal["k_fold"] = "k_fold"

    enough_rows: ClassVar[int | None] = ENOUGH_ROWS

    def partition(self, rows: Int[Array, " m"], n: int, roles: Problem | None = None) -> Partition:
        """Folds of the usable `rows` of a table of `n` rows. Raises ValueError if there are more folds than rows."""
        if self.folds > len(rows):
            raise ValueError(f"{self.folds} folds need at least {self.folds} rows, and there are {len(rows)}")
        order = np.random.default_rng(self.seed).permutation(rows) if self.shuffle else rows
        block_of_row = unassigned_blocks(n)
        for fold, members in enumerate(np.array_split(order, self.folds)):
            block_of_row[members] = fold
        return self.weighted(Partition(block_of_row, leave_one_fold_out(self.folds)))


@dataclass(frozen=True, slots=True)
class StratifiedKFold(AnyRows):
    """K-fold cross-validation in which the rows of every class are spread evenly over the folds."""

    folds: Annotated[int, Ge(2), Le(MAX_FOLDS)] = 5
    seed: Seed = 0
    kind: Literal["stratified_k_fold"] = "stratified_k_fold"

    def partition(self, rows: Int[Array, " m"], n: int, roles: Problem | None = None) -> Partition:
        """Folds of the usable rows. Raises ValueError if a class has fewer rows than there are folds."""
        if roles is None or not roles.classes:
            raise ValueError("stratified folds need a training criterion of classes; use k_fold")
        random, block_of_row, next_fold = np.random.default_rng(self.seed), unassigned_blocks(n), 0
        for code, name in enumerate(roles.classes):
            members = random.permutation(rows[roles.y[rows] == code])
            if len(members) < self.folds:
                raise ValueError(f"class {name!r} has {len(members)} rows, too few for {self.folds} folds")
            block_of_row[members] = (next_fold + np.arange(len(members))) % self.folds
            next_fold = (next_fold + len(members)) % self.folds
        return self.weighted(Partition(block_of_row, leave_one_fold_out(self.folds)))


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenFolds(Resampled):
    """Cross-validation with folds that the caller assigns: `fold_of_row[i]` is the fold of row i, counted from 0.

    Without `fold_of_row` the folds come from the `fold` column of the data.
    """

    fold_of_row: Annotated[tuple[Fold, ...], MinLen(2)] | None = None
    kind: Literal["given_folds"] = "given_folds"

    durations: ClassVar[tuple[str, ...]] = ()

    @property
    def entry_per_row(self) -> bool:
        """Whether the folds are listed here."""
        return self.fold_of_row is not None

    @property
    def enough_rows(self) -> int | None:
        """Folds of a column are numbered without gaps."""
        return None if self.entry_per_row else ENOUGH_ROWS

    def partition(self, rows: Int[Array, " m"], n: int, roles: Problem | None = None) -> Partition:
        """The caller's folds, without unusable rows. Raises ValueError on a wrong length or an empty fold."""
        fold_of_row = listed_or_column(self.fold_of_row, roles.fold if roles else None, n, ("fold_of_row", "fold"))
        block_of_row = unassigned_blocks(n)
        block_of_row[rows] = fold_of_row[rows]
        folds = int(fold_of_row[rows].max()) + 1
        if folds < 2:
            raise ValueError("every row is in one fold; at least two folds are needed")
        if len(empty := np.setdiff1d(np.arange(folds), block_of_row)):
            raise ValueError(f"fold {empty[0]} has no rows; number the folds 0, 1, 2, ... without gaps")
        return self.weighted(Partition(block_of_row, leave_one_fold_out(folds)))

    def outer_folds(self, rows: Int[Array, " m"], folds: int, seed: int, problem: Problem) -> RowsOfSplits:
        """Raises ValueError: the caller cut the rows."""
        raise ValueError(ROWS_ARE_LISTED)

    def clusters(self, problem: Problem, partition: Partition) -> Int[Array, " n"]:
        """The groups of the data; without groups each row by itself."""
        return by_group(problem)

    def settings_of_rows(self, kept: Int[Array, " m"], problem: Problem) -> dict[str, Any]:
        """The folds of these rows. Raises ValueError on a wrong length, or if a fold is left out."""
        left = entries_of(kept, self.fold_of_row, len(problem.y), "fold_of_row")
        fold_of_row = problem.fold if self.fold_of_row is None else np.array(self.fold_of_row)
        if fold_of_row is not None and len(lost := np.setdiff1d(fold_of_row, fold_of_row[kept])):
            raise ValueError(
                f"every row of fold {lost[0]} has weight 0; leave these rows out, and number the other folds 0, 1, 2, "
                "... without gaps"
            )
        return {"fold_of_row": left}

    def split_remarks(self, problem: Problem, rows: Int[Array, " m"], partition: Partition) -> tuple[str, ...]:
        """None."""
        return ()
