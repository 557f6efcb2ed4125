"""Cells of a dataset next to what the writer's own reader says of the same file."""

from __future__ import annotations

import datetime as dt
import decimal
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from worker.datasets import Table

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MICROSECOND = 1e-6 / 86_400  # days: what float64 holds of today's dates, about
Own = Mapping[str, Sequence[Any]]


def cells(table: Table, j: int) -> list[float | str | None]:
    """A column: numbers, texts of categories, days since 1970 of dates; None for what is missing."""
    column, values = table.dataset.columns[j], np.asarray(table.dense[:, j]).tolist()
    texts = column.categories
    if column.type == "category":
        assert texts is not None
        return [None if math.isnan(value) else texts[int(value)] for value in values]
    return [None if math.isnan(value) else value for value in values]


def missing(value: Any) -> bool:
    """Whether a value is None, NaN, NaT or NA."""
    return (
        value is None
        or type(value).__name__ in {"NAType", "NaTType"}
        or (isinstance(value, float) and math.isnan(value))
    )


def days(value: dt.date | np.datetime64) -> float:
    """Days since 1970-01-01, UTC for what has no zone."""
    if isinstance(value, np.datetime64):
        return float(value.astype("M8[ns]").astype(np.int64) / 86_400e9)
    if not isinstance(value, dt.datetime):
        return float((value - EPOCH.date()).days)
    return ((value if value.tzinfo else value.replace(tzinfo=dt.UTC)) - EPOCH) / dt.timedelta(days=1)


def agrees(cell: float | str | None, own: Any) -> bool:
    """Whether a cell is what the writer's own reader says."""
    if missing(own) or cell is None:
        return missing(own) and cell is None
    if isinstance(own, bool | np.bool_):
        return isinstance(cell, str) and cell.lower() == str(own).lower()
    if isinstance(own, dt.date | np.datetime64):
        return isinstance(cell, float) and abs(cell - days(own)) <= MICROSECOND
    if isinstance(own, decimal.Decimal):
        return isinstance(cell, float) and math.isclose(cell, float(own), rel_tol=3e-16)
    if isinstance(own, int | np.integer) and isinstance(cell, str):  # beyond 2^53: a category, exactly
        return abs(int(own)) > 2**53 and cell == str(own)
    return cell == (own if isinstance(own, str) else float(own))


def same(table: Table, own: Own, *, empty: bool = True) -> None:
    """Assert that all cells agree. `empty`: whether the format tells an empty text from a missing one."""
    names = [column.name for column in table.dataset.columns]
    assert names == list(own), set(names) ^ set(own)
    for j, (name, values) in enumerate(own.items()):
        read = cells(table, j)
        assert len(read) == len(values), name
        for i, (cell, value) in enumerate(zip(read, values, strict=True)):
            expected = None if isinstance(value, str) and not (value or empty) else value
            assert agrees(cell, expected), f"{name!r}, row {i}: {cell!r}, and its writer reads {value!r}"
        if table.dataset.columns[j].type == "category":
            assert table.dataset.columns[j].distinct == len(set(read) - {None}), name
