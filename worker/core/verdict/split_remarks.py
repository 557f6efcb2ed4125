"""Remarks about splits: groups that they tear apart, classes and runs of equal time that bind them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem
from worker.core.selection import Selection, StratifiedGroupKFold, WalkForward

GROUPS_APART = (
    "Rows of one group {} on both sides of a split, since {} does not keep groups together: where such rows are alike, "
    "the value of the selection criterion is too good for new groups; {} keeps them together."
)
CLASS_IN_FEW_GROUPS = (
    "Class {!r} has rows in {} of the groups, fewer than the {} folds, so that not every fold scores it; take fewer "
    "folds."
)
EQUAL_TIMES = (
    "Rows of equal time stay together, so that borders of walk_forward moved to the end of such rows: no row is scored "
    "by a model that was trained on rows of its own time."
)


def groups_apart(selection: Selection, *, classes: bool, certain: bool) -> str:
    """The remark that splits tear groups apart, or unless `certain` may do so."""
    together = "stratified_group_k_fold or group_k_fold" if classes else "group_k_fold"
    return GROUPS_APART.format("are" if certain else "may be", selection.kind, together)


def split_remarks(
    selection: Selection, problem: Problem, rows: Int[Array, " m"], partition: Partition
) -> tuple[str, ...]:
    """What the splits of these rows should be known for."""
    remarks: list[str] = []
    if problem.groups is not None and not selection.keeps_groups and _tears_groups(selection, problem, rows, partition):
        remarks.append(groups_apart(selection, classes=bool(problem.classes), certain=True))
    if isinstance(selection, StratifiedGroupKFold) and problem.groups is not None:
        remarks += _classes_in_few_groups(selection, problem, rows)
    if isinstance(selection, WalkForward) and problem.time is not None and not selection.durations:
        in_order = rows[np.argsort(problem.time[rows], kind="stable")]
        untied = selection.partition(np.arange(len(rows)), len(rows))
        if not np.array_equal(untied.block_of_row, partition.block_of_row[in_order]):
            remarks.append(EQUAL_TIMES)
    return tuple(remarks)


def _tears_groups(selection: Selection, problem: Problem, rows: Int[Array, " m"], partition: Partition) -> bool:
    """Whether rows of one group are trained on and scored in the same split."""
    assert problem.groups is not None
    used = rows[partition.block_of_row[rows] >= 0]
    groups, blocks = problem.groups[used], partition.block_of_row[used]
    if selection.closed_form:  # each row is left out by itself
        return len(np.unique(groups)) < len(groups)
    cells = np.unique(np.column_stack([groups, blocks]), axis=0)
    first = np.flatnonzero(np.append(True, cells[1:, 0] != cells[:-1, 0]))
    held = {frozenset(blocks.tolist()) for blocks in np.split(cells[:, 1], first[1:])}  # the blocks of each group
    return any(not held_by.isdisjoint(train) and not held_by.isdisjoint(scored)
               for train, scored in partition.splits for held_by in held)  # fmt: skip


def _classes_in_few_groups(selection: StratifiedGroupKFold, problem: Problem, rows: Int[Array, " m"]) -> list[str]:
    assert problem.groups is not None
    pairs = np.unique(np.column_stack([problem.y[rows].astype(int), problem.groups[rows]]), axis=0)
    counts = np.bincount(pairs[:, 0], minlength=len(problem.classes))
    return [
        CLASS_IN_FEW_GROUPS.format(name, count, selection.folds)
        for name, count in zip(problem.classes, counts, strict=True)
        if count < selection.folds
    ]
