"""Which rows depend on each other: the labels of clusters for standard errors and intervals."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Shaped

from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem
from worker.core.rows.time_order import in_order, run_starts
from worker.core.selection.selection_criterion import SelectionCriterion


def clusters_of(
    selection: SelectionCriterion, problem: Problem, partition: Partition, rows: Int[Array, " m"]
) -> Int[Array, " m"]:
    """The cluster of each of the given rows, which may come more than once."""
    return selection.clusters(problem, partition)[rows]


def by_group(problem: Problem) -> Int[Array, " n"]:
    """The group of each row of the problem; each row by itself if the data have no groups.

    A row that is scored in several splits is one cluster in any case.
    """
    return np.arange(len(problem.y)) if problem.groups is None else numbered(problem.groups)


def numbered(labels: Shaped[Array, " n"]) -> Int[Array, " n"]:
    """Labels of any kind, as numbers from 0."""
    return np.unique(labels, return_inverse=True)[1].reshape(-1)


def by_block(partition: Partition, clock: Shaped[Array, " n"]) -> Int[Array, " n"]:
    """The block of consecutive rows that each row is in; `clock` is the time of all rows.

    The scored rows of a split are a block. Where splits overlap, so that a row is scored more than once, the blocks are
    those of the first split, of the first one after it that shares no row with it, and so on. Rows that are in none of
    these follow in blocks of their median length; what is left of a stretch belongs to the block before it. Rows of
    equal time are in one block.
    """
    order, clock = in_order(np.arange(len(clock)), clock)
    place = np.empty(len(order), int)
    place[order] = np.arange(len(order))
    scored = (place[partition.rows(validation)] for _, validation in partition.splits)
    spans, end = [], 0
    for low, high in sorted((int(rows.min()), int(rows.max()) + 1) for rows in scored):
        if low >= end:
            spans.append((low, high))
            end = high
    typical = int(np.median([high - low for low, high in spans]))
    borders, end = [np.zeros(1, int)], 0
    for low, high in [*spans, (len(order), len(order))]:
        borders += [end + typical * np.arange((low - end) // typical), np.array([low])]
        end = high
    runs, cuts = run_starts(clock), np.concatenate(borders)
    starts = np.unique(runs[np.searchsorted(runs, cuts[cuts < len(order)], side="right") - 1])
    labels = np.empty(len(order), int)
    labels[order] = np.searchsorted(starts, np.arange(len(order)), side="right") - 1
    return labels
