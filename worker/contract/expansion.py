"""The features that one column of a dataset becomes: itself, one for each category, parts of a date."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from worker.contract.data import DatasetData, Day, Fill
from worker.contract.dataset import Column, SparseColumns
from worker.contract.faults import Fault
from worker.core.names import Numbered
from worker.core.records import Array
from worker.core.rows.tables import LARGEST_MAGNITUDE

CATEGORIES = {"month": range(1, 13), "weekday": range(1, 8), "hour": range(24)}
SMALLEST_MAGNITUDE = 1e-70  # of a column's largest value: products of the inverses of smaller squares overflow


@dataclass(frozen=True, slots=True)
class ColumnFeatures:
    """The features made of one column: the column itself, or one for each of its `levels` (values, with their `texts`).

    `position` counts the columns of the dataset from 0, the sparse ones last. `day` is the part of a date that is
    used. With `missing_feature` the last of the `names` is 1 if the value is missing, else 0. `fill` says what
    replaces a missing number.
    """

    column: str
    position: int
    names: tuple[str, ...]
    day: Day | None = None
    levels: tuple[float, ...] | None = None
    texts: tuple[str, ...] = ()
    fill: Fill | None = None
    missing_feature: bool = False

    def groups(self) -> list[tuple[str, tuple[str, ...]] | Numbered]:
        """The column with its features."""
        return [(self.column, self.names)]


@dataclass(frozen=True, slots=True, eq=False)
class SparseFeatures:
    """Sparse columns (q), each a feature of the same name. `columns` are their positions among sparse columns."""

    columns: range | Array
    names: Numbered | tuple[str, ...]

    @classmethod
    def of(cls, sparse: SparseColumns, columns: Array) -> SparseFeatures:
        """The features of some columns in this order."""
        first, last = int(columns[0]), int(columns[-1])
        begin = sparse.first
        if sparse.prefix[-1:].isdigit():  # which digits are the number cannot be seen in such a name
            return cls(columns, tuple(sparse.name(j) for j in columns.tolist()))
        if last - first + 1 == len(columns) and (np.diff(columns) == 1).all():
            return cls(range(first, last + 1), Numbered(sparse.prefix, range(begin + first, begin + last + 1)))
        numbers = columns.astype(np.int64) + begin if begin else columns
        return cls(columns, Numbered(sparse.prefix, numbers))

    def groups(self) -> list[tuple[str, tuple[str, ...]] | Numbered]:
        """Each column with its feature."""
        return [self.names] if isinstance(self.names, Numbered) else [(name, (name,)) for name in self.names]


Made = ColumnFeatures | SparseFeatures


def magnitude_fault(pointer: str, column: Column) -> Fault | None:
    """The fault of a column whose squares overflow, or are nearly zero although some values are not zero."""
    largest = max(abs(column.min or 0.0), abs(column.max or 0.0))
    if largest > LARGEST_MAGNITUDE:
        text = f"Column {column.name!r} has magnitudes above {LARGEST_MAGNITUDE:g}, which overflow; rescale it."
        return Fault(pointer, "too_large", text)
    if 0 < largest < SMALLEST_MAGNITUDE:
        limit = f"no magnitude above {SMALLEST_MAGNITUDE:g}, too little to compute with"
        return Fault(pointer, "too_small", f"Column {column.name!r} has {limit}; rescale it.")
    return None


def count_of_missing(column: Column) -> str:
    """A number of missing values in words, such as `3 missing values`."""
    return "one missing value" if column.missing == 1 else f"{column.missing} missing values"


def fill_for(data: DatasetData, name: str) -> Fill | None:
    """The rule for missing values of a column."""
    return data.missing.columns.get(name, data.missing.default) if data.missing else None


def features_of(
    data: DatasetData, column: Column, position: int, categorical: Collection[str]
) -> list[ColumnFeatures | Fault]:
    """The features of one dense column, or the fault of the column. `categorical`: numbers that are categories."""
    name = column.name
    if (fault := magnitude_fault("/data/features", column)) is not None:
        return [fault]
    fill = fill_for(data, name)
    if column.missing and fill is None and not data.where:
        remedy = "say in `missing` how to fill them, or leave the column or these rows out"
        return [Fault("/data/missing", "missing_values", f"Column {name!r} has {count_of_missing(column)}; {remedy}.")]
    fill = fill if column.missing else None
    if column.type == "date":
        return _dated(data, column, position, fill)
    if column.type == "category" or name in categorical:
        return [_category(column, position, missing=fill is not None)]
    indicator = fill is not None and fill.indicator
    return [
        ColumnFeatures(name, position, _named(name, (name,), missing=indicator), fill=fill, missing_feature=indicator)
    ]


def _named(name: str, made: Iterable[str], *, missing: bool) -> tuple[str, ...]:
    return (*made, f"{name} is missing") if missing else tuple(made)


def levels_of(column: Column) -> tuple[tuple[float, ...] | None, tuple[str, ...]]:
    """The stored values of a column of categories and their texts; None if there are too many."""
    if column.type == "category":
        texts = tuple(column.categories or ())
        return (None if column.categories is None else tuple(float(code) for code in range(len(texts)))), texts
    values = column.values
    if values is None and column.distinct == 2 and column.type == "number":  # a wide table may list no values
        values = [bound for bound in (column.min, column.max) if bound is not None]
    if values is None:
        return None, ()
    texts = tuple(f"{value:g}" if float(f"{value:g}") == value else repr(value) for value in values)
    return tuple(values), texts


def unlisted_values(column: Column, most: int) -> str | None:
    """A sentence with the remedy if the record does not list the few different values of a number; else None."""
    if column.type != "number" or column.values is not None or not 0 < (column.distinct or 0) <= most:
        return None
    return (
        f"Column {column.name[:60]!r} has {column.distinct} different values, which the record of this wide table does "
        "not list; delete the dataset and upload it again, with these values as texts or with fewer columns"
    )


def _category(column: Column, position: int, *, missing: bool) -> ColumnFeatures | Fault:
    name = column.name
    levels, texts = levels_of(column)
    if levels is None:
        if detail := unlisted_values(column, 100):
            return Fault("/data/features", "unlisted_values", f"{detail}.")
        most = "10,000 categories" if column.type == "category" else "100 different values"
        return Fault("/data/features", "too_many_categories", f"Column {name!r} has more than {most}; leave it out.")
    names = _named(name, (f"{name}={text}" for text in texts), missing=missing)
    return ColumnFeatures(name, position, names, None, levels, texts, None, missing)


def _dated(data: DatasetData, column: Column, position: int, fill: Fill | None) -> list[ColumnFeatures | Fault]:
    name = column.name
    if name not in data.dates:
        remedy = 'say what it becomes, as in {"dates": {"COLUMN": ["days", "month"]}}, or leave it out'
        return [Fault("/data/dates", "date", f"Column {name!r} holds dates: {remedy}.")]
    made: list[ColumnFeatures | Fault] = []
    for day in dict.fromkeys(data.dates[name]):
        own, missing = f"{name}[{day}]", fill is not None
        if day in CATEGORIES:
            levels = CATEGORIES[day]
            names = _named(own, (f"{own}={level}" for level in levels), missing=missing)
            numbers, texts = tuple(map(float, levels)), tuple(map(str, levels))
            made.append(ColumnFeatures(name, position, names, day, numbers, texts, None, missing))
        else:
            indicator = fill is not None and fill.indicator
            names = _named(own, (own,), missing=indicator)
            made.append(ColumnFeatures(name, position, names, day, fill=fill, missing_feature=indicator))
    return made
