"""Resampled selection criteria: train on some rows, score on others.

`J = (sum over splits and validation rows of the loss) / (number of validation rows, summed over splits)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt, Le, Lt, MinLen

from worker.core.hypergradient import ExactHypergradient
from worker.core.objective import Objective
from worker.core.records import Array, Partition, Problem
from worker.core.training import Training

MOST_FOLDS = 1000  # the splits list their folds, so memory grows with the square

Seed = Annotated[int, Ge(0), Lt(2**63)]
Row = Annotated[int, Ge(0), Lt(2**53)]
Group = Annotated[int, Ge(-(2**62)), Lt(2**62)]
Fold = Annotated[int, Ge(0), Lt(MOST_FOLDS)]


@dataclass(frozen=True, slots=True)
class _Resampled:
    ordered: ClassVar[bool] = False  # whether the order of the rows means something
    closed_form: ClassVar[bool] = False  # whether one fit on all rows is scored by its residuals and leverages

    def objective(
        self, problem: Problem, partition: Partition, training: Training, hypergradient: ExactHypergradient
    ) -> Objective:
        """The outer objective: the mean loss over all validation rows, pooled over the splits."""
        systems = training.systems(problem, partition)
        return Objective(systems, training.hyperparameters(problem.features), hypergradient)


@dataclass(frozen=True, slots=True)
class KFold(_Resampled):
    """K-fold cross-validation: each fold is scored by a model trained on the others.

    Folds differ in size by at most one row. With `shuffle` false they are consecutive rows.
    """

    folds: Annotated[int, Ge(2), Le(MOST_FOLDS)] = 5
    seed: Seed = 0
    shuffle: bool = True
    loss: Literal["squared_error"] = "squared_error"
    kind: Literal["k_fold"] = "k_fold"

    def partition(self, rows: Array, n: int) -> Partition:
        """Folds of the usable `rows` of a table of `n` rows. Raises ValueError when there are more folds than rows."""
        if self.folds > len(rows):
            raise ValueError(f"{self.folds} folds need at least {self.folds} rows, and there are {len(rows)}")
        order = np.random.default_rng(self.seed).permutation(rows) if self.shuffle else rows
        block_of_row = np.full(n, -1)
        for fold, members in enumerate(np.array_split(order, self.folds)):
            block_of_row[members] = fold
        return Partition(block_of_row, _each_against_the_rest(self.folds))


@dataclass(frozen=True, slots=True)
class Holdout(_Resampled):
    """One split: a random `fraction` of the rows, or the rows listed in `validation_rows`, scores the model."""

    fraction: Annotated[float, Gt(0), Lt(1)] = 0.2
    validation_rows: Annotated[tuple[Row, ...], MinLen(1)] | None = None
    seed: Seed = 0
    loss: Literal["squared_error"] = "squared_error"
    kind: Literal["holdout"] = "holdout"

    def partition(self, rows: Array, n: int) -> Partition:
        """Training rows are block 0, validation rows block 1. Raises ValueError when either would be empty."""
        block_of_row = np.full(n, -1)
        block_of_row[rows] = 0
        block_of_row[self._validation(rows, n)] = 1
        if not (block_of_row == 0).any():
            raise ValueError("no row is left to train on; hold out fewer rows")
        return Partition(block_of_row, (((0,), (1,)),))

    def _validation(self, rows: Array, n: int) -> Array:
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
class GivenFolds(_Resampled):
    """Cross-validation with folds that the caller assigns: `fold_of_row[i]` is the fold of row i, counted from 0."""

    fold_of_row: Annotated[tuple[Fold, ...], MinLen(2)]
    loss: Literal["squared_error"] = "squared_error"
    kind: Literal["given_folds"] = "given_folds"

    def partition(self, rows: Array, n: int) -> Partition:
        """The caller's folds, less rows that are not usable. Raises ValueError on a wrong length or an empty fold."""
        if len(self.fold_of_row) != n:
            raise ValueError(f"fold_of_row has {len(self.fold_of_row)} entries, and the data has {n} rows")
        given = np.array(self.fold_of_row)
        block_of_row = np.full(n, -1)
        block_of_row[rows] = given[rows]
        folds = int(given.max()) + 1
        if folds < 2:
            raise ValueError("fold_of_row puts every row into one fold; at least two folds are needed")
        if len(empty := np.setdiff1d(np.arange(folds), block_of_row)):
            raise ValueError(f"fold {empty[0]} has no rows; number the folds 0, 1, 2, ... without gaps")
        return Partition(block_of_row, _each_against_the_rest(folds))


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupKFold(_Resampled):
    """K-fold cross-validation that keeps groups together: rows with the same `group_of_row` share a fold.

    Groups are dealt to the folds largest first, each to the fold with the fewest rows so far.
    """

    group_of_row: Annotated[tuple[Group, ...], MinLen(2)]
    folds: Annotated[int, Ge(2)] = 5
    seed: Seed = 0
    loss: Literal["squared_error"] = "squared_error"
    kind: Literal["group_k_fold"] = "group_k_fold"

    def partition(self, rows: Array, n: int) -> Partition:
        """Folds of whole groups. Raises ValueError on a wrong length or more folds than groups."""
        if len(self.group_of_row) != n:
            raise ValueError(f"group_of_row has {len(self.group_of_row)} entries, and the data has {n} rows")
        groups, index, sizes = np.unique(np.array(self.group_of_row)[rows], return_inverse=True, return_counts=True)
        if self.folds > len(groups):
            raise ValueError(f"{self.folds} folds need at least {self.folds} groups, and there are {len(groups)}")
        order = np.random.default_rng(self.seed).permutation(len(groups))  # ties are broken at random
        fold_of_group, filled = np.empty(len(groups), int), np.zeros(self.folds, int)
        for group in order[np.argsort(-sizes[order], kind="stable")]:
            fold_of_group[group] = np.argmin(filled)
            filled[fold_of_group[group]] += sizes[group]
        block_of_row = np.full(n, -1)
        block_of_row[rows] = fold_of_group[index]
        return Partition(block_of_row, _each_against_the_rest(self.folds))


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkForward(_Resampled):
    """Sequential validation for time series: train on the past, score the next rows, move on (Bengio 2000, section 5).

    Rows are in the order of time. The first origin comes after `initial` rows, the next ones every `step` rows; at
    each, rows before the origin train (all of them, or the last `window`), `gap` rows are left out, and the next
    `horizon` rows are scored. `step` defaults to `horizon`, so that every later row is scored once. An untouched test
    part is the end of the series.
    """

    initial: Annotated[int, Ge(2)]
    horizon: Annotated[int, Ge(1)] = 1
    step: Annotated[int, Ge(1)] | None = None
    gap: Annotated[int, Ge(0)] = 0
    window: Annotated[int, Ge(2)] | None = None
    loss: Literal["squared_error"] = "squared_error"
    kind: Literal["walk_forward"] = "walk_forward"
    ordered: ClassVar[bool] = True

    def partition(self, rows: Array, n: int) -> Partition:
        """Blocks of consecutive rows, cut at every border. Raises ValueError when nothing is left to score."""
        m = len(rows)
        if self.initial + self.gap >= m:
            raise ValueError(f"initial {self.initial} and gap {self.gap} leave none of the {m} rows to score")
        origins = range(self.initial, m - self.gap, self.step or self.horizon)
        if len(origins) > MOST_FOLDS:
            raise ValueError(f"{len(origins)} origins are more than {MOST_FOLDS}; raise horizon or step")
        spans = [
            (
                0 if self.window is None else max(0, o - self.window),
                o,
                o + self.gap,
                min(m, o + self.gap + self.horizon),
            )
            for o in origins
        ]
        cuts = np.unique([border for span in spans for border in span])
        block_of_row = np.full(n, -1)
        block_of_row[rows] = np.searchsorted(cuts, np.arange(m), side="right") - 1
        block_of_row[rows[cuts[-1] :]] = -1
        place = {int(cut): block for block, cut in enumerate(cuts)}
        splits = tuple(
            (tuple(range(place[begin], place[origin])), tuple(range(place[first], place[last])))
            for begin, origin, first, last in spans
        )
        return Partition(block_of_row, splits)


def _each_against_the_rest(folds: int) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    everything = range(folds)
    return tuple((tuple(f for f in everything if f != fold), (fold,)) for fold in everything)
