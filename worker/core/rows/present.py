"""Rows of weight 0 are left out before anything else, so that nothing after this has to know about them.

A row that neither trains nor is scored is absent. One of weight 0 with a positive scoring weight is scored only: it
stays, and no statistic of training takes it into account.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from worker.core.records import Array
from worker.core.rows.problem import Problem
from worker.core.rows.tables import Table, consecutive


@dataclass(frozen=True, slots=True)
class SomeRows:
    """The rows of the table X with the ascending indices `chosen`."""

    X: Table
    chosen: Int[Array, " m"]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.chosen), self.X.shape[1]

    def __getitem__(self, rows: slice | Int[Array, " c"]) -> Float[Array, "c p"]:
        """Some of these rows; consecutive ones are read as a slice."""
        chosen = self.chosen[rows]
        return self.X[consecutive(chosen) or chosen]


def present_rows(problem: Problem) -> Int[Array, " m"]:
    """The rows with a positive training or scoring weight, ascending."""
    n = len(problem.y)
    if problem.weights is None:
        return np.arange(n)
    counts = problem.weights > 0 if problem.scoring is None else (problem.weights > 0) | (problem.scoring > 0)
    return np.flatnonzero(counts)


def restricted(problem: Problem, rows: Int[Array, " m"]) -> Problem:
    """The problem of these rows alone, ascending."""
    n, X = len(problem.y), problem.X
    if len(rows) == n:
        return problem

    def of(values: Array | None) -> Array | None:
        return None if values is None else np.asarray(values)[rows]

    table = X[rows] if isinstance(X, csr_array | np.ndarray) else SomeRows(X, rows)
    return replace(
        problem,
        X=table,
        y=np.asarray(problem.y)[rows],
        time=of(problem.time),
        weights=of(problem.weights),
        source=of(problem.source),
        groups=of(problem.groups),
        fold=of(problem.fold),
        scoring=of(problem.scoring),
        offset=of(problem.offset),
    )
