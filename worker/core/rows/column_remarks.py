"""Remarks for the user about a table: constant columns, exact duplicates, few rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem
from worker.core.rows.tables import CHUNK_VALUES, Table, rows_at_a_time, take

CONSTANT_TARGET = "The target is constant on the rows used: there is nothing to learn."
CROWDED = 0.9  # share of the values in one interval between knots from which on a remark tells
MAX_NAMED = 20  # features named in remarks of one kind; the others are counted


def observations(
    problem: Problem, rows: Int[Array, " m"], *, linear: bool = True, intercept: bool = True
) -> tuple[str, ...]:
    """Remarks about constant columns and exact duplicates; at most `MAX_NAMED` of each kind are named.

    A `linear` predictor has a coefficient and a penalty for each column. Without an `intercept` it may need a constant
    column, so only columns of zeros are reported as constant.
    """
    of_constant = "its penalty has no effect" if linear else "it has no effect"
    of_duplicate = ": the data determine the sum of their coefficients alone" if linear else ""
    constant, duplicates = _constant_and_duplicates(problem.columns, rows)
    if linear and not intercept:
        values = np.asarray(_dense(take(problem.columns, rows[:1])))[0]
        constant = constant[values[constant] == 0]
    names = problem.features
    constant_remarks = [f"Feature {names[j]!r} is constant on the rows used; {of_constant}." for j in constant]
    duplicate_remarks = [f"Feature {names[j]!r} equals {names[first]!r}{of_duplicate}." for j, first in duplicates]
    target = (CONSTANT_TARGET,) if _is_constant(problem, rows) else ()
    return (
        *target,
        *_shortened(constant_remarks, "are constant as well"),
        *_shortened(duplicate_remarks, "equal others as well"),
    )


def _dense(part: Any) -> Array:
    return part if isinstance(part, np.ndarray) else part.toarray()


def few_rows(problem: Problem, partition: Partition) -> tuple[str, ...]:
    """A remark if a split trains on fewer rows than there are features."""
    trained = problem.trained(np.flatnonzero(partition.block_of_row >= 0))
    sizes = np.bincount(partition.block_of_row[trained], minlength=partition.blocks)
    fewest = min(int(sizes[list(train)].sum()) for train, _ in partition.splits)
    p = problem.X.shape[1]
    if fewest >= p:
        return ()
    rows = f"{fewest} row{'s' if fewest != 1 else ''}"
    return (f"A split trains on {rows}, fewer than the {p} features: the penalty alone makes its fit unique.",)


def crowded(problem: Problem, rows: Int[Array, " m"]) -> tuple[str, ...]:
    """A remark for each spline between two of whose knots nearly all values lie, as when one value is far off.

    The columns are filled, and not yet replaced by the splines.
    """
    remarks, X = [], problem.X
    for basis in problem.expansion.bases if problem.expansion else ():
        (low, high), intervals = basis.range, len(basis.knots) - 1 - 2 * basis.degree
        counts, seen = np.zeros(intervals, int), [np.empty(0)] * intervals
        size = rows_at_a_time(X, CHUNK_VALUES)
        for begin in range(0, len(rows), size):
            x = take(X, rows[begin : begin + size])[:, basis.column]
            part = (x - low) % (high - low) if basis.cyclic else np.clip(x, low, high) - low
            place = np.minimum((part * (intervals / (high - low))).astype(int), intervals - 1)
            counts += np.bincount(place, minlength=intervals)
            most = int(np.argmax(counts))
            seen[most] = np.union1d(seen[most], x[place == most])[:2]
        most = int(np.argmax(counts))
        if counts[most] >= CROWDED * len(rows) and len(seen[most]) > 1:
            lie = (
                f"{counts[most]} of {len(rows)} values of feature {basis.feature!r} lie in one of {intervals} intervals"
            )
            reach = f"between the knots of its spline, which reach from {low:g} to {high:g}"
            remarks.append(f"{lie} {reach}: give lower and upper, the range in which the function is to bend.")
    return tuple(remarks)


def _is_constant(problem: Problem, rows: Int[Array, " m"]) -> bool:
    return len(rows) > 0 and bool((problem.y[rows] == problem.y[rows[0]]).all())


def _shortened(messages: list[str], rest: str) -> list[str]:
    more = len(messages) - MAX_NAMED
    return messages if more <= 0 else [*messages[:MAX_NAMED], f"{more} more features {rest}."]


def _constant_and_duplicates(
    X: Table | csr_array, rows: Int[Array, " m"]
) -> tuple[Int[Array, " c"], list[tuple[int, int]]]:
    """Constant columns, and pairs of another column with the first column that equals it."""
    p = X.shape[1]
    low, high = np.full(p, np.inf), np.full(p, -np.inf)
    class_of_column = np.zeros(p, int)  # columns of one class are equal so far
    size = rows_at_a_time(X, CHUNK_VALUES)
    for begin in range(0, len(rows), size):
        part = take(X, rows[begin : begin + size])
        low, high = np.minimum(low, _of_columns(part.min(axis=0))), np.maximum(high, _of_columns(part.max(axis=0)))
        class_of_column = _refined_classes(class_of_column, part)
    varies = low < high
    first: dict[int, int] = {}
    pairs = [(int(j), first.setdefault(int(class_of_column[j]), int(j))) for j in np.flatnonzero(varies)]
    return np.flatnonzero(~varies), [(j, original) for j, original in pairs if j != original]


def _of_columns(values: Any) -> Float[Array, " p"]:
    """A value of each column; sparse tables give them as a sparse row."""
    return np.ravel(_dense(values))


def _refined_classes(class_of_column: Int[Array, " p"], part: Any) -> Int[Array, " p"]:
    """Classes of columns that are also equal in these rows; a column alone in its class is not compared."""
    members = np.bincount(class_of_column)[class_of_column]
    new_classes: dict[tuple[int, bytes, bytes], int] = {}
    refined = np.empty(len(class_of_column), int)
    sparse = isinstance(part, csr_array)
    columns = part.tocsc() if sparse else part
    for j, old_class in enumerate(class_of_column):
        if members[j] == 1:
            key = (int(old_class), b"", b"")
        elif sparse:
            span = slice(columns.indptr[j], columns.indptr[j + 1])
            key = (int(old_class), columns.indices[span].tobytes(), columns.data[span].tobytes())
        else:
            key = (int(old_class), b"", columns[:, j].tobytes())
        refined[j] = new_classes.setdefault(key, len(new_classes))
    return refined
