"""Which columns of a dataset a job uses, and the features that they become: names, categories, dates, missing values.

This follows from the record of the dataset alone, so a spec is checked before any row is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

import numpy as np

from worker.contract.classes import Classes, column_classes
from worker.contract.conditions import Condition, conditions, no_rows_fault
from worker.contract.data import ROLES, WEIGHTS, AllBut, DatasetData
from worker.contract.dataset import DatasetBody, DatasetWarning
from worker.contract.expansion import (
    ColumnFeatures,
    Made,
    SparseFeatures,
    count_of_missing,
    features_of,
    fill_for,
    levels_of,
    magnitude_fault,
    unlisted_values,
)
from worker.contract.faults import MOST, Fault, pointer_of
from worker.contract.feature_columns import FeatureColumns
from worker.contract.named_columns import Names
from worker.contract.notes import warnings_about
from worker.contract.patterns import is_pattern, pattern_faults
from worker.core.records import Array
from worker.core.training import Training

MOST_LISTED = 100_000  # names and patterns of features
LARGEST_SPARSE_SHARE = 0.1  # of entries that are not zero; beyond it rows are made dense, since BLAS is faster


@dataclass(frozen=True)
class Selected:
    """What a job uses of a dataset: features in their order, positions of the target and the other roles.

    `complete` are the positions of columns that may have no missing value in the rows that are used. `folds` is the
    number of folds according to the record of the fold column, 0 without such a column. `filled` is about the share of
    the values of the features that is stored: 1 if rows are made dense. `distinct` is the number of different values
    of those features of which the record has it. `dates` are the first and the last day of a time column of dates.
    """

    rows: int
    made: tuple[Made, ...]
    target: int
    roles: Mapping[str, int]
    where: tuple[Condition, ...]
    source_names: tuple[str, ...]
    source_levels: tuple[float, ...]
    complete: tuple[int, ...]
    folds: int
    dense: bool
    classes: Classes
    filled: float = 1.0
    distinct: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[DatasetWarning, ...] = ()
    dates: tuple[float, float] | None = None

    @cached_property
    def features(self) -> Sequence[str]:
        """Names of all features."""
        return self.groups.features

    @cached_property
    def groups(self) -> FeatureColumns:
        """The features of each column."""
        return FeatureColumns(group for one in self.made for group in one.groups())


def select(data: DatasetData, dataset: DatasetBody, training: Training) -> Selected | list[Fault]:
    """What the names and patterns of a job mean in a dataset, or the faults of these names and patterns.

    The training criterion says whether the target is a class or a number.
    """
    names = Names(dataset)
    if found := list(islice(_unknown(data, names), MOST)):
        return found
    roles = {role: _place(names, getattr(data, role)) for role in ROLES if getattr(data, role) is not None}
    target = _place(names, data.target)
    index = {position for position, column in enumerate(dataset.columns) if column.index}
    positions, found = _feature_positions(data, names, sorted({target, *roles.values(), *index}))
    found += _role_faults(data, names, training)
    weights = names.column(roles["weights"]) if "weights" in roles else None
    some_left_out = "weights" in roles and (weights is None or not weights.min)
    where, wrong = _conditions(data, names)
    found += wrong
    classes: Classes | Fault = Classes()
    if training.classifies and not found:
        on_target = [one for one in where if one.position == target]
        classes = column_classes(training, data, names.column(target), on_target, some_left_out=some_left_out)
    if isinstance(classes, Fault):
        return [classes]
    if found or not len(positions):
        return found[:MOST] or [Fault("/data/features", "empty", "No column is left to be a feature.")]
    made, found = _made(data, names, positions)
    found += _clashes(made, names, positions)
    if found:
        return found[:MOST]
    dense = _is_dense(made, dataset)
    if not dense and any(isinstance(one, ColumnFeatures) and one.fill for one in made):
        return [Fault("/data/missing", "sparse", "Missing values are not filled in a table of sparse features.")]
    source = names.column(roles["source"]) if "source" in roles else None
    levels, texts = levels_of(source) if source else ((), ())
    complete = _complete(data, names, made, (target, *roles.values()))
    fold = names.column(roles["fold"]) if "fold" in roles else None
    folds = int((fold.max or 0.0) if fold else 0.0) + 1 if "fold" in roles else 0
    return Selected(
        dataset.rows, tuple(made), target, roles, tuple(where), texts, levels or (), complete, folds, dense, classes,
        1.0 if dense else _filled(made, dataset), _few_values(names, made), _warnings(data, dataset, made),
        _dates(names, roles),
    )  # fmt: skip


def _made(data: DatasetData, names: Names, positions: Array) -> tuple[list[Made], list[Fault]]:
    """The features of the columns at these positions: of dense ones one by one, of sparse neighbours together."""
    made: list[Made] = []
    found: list[Fault] = []
    categorical, width = frozenset(data.categorical), len(names.dense)
    is_sparse = positions >= width
    edges = np.flatnonzero(is_sparse[1:] != is_sparse[:-1]) + 1
    for begin, end in zip([0, *edges.tolist()], [*edges.tolist(), len(positions)], strict=True):
        if is_sparse[begin]:
            assert names.dataset.sparse is not None
            made.append(SparseFeatures.of(names.dataset.sparse, positions[begin:end] - width))
            continue
        for position in positions[begin:end].tolist():
            for one in features_of(data, names.dataset.columns[position], position, categorical):
                (found if isinstance(one, Fault) else made).append(one)  # type: ignore[arg-type]
    return made, found


def _dense_ones(made: Sequence[Made]) -> list[ColumnFeatures]:
    return [one for one in made if isinstance(one, ColumnFeatures)]


def _few_values(names: Names, made: Sequence[Made]) -> dict[str, int]:
    """The number of different values of each feature that is a number and has few of them."""
    numbers = [one for one in _dense_ones(made) if one.levels is None and one.day is None]
    columns = ((one.names[0], names.column(one.position)) for one in numbers)
    return {name: len(column.values) for name, column in columns if column is not None and column.values}


def _warnings(data: DatasetData, dataset: DatasetBody, made: Sequence[Made]) -> tuple[DatasetWarning, ...]:
    """The warnings of the upload that concern the columns in use. Sparse columns have none."""
    if not dataset.warnings:
        return ()
    roles = {getattr(data, role) for role in ("target", *ROLES)}
    used = {one.column for one in _dense_ones(made)} | roles | {item.column for item in data.where}
    return warnings_about(dataset.warnings, used)


def _conditions(data: DatasetData, names: Names) -> tuple[list[Condition], list[Fault]]:
    """The conditions of `where` and their faults. The last condition has the fault of conditions that leave no row."""
    made: dict[int, list[Condition]] = {}
    found: list[Fault] = []
    for i, item in enumerate(data.where):
        position, place = _place(names, item.column), f"/data/where/{i}"
        column = names.column(position)
        for one in conditions(item, place, position, column, suggest=not found):
            if isinstance(one, Fault):
                found.append(one)
            else:
                made.setdefault(position, []).append(one)
        if len(found) >= MOST:
            break
        if not found and (fault := no_rows_fault(place, column, made[position])):
            found.append(fault)
    return [one for same in made.values() for one in same], found


def _dates(names: Names, roles: Mapping[str, int]) -> tuple[float, float] | None:
    time = names.column(roles["time"]) if "time" in roles else None
    if time is None or time.type != "date" or time.min is None or time.max is None:
        return None
    return time.min, time.max


def _complete(data: DatasetData, names: Names, made: Sequence[Made], roles: tuple[int, ...]) -> tuple[int, ...]:
    """Positions of the columns that have missing values and no rule for them."""
    unfilled = [one.position for one in _dense_ones(made) if fill_for(data, one.column) is None]
    columns = ((position, names.column(position)) for position in dict.fromkeys([*roles, *unfilled]))
    return tuple(position for position, column in columns if column is not None and column.missing)


def _place(names: Names, name: str) -> int:
    position = names.position(name)
    assert position is not None  # _unknown has looked
    return position


def _unknown(data: DatasetData, names: Names) -> Iterator[Fault]:
    single = [(f"/data/{role}", getattr(data, role)) for role in ("target", *ROLES)]
    listed = [(f"/data/categorical/{i}", name) for i, name in enumerate(data.categorical)]
    listed += [(pointer_of(["data", "dates", name]), name) for name in data.dates]
    listed += [(f"/data/where/{i}/column", item.column) for i, item in enumerate(data.where)]
    if data.missing:
        listed += [(pointer_of(["data", "missing", "columns", name]), name) for name in data.missing.columns]
    for pointer, name in single + listed:
        if name is not None and names.position(name) is None:
            yield names.unknown(pointer, name)


def _feature_positions(data: DatasetData, names: Names, taken: list[int]) -> tuple[Array, list[Fault]]:
    """Positions of the columns that become features, each once; patterns leave out other roles and the index."""
    free = np.ones(len(names), bool)
    free[taken] = False
    if data.features is None:
        return _indices(free), []
    chosen, found = _Chosen(names), list[Fault]()
    for i, item in enumerate(data.features):
        if isinstance(item, AllBut):
            kept = free.copy()
            for k, name in enumerate(item.all_but):
                members = _members(names, name)
                if members is None and len(found) < MOST:
                    found.append(names.unknown(f"/data/features/{i}/all_but/{k}", name))
                elif members is None:
                    break
                else:
                    kept[members] = False
            chosen.add(kept)
        elif item == data.target:
            found.append(Fault(f"/data/features/{i}", "target", "The target cannot be a feature."))
        elif (columns := _members(names, item)) is None:
            found.append(names.unknown(f"/data/features/{i}", item))
        else:
            chosen.add(columns if isinstance(columns, int) else columns & free)
        if len(found) >= MOST:
            break
    return chosen.positions(), found


def too_many_patterns(data: DatasetData, dataset: DatasetBody) -> list[Fault]:
    """Faults of too many patterns of features, and of a pattern that is too long."""
    listed: list[tuple[str, str]] = []
    for i, item in enumerate(data.features or ()):
        if isinstance(item, AllBut):
            listed += [(f"{i}/all_but/{k}", name) for k, name in enumerate(item.all_but)]
        else:
            listed.append((str(i), item))
    if len(listed) > MOST_LISTED:
        text = (
            f"At most {MOST_LISTED} names are listed here, and these are {len(listed)}; choose neighbours by patterns."
        )
        return [Fault("/data/features", "too_many_names", text)]
    names = Names(dataset)
    patterns = [
        (f"/data/features/{place}", name) for place, name in listed if is_pattern(name) and names.position(name) is None
    ]
    return list(pattern_faults(patterns, names.texts)) if patterns else []


class _Chosen:
    """Columns in the order in which they are named, each once."""

    def __init__(self, names: Names) -> None:
        self._used = np.zeros(len(names), bool)
        self._parts: list[Array] = []
        self._single: list[int] = []

    def add(self, columns: int | Array) -> None:
        """Add a column, or those of a mask, which it takes over."""
        if isinstance(columns, int):
            if not self._used[columns]:
                self._used[columns] = True
                self._single.append(columns)
            return
        self._flush()
        columns &= ~self._used
        self._used |= columns
        self._parts.append(_indices(columns))

    def _flush(self) -> None:
        self._parts.append(np.array(self._single, np.int32))
        self._single = []

    def positions(self) -> Array:
        """Their positions."""
        self._flush()
        return np.concatenate(self._parts)


def _indices(mask: Array) -> Array:
    """The positions at which a mask is true. There are fewer than 2^31 columns."""
    return np.flatnonzero(mask).astype(np.int32)


def _members(names: Names, name: str) -> int | Array | None:
    """The position of a column, or a mask of the columns that match a pattern; None if there is no such column."""
    position = names.position(name)
    if position is not None or not is_pattern(name):
        return position
    members = names.matching(name)
    return members if members.any() else None


def _role_faults(data: DatasetData, names: Names, training: Training) -> Iterator[Fault]:
    """Faults of columns that cannot have their role."""
    for role in ("target", *ROLES):
        name = getattr(data, role)
        column = names.column(_place(names, name)) if name is not None else None
        if name is not None and column is None and role == "source":
            yield Fault("/data/source", "sparse", f"Column {name!r} is sparse; sources are texts or few numbers.")
        if column is None:
            continue
        pointer, shown = f"/data/{role}", f"Column {column.name!r}"
        of_texts = {"groups", "source", "target"} if training.classifies else {"groups", "source"}
        if role not in of_texts and column.type == "category":
            text = f"{shown} holds texts, and {role} takes numbers"
            text += " or dates (in ISO 8601, as 2021-03-31)" if role == "time" else ""
            text += "; logistic and multinomial predict classes" if role == "target" else ""
            reasons = "".join(
                f" {one.text}" for one in warnings_about(names.dataset.warnings, {column.name}) if one.column
            )
            yield Fault(pointer, "not_a_number", f"{text}.{reasons}")
        elif role in {"target", "fold", "offset", *WEIGHTS} and column.type == "date":
            yield Fault(pointer, "not_a_number", f"{shown} holds dates, and {role} takes numbers.")
        elif column.missing and not data.where:
            remedy = "leave these rows out: give the column in `where`, without bounds"
            yield Fault(pointer, "missing_values", f"{shown} has {count_of_missing(column)}; {remedy}.")
        elif (fault := magnitude_fault(pointer, column)) is not None and (
            role == "target" or fault.code == "too_large"
        ):
            yield fault
        elif role in WEIGHTS and (column.min or 0.0) < 0:
            yield Fault(pointer, "negative", f"{shown} has negative values, down to {column.min:g}.")
        elif role in WEIGHTS and not column.max:
            yield Fault(pointer, "all_zero", f"{shown} is zero in every row, so that no row counts.")
        elif role == "fold" and not 0 <= (column.min or 0.0) <= (column.max or 0.0) < 1000:
            yield Fault(pointer, "out_of_range", f"{shown} must hold folds from 0 to 999.")
        elif role == "source" and levels_of(column)[0] is None:
            text = unlisted_values(column, 100) or f"{shown} has too many different values to be sources"
            yield Fault(pointer, "too_many", f"{text}.")


def _clashes(made: Sequence[Made], names: Names, positions: Array) -> Iterator[Fault]:
    """Faults of two columns whose features have the same name. Sparse columns have different names."""
    first: dict[str, str] = {}
    sparse, used = names.dataset.sparse, np.zeros(len(names), bool)
    used[positions] = True
    for one in _dense_ones(made):
        for name in one.names:
            j = sparse.index(name) if sparse else None
            other = name if j is not None and used[len(names.dense) + j] else first.get(name)
            if other is not None:
                both = f"Columns {other!r} and {one.column!r} both give a feature {name!r}"
                yield Fault("/data/features", "duplicate", f"{both}; leave one of them out.")
                return
            first[name] = one.column


def _is_dense(made: Sequence[Made], dataset: DatasetBody) -> bool:
    """Whether rows are made dense: no feature is sparse, or dense arithmetic is faster."""
    sparse = dataset.sparse
    if sparse is None or all(isinstance(one, ColumnFeatures) for one in made):
        return True
    return sparse.nonzeros >= LARGEST_SPARSE_SHARE * dataset.rows * sparse.columns


def _filled(made: Sequence[Made], dataset: DatasetBody) -> float:
    """The share of the values of the features that is stored, if all sparse columns have equally many entries."""
    sparse = dataset.sparse
    assert sparse is not None
    dense = sum(len(one.names) for one in _dense_ones(made))
    features = sum(len(one.names) for one in made)
    return (dense + (features - dense) * sparse.nonzeros / (dataset.rows * sparse.columns)) / features
