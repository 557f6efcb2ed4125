"""The conditions of `where` in the values that a dataset stores: positions of texts, days of dates, numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np

from worker.contract.data import RowRange
from worker.contract.dataset import Column, ColumnType
from worker.contract.expansion import levels_of
from worker.contract.faults import Fault, suggestion
from worker.core.durations import MICROSECONDS_PER_DAY
from worker.core.records import Array

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HALF_TICK = 0.5 / MICROSECONDS_PER_DAY  # days: moments closer than this are equal, since stored days are rounded
MOST_FAULTS = 5  # of one condition
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
Interval = tuple[float, float]
EVERY: Interval = (-np.inf, np.inf)


@dataclass(frozen=True, slots=True)
class Condition:
    """Rows whose stored value in a column lies in one of the intervals, ends included; with `negated` in none.

    The intervals ascend and do not overlap. A missing value meets no condition.
    """

    position: int
    intervals: tuple[Interval, ...]
    negated: bool = False

    @classmethod
    def of(cls, position: int, intervals: Sequence[Interval], *, negated: bool = False) -> Condition:
        """The condition; overlapping intervals are joined."""
        joined: list[Interval] = []
        for low, high in sorted(intervals):
            if joined and low <= joined[-1][1]:
                joined[-1] = joined[-1][0], max(high, joined[-1][1])
            else:
                joined.append((low, high))
        return cls(position, tuple(joined), negated)

    def met_by(self, values: Array) -> Array:
        """Which of the values meet the condition."""
        low, high = np.array(self.intervals).T
        place = np.maximum(np.searchsorted(low, values, side="right") - 1, 0)
        inside: Array = (low[place] <= values) & (values <= high[place])
        return ~inside & ~np.isnan(values) if self.negated else inside

    def may_be_met(self, low: float, high: float) -> bool:
        """Whether a value between `low` and `high` can meet it."""
        if self.negated:
            return not any(begin <= low and high <= end for begin, end in self.intervals)
        return any(begin <= high and low <= end for begin, end in self.intervals)


def conditions(
    item: RowRange, place: str, position: int, column: Column | None, *, suggest: bool = True
) -> list[Condition] | list[Fault]:
    """The conditions of one item of `where` on the column at this position, or its faults.

    `column` is None for a sparse column, which has no record. `place` is the pointer of the item. With `suggest` the
    first fault names the nearest known text, which takes a while.
    """
    reader = _Reader.of(item.column, column)
    found: list[Fault] = []
    made: list[Condition] = []
    for name, given, negated in _parts(item):
        intervals: list[Interval] = []
        for at, value in given:
            if fault := reader.fault_of(value, f"{place}/{name}{at}", name, suggest=suggest and not found):
                found.append(fault)
                if len(found) == MOST_FAULTS:
                    return found
            else:
                intervals.append(reader.interval(value))
        if not found:
            made.append(_condition(name, position, intervals, negated=negated))
    if found:
        return found
    return made or [Condition(position, (EVERY,))]


def no_rows_fault(place: str, column: Column | None, wanted: Sequence[Condition]) -> Fault | None:
    """The fault of conditions on one column, if the record shows that no row meets them all; else None."""
    if column is None:
        return None
    levels, _ = levels_of(column)
    if levels:
        kept = np.logical_and.reduce([one.met_by(np.array(levels)) for one in wanted]).any()
    elif column.min is None or column.max is None:
        kept = column.type == "category" and column.distinct != 0
    else:
        kept = all(one.may_be_met(column.min, column.max) for one in wanted)
    if kept:
        return None
    text = f"No row is left: no value of column {column.name[:60]!r} meets the conditions"
    return Fault(place, "no_rows", f"{text}{_extent(column)}.")


def _extent(column: Column) -> str:
    if column.min is None or column.max is None:
        return ""
    if column.type == "date":
        return f"; its dates are from {_written(column.min)} to {_written(column.max)}"
    return f"; its values are from {column.min:g} to {column.max:g}"


def _written(days: float) -> str:
    try:
        return (EPOCH + timedelta(days=days)).date().isoformat()
    except OverflowError:
        return f"day {days:g}"


def _parts(item: RowRange) -> Iterator[tuple[str, list[tuple[str, float | str]], bool]]:
    """Each condition with its values; each value with the end of its pointer."""
    for name, value in (("min", item.min), ("max", item.max), ("equals", item.equals)):
        if value is not None:
            yield name, [("", value)], False
    for name, values in (("in", item.among), ("not_in", item.not_in)):
        if values is not None:
            yield name, [(f"/{i}", value) for i, value in enumerate(values)], name == "not_in"


def _condition(name: str, position: int, intervals: list[Interval], *, negated: bool) -> Condition:
    if name == "min":
        intervals = [(intervals[0][0], np.inf)]
    elif name == "max":
        intervals = [(-np.inf, intervals[0][1])]
    return Condition.of(position, intervals, negated=negated)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads values for one column. `codes` are those of a category; None for others, and for too many texts."""

    name: str
    kind: ColumnType
    codes: Mapping[str, int] | None

    @classmethod
    def of(cls, name: str, column: Column | None) -> _Reader:
        """The reader of a column; a sparse one has no record and holds numbers."""
        texts = column.categories if column else None
        codes = None if texts is None else {text: code for code, text in enumerate(texts)}
        return cls(name, column.type if column else "number", codes)

    def fault_of(self, value: float | str, pointer: str, condition: str, *, suggest: bool) -> Fault | None:
        """What is wrong with a value of a condition, or None."""
        shown = f"Column {self.name[:60]!r}"
        if self.kind == "category":
            return self._text_fault(value, pointer, condition, shown, suggest=suggest)
        if self.kind == "number" and isinstance(value, str):
            return Fault(pointer, "not_a_number", f"{shown} holds numbers; write a number here, without quotes.")
        if isinstance(value, str) and _day_interval(value) is None:
            text = f"{shown} holds dates; write one as in 2024-03-01 or 2024-03-01T12:00:00Z."
            return Fault(pointer, "not_a_date", text)
        return None

    def _text_fault(
        self, value: float | str, pointer: str, condition: str, shown: str, *, suggest: bool
    ) -> Fault | None:
        if condition in {"min", "max"}:
            text = f"{shown} holds texts, which {condition} cannot compare; list those you want in `equals` or `in`."
            return Fault(pointer, "not_a_number", text)
        if not isinstance(value, str):
            return Fault(pointer, "not_a_text", f'{shown} holds texts; write a text here, as in "{value:g}".')
        if self.codes is None:
            text = f"{shown} has more than 10,000 different texts, which rows cannot be chosen by."
            return Fault(pointer, "too_many_categories", text)
        if value not in self.codes:
            near = suggestion(value, list(self.codes)) if suggest else ""
            return Fault(pointer, "unknown_value", f"{shown} has no value {value[:60]!r}{near}.")
        return None

    def interval(self, value: float | str) -> Interval:
        """The interval of stored values that a value without faults stands for."""
        if not isinstance(value, str):
            return float(value), float(value)
        if self.codes is not None:
            code = float(self.codes[value])
            return code, code
        found = _day_interval(value)
        assert found is not None  # `fault_of` has looked
        return found


def _day_interval(text: str) -> Interval | None:
    """The first and the last moment of a date of ISO 8601, in days since 1970; None for other texts.

    A date without a time of day stands for the whole day.
    """
    try:
        if DAY.fullmatch(text):
            begin = date.fromisoformat(text).toordinal() - EPOCH.toordinal()
            return begin - HALF_TICK, begin + 1 - 2 * HALF_TICK
        if not DAY.match(text):
            return None
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    days = (moment - EPOCH) // timedelta(microseconds=1) / MICROSECONDS_PER_DAY
    return days - HALF_TICK, days + HALF_TICK
