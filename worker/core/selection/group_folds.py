"""K-fold cross-validation that keeps groups of rows together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Le, MinLen
from jaxtyping import Float, Int, Shaped

from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem
from worker.core.selection.clusters import numbered
from worker.core.selection.listed_rows import entries_of, listed_or_column
from worker.core.selection.outer_folds import rows_of_splits
from worker.core.selection.resampled import Resampled
from worker.core.selection.selection_criterion import RowsOfSplits
from worker.core.selection.splits import ENOUGH_ROWS, MAX_FOLDS, Group, Seed, leave_one_fold_out, unassigned_blocks

EQUAL_RISES = 1e-12  # relative; closer ones differ by rounding
ENOUGH_GROUPS = 10_000  # groups that stand for any larger number of them: they are assigned to folds one by one
CLASS_IN_FEW_GROUPS = (
    "Class {!r} has rows in {} of the groups, fewer than the {} folds, so that not every fold scores it; take fewer "
    "folds."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeGroups(Resampled):
    """K-fold cross-validation that keeps groups together: rows with the same `group_of_row` share a fold.

    Without `group_of_row` the groups come from the `groups` column of the data.
    """

    group_of_row: Annotated[tuple[Group, ...], MinLen(2)] | None = None
    folds: Annotated[int, Ge(2), Le(MAX_FOLDS)] = 5
    seed: Seed = 0

    keeps_groups: ClassVar[bool] = True
    durations: ClassVar[tuple[str, ...]] = ()

    @property
    def entry_per_row(self) -> bool:
        """Whether the groups are listed here."""
        return self.group_of_row is not None

    @property
    def enough_rows(self) -> int | None:
        """Groups of a column are counted."""
        return None if self.entry_per_row else ENOUGH_ROWS

    def outer_folds(self, rows: Int[Array, " m"], folds: int, seed: int, problem: Problem) -> RowsOfSplits:
        """Folds of whole groups, made in the same way."""
        return rows_of_splits(replace(self, folds=folds, seed=seed).partition(rows, len(problem.y), problem))

    def clusters(self, problem: Problem, partition: Partition) -> Int[Array, " n"]:
        """The groups that are kept together."""
        return numbered(self._group_of_row(len(problem.y), problem))

    def settings_of_rows(self, kept: Int[Array, " m"], problem: Problem) -> dict[str, Any]:
        """The groups of these rows. Raises ValueError on a wrong length."""
        return {"group_of_row": entries_of(kept, self.group_of_row, len(problem.y), "group_of_row")}

    def groups(
        self, rows: Int[Array, " m"], n: int, roles: Problem | None
    ) -> tuple[Int[Array, " m"], Int[Array, " g"]]:
        """The number of each row's group, and the rows of each group. Raises ValueError if folds outnumber groups."""
        of_row = self._group_of_row(n, roles)
        groups, index, sizes = np.unique(of_row[rows], return_inverse=True, return_counts=True)
        if self.folds > len(groups):
            raise ValueError(f"{self.folds} folds need at least {self.folds} groups, and there are {len(groups)}")
        return index, sizes

    def _group_of_row(self, n: int, roles: Problem | None) -> Shaped[Array, " n"]:
        return listed_or_column(self.group_of_row, roles.groups if roles else None, n, ("group_of_row", "groups"))


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupKFold(WholeGroups):
    """K-fold cross-validation that keeps groups together: rows with the same `group_of_row` share a fold.

    Groups are assigned largest first, each to the fold with the fewest rows so far. Without `group_of_row` the groups
    come from the `groups` column of the data.
    """

    kind: Literal["group_k_fold"] = "group_k_fold"

    def partition(self, rows: Int[Array, " m"], n: int, roles: Problem | None = None) -> Partition:
        """Folds of whole groups. Raises ValueError on a wrong length or more folds than groups."""
        index, sizes = self.groups(rows, n, roles)
        order = np.random.default_rng(self.seed).permutation(len(sizes))  # ties are broken at random
        fold_of_group, rows_in_fold = np.empty(len(sizes), int), np.zeros(self.folds, int)
        for group in order[np.argsort(-sizes[order], kind="stable")]:
            fold_of_group[group] = np.argmin(rows_in_fold)
            rows_in_fold[fold_of_group[group]] += sizes[group]
        block_of_row = unassigned_blocks(n)
        block_of_row[rows] = fold_of_group[index]
        return self.weighted(Partition(block_of_row, leave_one_fold_out(self.folds)))

    def split_remarks(self, problem: Problem, rows: Int[Array, " m"], partition: Partition) -> tuple[str, ...]:
        """None."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StratifiedGroupKFold(WholeGroups):
    """K-fold cross-validation that keeps groups together and spreads the rows of every class evenly over the folds.

    Greedy: groups that hold the largest shares of classes come first (by the sum of squares over classes), each to the
    fold where it raises the variance over folds of these shares least; of equal folds, to the one with the fewest rows.
    No fold stays empty. Equal groups are ordered at random. Without `group_of_row` the groups come from the `groups`
    column of the data.
    """

    kind: Literal["stratified_group_k_fold"] = "stratified_group_k_fold"

    enough_groups: ClassVar[int | None] = ENOUGH_GROUPS

    def partition(self, rows: Int[Array, " m"], n: int, roles: Problem | None = None) -> Partition:
        """Folds of whole groups. Raises ValueError if there are too few groups, or rows of a class."""
        if roles is None or not roles.classes:
            raise ValueError("stratified folds need a training criterion of classes; use group_k_fold")
        index, sizes = self.groups(rows, n, roles)
        counts = np.zeros((len(sizes), len(roles.classes)))  # groups x classes
        np.add.at(counts, (index, roles.y[rows].astype(int)), 1.0)
        for name, members in zip(roles.classes, counts.sum(axis=0), strict=True):
            if members < self.folds:
                raise ValueError(f"class {name!r} has {members:.0f} rows, too few for {self.folds} folds")
        order = np.random.default_rng(self.seed).permutation(len(sizes))
        shares = counts / counts.sum(axis=0)
        order = order[np.argsort(-(shares[order] ** 2).sum(axis=1), kind="stable")]
        block_of_row = unassigned_blocks(n)
        block_of_row[rows] = self._folds_of_groups(shares, sizes, order)[index]
        return self.weighted(Partition(block_of_row, leave_one_fold_out(self.folds)))

    def split_remarks(self, problem: Problem, rows: Int[Array, " m"], partition: Partition) -> tuple[str, ...]:
        """Classes that are in fewer groups of the data than there are folds."""
        if problem.groups is None:
            return ()
        pairs = np.unique(np.column_stack([problem.y[rows].astype(int), problem.groups[rows]]), axis=0)
        counts = np.bincount(pairs[:, 0], minlength=len(problem.classes))
        return tuple(
            CLASS_IN_FEW_GROUPS.format(name, count, self.folds)
            for name, count in zip(problem.classes, counts, strict=True)
            if count < self.folds
        )

    def _folds_of_groups(
        self, shares: Float[Array, "g c"], sizes: Int[Array, " g"], order: Int[Array, " g"]
    ) -> Int[Array, " g"]:
        """The fold of each group. A group raises the sum of squares of fold f by `2 shares . shares_f` + a constant."""
        fold_of_group, rows_in_fold = np.empty(len(sizes), int), np.zeros(self.folds, int)
        shares_of_fold = np.zeros((self.folds, shares.shape[1]))
        for left, group in zip(range(len(order), 0, -1), order, strict=True):
            empty = np.flatnonzero(rows_in_fold == 0)
            folds = empty if left == len(empty) else np.arange(self.folds)
            rise = shares_of_fold[folds] @ shares[group]
            equal = folds[rise <= rise.min() * (1 + EQUAL_RISES)]
            fold = equal[np.argmin(rows_in_fold[equal])]
            fold_of_group[group] = fold
            rows_in_fold[fold] += sizes[group]
            shares_of_fold[fold] += shares[group]
        return fold_of_group
