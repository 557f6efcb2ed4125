"""Resampled selection criteria: train on some rows, score on others.

`J = (sum over splits and validation rows of the loss) / (number of validation rows, summed over splits)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt, Le, Lt, MinLen
from jaxtyping import Float, Int

from worker.core.family import ByKind
from worker.core.hypergradient import ExactHypergradient
from worker.core.hyperparameters import Hyperparameters
from worker.core.losses import Score
from worker.core.objective.objective import Objective
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem
from worker.core.training import TableTraining

EQUAL_RISES = 1e-12  # relative; closer ones differ by rounding
MAX_FOLDS = 1000  # each split lists its folds: memory grows with the square of this
Seed = Annotated[int, Ge(0), Lt(2**63)]
Row = Annotated[int, Ge(0), Lt(2**53)]
Group = Annotated[int, Ge(-(2**63)), Le(2**64 - 1)]
Splits = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
Fold = Annotated[int, Ge(0), Lt(MAX_FOLDS)]


@dataclass(frozen=True, slots=True)
class Resampled:
    """`loss` scores a validation row; by default the training criterion chooses it.

    `split_weights` are the relative weights of the splits, in their order.
    """

    loss: Annotated[Score, ByKind(named=True)] | None = None
    split_weights: Annotated[tuple[Annotated[float, Ge(0)], ...], MinLen(1)] | None = None
    ordered: ClassVar[bool] = False  # whether the order of the rows means something
    keeps_groups: ClassVar[bool] = False  # whether rows of one group are never trained on and scored in one split
    closed_form: ClassVar[bool] = False  # whether one fit on all rows is scored by its residuals and leverages
    leaves_rows_out: ClassVar[bool] = False  # the same, of rows under fits without them
    has_hessian: ClassVar[bool] = True  # whether J has an exact Hessian

    def objective(
        self,
        problem: Problem,
        partition: Partition,
        training: TableTraining,
        hypergradient: ExactHypergradient,
        trials: int = 1,
    ) -> Objective:
        """The outer objective: the mean loss over all validation rows, pooled over the splits."""
        weights = None if self.split_weights is None else np.array(self.split_weights)
        return training.mean_of_splits(problem, partition, self.loss, weights, hypergradient, trials)

    def hyperparameters(self) -> Hyperparameters | None:
        """Hyperparameters of the selection criterion: none."""
        return None

    def _partition(self, block_of_row: Array, splits: Splits) -> Partition:
        """The partition. Raises ValueError unless each split has a weight and one of them is positive."""
        weights = self.split_weights
        if weights is not None and len(weights) != len(splits):
            raise ValueError(f"split_weights has {len(weights)} entries, and there are {len(splits)} splits")
        if weights is not None and not any(weights):
            raise ValueError("split_weights are all zero, so that nothing would be scored")
        return Partition(block_of_row, splits)


@dataclass(frozen=True, slots=True)
class KFold(Resampled):
    """K-fold cross-validation: each fold is scored by a model trained on the others.

    Folds differ in size by at most one row. With `shuffle` false they are consecutive rows.
    """

    folds: Annotated[int, Ge(2), Le(MAX_FOLDS)] = 5
    seed: Seed = 0
    shuffle: bool = True
    kind: Literal["k_fold"] = "k_fold"

    def partition(self, rows: Array, n: int, roles: Problem | None = None) -> Partition:
        """Folds of the usable `rows` of a table of `n` rows. Raises ValueError if there are more folds than rows."""
        if self.folds > len(rows):
            raise ValueError(f"{self.folds} folds need at least {self.folds} rows, and there are {len(rows)}")
        order = np.random.default_rng(self.seed).permutation(rows) if self.shuffle else rows
        block_of_row = unassigned_blocks(n)
        for fold, members in enumerate(np.array_split(order, self.folds)):
            block_of_row[members] = fold
        return self._partition(block_of_row, _leave_one_fold_out(self.folds))


@dataclass(frozen=True, slots=True)
class Holdout(Resampled):
    """One split: a random `fraction` of the rows, or the rows listed in `validation_rows`, scores the model."""

    fraction: Annotated[float, Gt(0), Lt(1)] = 0.2
    validation_rows: Annotated[tuple[Row, ...], MinLen(1)] | None = None
    seed: Seed = 0
    kind: Literal["holdout"] = "holdout"

    def partition(self, rows: Array, n: int, roles: Problem | None = None) -> Partition:
        """Training rows are block 0, validation rows block 1. Raises ValueError if either would be empty."""
        block_of_row = unassigned_blocks(n)
        block_of_row[rows] = 0
        block_of_row[self._validation_rows(rows, n)] = 1
        if not (block_of_row == 0).any():
            raise ValueError("no row is left to train on; hold out fewer rows")
        return self._partition(block_of_row, (((0,), (1,)),))

    def _validation_rows(self, rows: Array, n: int) -> Array:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenFolds(Resampled):
    """Cross-validation with folds that the caller assigns: `fold_of_row[i]` is the fold of row i, counted from 0.

    Without `fold_of_row` the folds come from the `fold` column of the data.
    """

    fold_of_row: Annotated[tuple[Fold, ...], MinLen(2)] | None = None
    kind: Literal["given_folds"] = "given_folds"

    def partition(self, rows: Array, n: int, roles: Problem | None = None) -> Partition:
        """The caller's folds, without unusable rows. Raises ValueError on a wrong length or an empty fold."""
        fold_of_row = _listed_or_column(self.fold_of_row, roles.fold if roles else None, n, ("fold_of_row", "fold"))
        block_of_row = unassigned_blocks(n)
        block_of_row[rows] = fold_of_row[rows]
        folds = int(fold_of_row[rows].max()) + 1
        if folds < 2:
            raise ValueError("every row is in one fold; at least two folds are needed")
        if len(empty := np.setdiff1d(np.arange(folds), block_of_row)):
            raise ValueError(f"fold {empty[0]} has no rows; number the folds 0, 1, 2, ... without gaps")
        return self._partition(block_of_row, _leave_one_fold_out(folds))


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupKFold(Resampled):
    """K-fold cross-validation that keeps groups together: rows with the same `group_of_row` share a fold.

    Groups are assigned largest first, each to the fold with the fewest rows so far. Without `group_of_row` the groups
    come from the `groups` column of the data.
    """

    group_of_row: Annotated[tuple[Group, ...], MinLen(2)] | None = None
    folds: Annotated[int, Ge(2)] = 5
    seed: Seed = 0
    kind: Literal["group_k_fold"] = "group_k_fold"

    keeps_groups: ClassVar[bool] = True

    def partition(self, rows: Array, n: int, roles: Problem | None = None) -> Partition:
        """Folds of whole groups. Raises ValueError on a wrong length or more folds than groups."""
        index, sizes = _groups(self, rows, n, roles)
        order = np.random.default_rng(self.seed).permutation(len(sizes))  # ties are broken at random
        fold_of_group, rows_in_fold = np.empty(len(sizes), int), np.zeros(self.folds, int)
        for group in order[np.argsort(-sizes[order], kind="stable")]:
            fold_of_group[group] = np.argmin(rows_in_fold)
            rows_in_fold[fold_of_group[group]] += sizes[group]
        block_of_row = unassigned_blocks(n)
        block_of_row[rows] = fold_of_group[index]
        return self._partition(block_of_row, _leave_one_fold_out(self.folds))


@dataclass(frozen=True, slots=True)
class StratifiedKFold(Resampled):
    """K-fold cross-validation in which the rows of every class are spread evenly over the folds."""

    folds: Annotated[int, Ge(2), Le(MAX_FOLDS)] = 5
    seed: Seed = 0
    kind: Literal["stratified_k_fold"] = "stratified_k_fold"

    def partition(self, rows: Array, n: int, roles: Problem | None = None) -> Partition:
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
        return self._partition(block_of_row, _leave_one_fold_out(self.folds))


@dataclass(frozen=True, slots=True, kw_only=True)
class StratifiedGroupKFold(Resampled):
    """K-fold cross-validation that keeps groups together and spreads the rows of every class evenly over the folds.

    Greedy: groups that hold the largest shares of classes come first (by the sum of squares over classes), each to the
    fold where it raises the variance over folds of these shares least; of equal folds, to the one with the fewest rows.
    No fold stays empty. Equal groups are ordered at random. Without `group_of_row` the groups come from the `groups`
    column of the data.
    """

    group_of_row: Annotated[tuple[Group, ...], MinLen(2)] | None = None
    folds: Annotated[int, Ge(2), Le(MAX_FOLDS)] = 5
    seed: Seed = 0
    kind: Literal["stratified_group_k_fold"] = "stratified_group_k_fold"

    keeps_groups: ClassVar[bool] = True

    def partition(self, rows: Array, n: int, roles: Problem | None = None) -> Partition:
        """Folds of whole groups. Raises ValueError if there are too few groups, or rows of a class."""
        if roles is None or not roles.classes:
            raise ValueError("stratified folds need a training criterion of classes; use group_k_fold")
        index, sizes = _groups(self, rows, n, roles)
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
        return self._partition(block_of_row, _leave_one_fold_out(self.folds))

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


def _leave_one_fold_out(folds: int) -> Splits:
    all_folds = range(folds)
    return tuple((tuple(f for f in all_folds if f != fold), (fold,)) for fold in all_folds)


def _groups(
    selection: GroupKFold | StratifiedGroupKFold, rows: Array, n: int, roles: Problem | None
) -> tuple[Int[Array, " m"], Int[Array, " g"]]:
    """The number of each row's group, and the rows of each group. Raises ValueError if folds outnumber groups."""
    group_of_row = _listed_or_column(
        selection.group_of_row, roles.groups if roles else None, n, ("group_of_row", "groups")
    )
    groups, index, sizes = np.unique(group_of_row[rows], return_inverse=True, return_counts=True)
    if selection.folds > len(groups):
        raise ValueError(f"{selection.folds} folds need at least {selection.folds} groups, and there are {len(groups)}")
    return index, sizes


def unassigned_blocks(n: int) -> Array:
    """The block of each of `n` rows, -1 for none yet; two bytes a row, for tables of many rows."""
    return np.full(n, -1, np.int16)


def _listed_or_column(listed: tuple[int, ...] | None, column: Array | None, n: int, names: tuple[str, str]) -> Array:
    """The listed value of each row, or the column with that role. Raises ValueError unless exactly one is given."""
    field, role = names
    if listed is None and column is None:
        raise ValueError(f"give {field} here, or name a column in the field {role} of the data")
    if listed is not None and column is not None:
        raise ValueError(f"{field} is given here and {role} in the data; leave one of them out")
    if listed is not None and len(listed) != n:
        raise ValueError(f"{field} has {len(listed)} entries, and the data has {n} rows")
    if listed is None:
        return np.asarray(column)
    return np.array(listed, np.int64 if max(listed) < 2**63 else object)  # never as floats, which merge integers
