"""What a caller should know about the columns of a table: constant ones and exact duplicates."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from worker.core.records import Array
from worker.core.rows.bases import unexpanded
from worker.core.rows.problem import Partition, Problem
from worker.core.rows.tables import CHUNK_VALUES, Table, rows_at_a_time, take

CONSTANT_TARGET = "The target is constant on the rows used: there is nothing to learn."
MOST = 20  # features named in messages of one sort


def observations(
    problem: Problem, rows: Int[Array, " m"], *, linear: bool = True, intercept: bool = True
) -> tuple[str, ...]:
    """What the caller should know about the columns: constant ones and exact duplicates, a few of them by name.

    A `linear` predictor has a coefficient and a penalty for each of them. Without an `intercept` it may need a constant
    one, unless that is zero.
    """
    of_constant = "its penalty has no effect" if linear else "it has no effect"
    of_twin = ": the data determine the sum of their coefficients alone" if linear else ""
    constant, twins = _constant_and_twins(unexpanded(problem.X), rows)
    if linear and not intercept:
        values = np.asarray(_dense(take(unexpanded(problem.X), rows[:1])))[0]
        constant = constant[values[constant] == 0]
    names = problem.features
    alone = [f"Feature {names[j]!r} is constant on the rows used; {of_constant}." for j in constant]
    shared = [f"Feature {names[j]!r} equals {names[twin]!r}{of_twin}." for j, twin in twins]
    target = (CONSTANT_TARGET,) if _is_constant(problem, rows) else ()
    return (*target, *_few(alone, "are constant as well"), *_few(shared, "equal others as well"))


def _dense(part: Any) -> Array:
    return part.toarray() if isinstance(part, csr_array) else part


def few_rows(problem: Problem, partition: Partition) -> tuple[str, ...]:
    """Whether a split trains on fewer rows than there are features."""
    sizes = np.bincount(partition.block_of_row[partition.block_of_row >= 0], minlength=partition.blocks)
    least = min(int(sizes[list(train)].sum()) for train, _ in partition.splits)
    p = problem.X.shape[1]
    if least >= p:
        return ()
    rows = f"{least} row{'s' if least != 1 else ''}"
    return (f"A split trains on {rows}, fewer than the {p} features: the penalty alone makes its fit unique.",)


def _is_constant(problem: Problem, rows: Int[Array, " m"]) -> bool:
    return len(rows) > 0 and bool((problem.y[rows] == problem.y[rows[0]]).all())


def _few(messages: list[str], rest: str) -> list[str]:
    more = len(messages) - MOST
    return messages if more <= 0 else [*messages[:MOST], f"{more} more features {rest}."]


def _constant_and_twins(X: Table | csr_array, rows: Int[Array, " m"]) -> tuple[Int[Array, " c"], list[tuple[int, int]]]:
    """Columns that are constant, and pairs of another column with the first one that equals it."""
    p = X.shape[1]
    low, high = np.full(p, np.inf), np.full(p, -np.inf)
    alike = np.zeros(p, int)  # the class of each column: those that are equal so far
    size = rows_at_a_time(X, CHUNK_VALUES)
    for begin in range(0, len(rows), size):
        part = take(X, rows[begin : begin + size])
        low, high = np.minimum(low, _column_wise(part, "min")), np.maximum(high, _column_wise(part, "max"))
        alike = _refined(alike, part)
    varies = low < high
    first: dict[int, int] = {}
    pairs = [(int(j), first.setdefault(int(alike[j]), int(j))) for j in np.flatnonzero(varies)]
    return np.flatnonzero(~varies), [(j, twin) for j, twin in pairs if j != twin]


def _column_wise(part: Any, statistic: Literal["min", "max"]) -> Float[Array, " p"]:
    values = getattr(part, statistic)(axis=0)
    return values.toarray().ravel() if isinstance(part, csr_array) else values


def _refined(alike: Int[Array, " p"], part: Any) -> Int[Array, " p"]:
    """Classes of columns that are equal in these rows too; a column alone in its class stays alone."""
    members = np.bincount(alike)[alike]
    classes: dict[tuple[int, bytes, bytes], int] = {}
    refined = np.empty(len(alike), int)
    sparse = isinstance(part, csr_array)
    columns = part.tocsc() if sparse else part
    for j, one in enumerate(alike):
        if members[j] == 1:
            key = (int(one), b"", b"")
        elif sparse:
            span = slice(columns.indptr[j], columns.indptr[j + 1])
            key = (int(one), columns.indices[span].tobytes(), columns.data[span].tobytes())
        else:
            key = (int(one), b"", columns[:, j].tobytes())
        refined[j] = classes.setdefault(key, len(classes))
    return refined
