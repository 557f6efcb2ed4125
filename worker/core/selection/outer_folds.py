"""Outer folds: how a cross-validation of the whole tuning cuts the rows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Int

from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem
from worker.core.rows.time_order import completed, in_order
from worker.core.selection.selection_criterion import RowsOfSplits

ROWS_ARE_LISTED = "nested cross-validation cuts the rows itself; use a selection that does not list rows"


def folds_at_random(rows: Int[Array, " m"], folds: int, seed: int) -> RowsOfSplits:
    """Random folds of nearly equal size, each scored after tuning on the others."""
    parts = np.array_split(np.random.default_rng([seed, 5]).permutation(rows), folds)
    return [(np.setdiff1d(rows, part), np.sort(part)) for part in parts]


def folds_in_time(rows: Int[Array, " m"], folds: int, problem: Problem) -> RowsOfSplits:
    """`folds + 1` nearly equal parts in the order of time; each after the first is scored after tuning on those before.

    Raises ValueError if a part would be empty, since rows of equal time stay together.
    """
    order, borders = _borders(rows, folds, problem)
    return [(np.sort(order[:begin]), np.sort(order[begin:end])) for begin, end in pairwise(borders)]


def rows_of_splits(partition: Partition) -> RowsOfSplits:
    """The rows of each split of a partition."""
    return [(partition.rows(train), partition.rows(scored)) for train, scored in partition.splits]


def _borders(rows: Int[Array, " m"], folds: int, problem: Problem) -> tuple[Int[Array, " m"], list[int]]:
    """The rows in the order of time, and the ends of the parts. Raises ValueError if a part would be empty."""
    ends = np.cumsum([len(part) for part in np.array_split(rows, folds + 1)])
    if problem.time is None:
        return rows, ends.tolist()
    order, clock = in_order(rows, problem.time[rows])
    borders = [completed(clock, int(end)) for end in ends]
    if len(set(borders)) < len(borders):
        raise ValueError(
            f"rows of equal time stay together, so that {folds} nested folds do not all get rows; use fewer"
        )
    return order, borders
