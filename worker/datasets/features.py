"""From the columns of a dataset to the table of a job: rows are expanded when they are read, never all at once."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from worker.contract.columns import Selected
from worker.contract.data import WEIGHTS, Day
from worker.contract.expansion import ColumnFeatures, Made, SparseFeatures
from worker.core.rows.problem import Imputation, Problem
from worker.datasets.table import Table

CHUNK = 65_536  # rows whose single values are looked at together

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Rows = slice | Indices


class UnusableError(ValueError):
    """The values of the dataset do not fit what the job says about them; the message names row and column."""


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """The features of a job (n x p) as `worker.core` reads them. `rows` are those of the dataset that are used."""

    table: Table
    made: tuple[Made, ...]
    rows: Indices | None
    shape: tuple[int, int]

    def __getitem__(self, rows: Rows) -> Floats:
        """The features of some rows, missing numbers as NaN."""
        chosen = rows if self.rows is None else self.rows[rows]
        dense = np.asarray(self.table.dense[chosen])
        columns = _dense_ones(self.made)
        copied = [one for one in columns if one.levels is None and one.day is None and not one.missing_feature]
        if len(copied) < len(self.made):
            values = {one.position: dense[:, one.position] for one in columns}
            features = self._expanded(chosen, len(dense), values)
        else:
            features = _columns(dense, np.array([one.position for one in copied]))
        release(self.table.dense)
        return features

    def _expanded(self, chosen: Rows, m: int, values: dict[int, Floats]) -> Floats:
        features = np.empty((m, self.shape[1]))
        entries = None if self.table.sparse is None else self.table.sparse[chosen]
        begin = 0
        for one in self.made:
            part = features[:, begin : begin + len(one.names)]
            if isinstance(one, SparseFeatures):
                assert entries is not None
                part[:] = _sparse_columns(entries, one.columns).toarray()
            else:
                _make(one, values[one.position], part)
            begin += len(one.names)
        return features


def _dense_ones(made: tuple[Made, ...]) -> list[ColumnFeatures]:
    return [one for one in made if isinstance(one, ColumnFeatures)]


def _sparse_columns(entries: sparse.csr_array, columns: range | Indices) -> sparse.csr_array:
    """Some columns; neighbours as a slice, which is faster."""
    if isinstance(columns, range):
        return entries[:, columns.start : columns.stop]
    return entries[:, columns]


def _columns(dense: Floats, positions: Indices) -> Floats:
    """A copy of some columns; neighbours are copied as a slice, which is faster."""
    first, last = int(positions[0]), int(positions[-1])
    if len(positions) == last - first + 1 and (np.diff(positions) == 1).all():
        return np.array(dense[:, first : last + 1], order="C")
    return np.ascontiguousarray(dense[:, positions])


def _make(one: ColumnFeatures, values: Floats, out: Floats) -> None:
    """Write the features of one column."""
    missing = np.isnan(values)
    if one.day is not None:
        values = _part_of_date(values, missing, one.day)
    if one.levels is None:
        out[:, 0] = values
    else:
        out[:, : len(one.levels)] = values[:, None] == np.array(one.levels)
    if one.missing_feature:
        out[:, -1] = missing


def _part_of_date(days: Floats, missing: npt.NDArray[np.bool_], day: Day) -> Floats:
    """A part of dates in days since 1970-01-01: of the week from Monday = 1 on, months and days from 1 on."""
    if day == "days":
        return days
    known = np.where(missing, 0.0, days)
    whole = np.floor(known)
    date = whole.astype("datetime64[D]")
    year, month = date.astype("datetime64[Y]"), date.astype("datetime64[M]")
    parts: dict[Day, Callable[[], Any]] = {
        "year": lambda: year.astype(int) + 1970,
        "month": lambda: month.astype(int) - year.astype("datetime64[M]").astype(int) + 1,
        "day": lambda: (date - month.astype("datetime64[D]")).astype(int) + 1,
        "day_of_year": lambda: (date - year.astype("datetime64[D]")).astype(int) + 1,
        "weekday": lambda: (whole + 3) % 7 + 1,
        "hour": lambda: np.floor((known - whole) * 24 + 1e-6),
    }
    return np.where(missing, np.nan, parts[day]())


def release(array: npt.NDArray[np.generic]) -> None:
    """Let go of the mapped pages that were read: they stay in the page cache and leave this process's memory."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def problem_of(table: Table, selected: Selected) -> Problem:
    """The problem of a job on a dataset. Raises UnusableError."""
    rows = _used_rows(table, selected)
    n = selected.rows if rows is None else len(rows)
    if n < 2:
        raise UnusableError(f"At least 2 rows are needed, and {n} meet the conditions of `where`.")
    weights = [_vector(table, selected.roles[role], rows) for role in WEIGHTS if role in selected.roles]
    kept = np.flatnonzero(np.any(weights, axis=0)) if "weights" in selected.roles else np.arange(n)
    if len(kept) < 2:
        raise UnusableError(f"At least 2 rows are needed, and {len(kept)} of those used have a weight above 0.")
    _require_present(table, selected, rows, kept)
    vectors: dict[str, Any] = {role: _vector(table, position, rows) for role, position in selected.roles.items()}
    codes: dict[str, Any] = {}
    if "groups" in vectors:
        codes["groups"] = np.unique(vectors.pop("groups"), return_inverse=True)[1]
    if "source" in vectors:
        known = np.searchsorted(np.array(selected.source_levels), vectors.pop("source"))
        codes["source"] = np.minimum(known, len(selected.source_names) - 1)  # a row left out may have none
        codes["source_names"] = selected.source_names
    if "fold" in vectors:
        codes["fold"] = _folds(vectors.pop("fold"), kept)
    features = selected.features
    table_of_features = (
        FeatureTable(table, selected.made, rows, (n, len(features)))
        if selected.dense
        else _sparse(table, selected, rows)
    )
    y = _vector(table, selected.target, rows)
    names: tuple[str, ...] = ()
    if selected.classes.names:
        y, names = _codes_of_classes(y, kept, selected)
    return Problem(
        table_of_features, y, features, _imputation(selected), classes=names,
        time_in_days=selected.dates is not None, **codes, **vectors,
    )  # fmt: skip


def _codes_of_classes(values: Floats, kept: Indices, selected: Selected) -> tuple[Floats, tuple[str, ...]]:
    """The number of the class of each row, and the classes: without those that only rows of weight 0 have.

    Raises UnusableError where a class has fewer rows than are needed.
    """
    classes = selected.classes
    all_codes = np.minimum(np.searchsorted(np.array(classes.levels), values), len(classes.names) - 1)
    every, rows = (np.bincount(codes, minlength=len(classes.names)) for codes in (all_codes, all_codes[kept]))
    counted = (rows > 0) | (every == 0)
    if rows[counted].min() < 2:
        alone = np.flatnonzero(counted)[np.argmin(rows[counted])]
        name, count = classes.names[alone][:60], int(rows[alone])
        raise UnusableError(
            f"Class {name!r} of the target has {count or 'no'} row{'' if count == 1 else 's'} among those used, and "
            "two are needed, one to train on and one to score; leave the class out or use more rows."
        )
    numbers = np.cumsum(counted) - 1.0
    return np.where(counted, numbers, 0.0)[all_codes], tuple(np.array(classes.names, object)[counted])


def _imputation(selected: Selected) -> Imputation | None:
    """How the core fills missing numbers: one entry for each feature that has any."""
    place, filled = 0, []
    for one in selected.made:
        if isinstance(one, ColumnFeatures) and one.fill is not None and one.levels is None:
            filled.append((place, one.fill))
        place += len(one.names)
    if not filled:
        return None
    return Imputation(
        np.array([at for at, _ in filled]),
        tuple(fill.fill for _, fill in filled),
        np.array([fill.value for _, fill in filled]),
    )


def _used_rows(table: Table, selected: Selected) -> Indices | None:
    """Rows in all ranges, None for all rows."""
    if not selected.where:
        return None
    kept = np.ones(selected.rows, bool)
    for condition in selected.where:
        kept &= condition.met_by(_vector(table, condition.position, None))
    return np.flatnonzero(kept)


def _vector(table: Table, position: int, rows: Indices | None) -> Floats:
    """One column, of the used rows."""
    width = table.dense.shape[1]
    if position >= width:
        assert table.sparse is not None
        column = np.asarray(table.sparse[:, [position - width]].toarray()[:, 0])
        return column if rows is None else column[rows]
    column = np.empty(len(table.dense))
    for begin in range(0, len(column), CHUNK):
        column[begin : begin + CHUNK] = table.dense[begin : begin + CHUNK, position]
        release(table.dense)
    return column if rows is None else column[rows]


def _require_present(table: Table, selected: Selected, rows: Indices | None, kept: Indices) -> None:
    """Refuse a missing value that nothing fills, in the rows that are `kept` among those used.

    Without ranges the record of the dataset has told already.
    """
    if rows is None:
        return
    for position in selected.complete:
        gone = np.isnan(_vector(table, position, rows)[kept])
        if gone.any():
            name, row = table.dataset.columns[position].name, int(rows[kept[np.argmax(gone)]])
            raise UnusableError(
                f"Row {row + 1}, column {name!r}: the value is missing; say in `missing` how to fill it, or leave the "
                "row out."
            )


def _folds(values: Floats, kept: Indices) -> npt.NDArray[np.int64]:
    folds = np.zeros(len(values), np.int64)
    folds[kept] = used = values[kept]
    if (folds[kept] != used).any():
        wrong = used[folds[kept] != used][0]
        raise UnusableError(f"The fold column holds {wrong:g}; folds are whole numbers from 0 on.")
    return folds


def _sparse(table: Table, selected: Selected, rows: Indices | None) -> sparse.csr_array:
    """The features as sparse rows, dense columns among them stored entry by entry."""
    assert table.sparse is not None
    entries = table.sparse
    dense = tuple(_dense_ones(selected.made))
    columns = np.concatenate([one.columns for one in selected.made if isinstance(one, SparseFeatures)])
    if len(columns) < entries.shape[1] or (columns != np.arange(len(columns))).any():
        entries = entries[:, columns]
    if rows is not None:
        entries = entries[rows]
    if not dense:
        return entries
    names = sum(len(one.names) for one in dense)
    expanded = FeatureTable(table, dense, rows, (entries.shape[0], names))
    pieces = [sparse.csr_array(expanded[begin : begin + CHUNK]) for begin in _starts(entries.shape[0])]
    joined = sparse.csr_array(sparse.hstack([sparse.vstack(pieces), entries], format="csr"))
    order = np.argsort(_order(selected), kind="stable")
    return joined if (order == np.arange(len(order))).all() else joined[:, order]


def _starts(n: int) -> range:
    return range(0, n, CHUNK)


def _order(selected: Selected) -> Indices:
    """The place in the job's features of each column of `[dense, sparse]`."""
    place = 0
    dense: list[Indices] = []
    rest: list[Indices] = []
    for one in selected.made:
        (dense if isinstance(one, ColumnFeatures) else rest).append(np.arange(place, place + len(one.names)))
        place += len(one.names)
    return np.concatenate(dense + rest)
