"""Remarks about splits: groups that they tear apart, and what the selection criterion says of its own splits."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem
from worker.core.selection import Selection

GROUPS_APART = (
    "Rows of one group {} on both sides of a split, since {} does not keep groups together: where such rows are alike, "
    "the value of the selection criterion is too good for new groups; {} keeps them together."
)


def groups_apart(selection: Selection, *, classes: bool, certain: bool) -> str:
    """The remark that splits tear groups apart, or unless `certain` may do so."""
    together = "stratified_group_k_fold or group_k_fold" if classes else "group_k_fold"
    return GROUPS_APART.format("are" if certain else "may be", selection.kind, together)


def split_remarks(
    selection: Selection, problem: Problem, rows: Int[Array, " m"], partition: Partition
) -> tuple[str, ...]:
    """What the splits of these rows should be known for."""
    own = selection.split_remarks(problem, rows, partition)
    if problem.groups is None or selection.keeps_groups or not _tears_groups(selection, problem, rows, partition):
        return own
    return (groups_apart(selection, classes=bool(problem.classes), certain=True), *own)


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
