"""Conditions of `where` on columns of numbers, texts and dates: which rows they keep, and what they refuse."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.contract.columns import Selected, select
from worker.contract.conditions import Condition, conditions
from worker.contract.data import DatasetData, RowRange
from worker.contract.dataset import Column, DatasetBody
from worker.contract.faults import Fault
from worker.core.training import LogisticRegression, Ridge

ID = "ds_" + "0" * 64
EMPTY: dict[str, Any] = {"missing": 0, "min": None, "max": None, "mean": None, "std": None, "categories": None}
DAY = (datetime(2024, 3, 1, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days
TOWN = Column(**{**EMPTY, "name": "town", "type": "category", "distinct": 3, "categories": ["7", "Bonn", "Kiel"]})
MANY = Column(**{**EMPTY, "name": "code", "type": "category", "distinct": 20_000})
AGE = Column(**{**EMPTY, "name": "age", "type": "number", "distinct": None, "min": 1.0, "max": 90.0})
FEW = Column(
    **{**EMPTY, "name": "few", "type": "number", "distinct": 3, "min": 0.0, "max": 4.0, "values": [0.0, 2.0, 4.0]}
)
SOLD = Column(**{**EMPTY, "name": "sold", "type": "date", "distinct": None, "min": DAY - 400.0, "max": DAY + 30.5})
Y = Column(**{**EMPTY, "name": "y", "type": "number", "distinct": 2, "min": 0.0, "max": 1.0, "values": None})
RECORD = DatasetBody(
    id=ID, format="csv", bytes=1, stored_bytes=1, sha256="0" * 64, rows=100, created_at=datetime.now(UTC),
    columns=[Y, TOWN, MANY, AGE, FEW, SOLD], sparse=None,
)  # fmt: skip


def read(**item: Any) -> RowRange:
    return RowRange.model_validate(item)


def made(column: Column | None, **item: Any) -> list[Condition]:
    found = conditions(read(column=column.name if column else "w1", **item), "/data/where/0", 3, column)
    assert all(isinstance(one, Condition) for one in found), found
    return [one for one in found if isinstance(one, Condition)]


def kept(column: Column | None, values: list[float], **item: Any) -> list[float]:
    array = np.array(values)
    return [float(v) for v in array[np.logical_and.reduce([one.met_by(array) for one in made(column, **item)])]]


def refused(column: Column, **item: Any) -> Fault:
    (found,) = conditions(read(column=column.name, **item), "/data/where/0", 0, column)
    assert isinstance(found, Fault)
    return found


def selected(where: list[dict[str, Any]], *, classes: bool = False, **data: Any) -> Selected | list[Fault]:
    spec = DatasetData.model_validate(
        {"dataset_id": ID, "target": "y", "features": ["age"], "where": where, **data}
    )  # fmt: skip
    return select(spec, RECORD, LogisticRegression() if classes else Ridge())


def test_numbers() -> None:
    values = [1.0, 2.0, 3.0, np.nan, 4.0]
    for column in (AGE, None):
        assert kept(column, values) == [1.0, 2.0, 3.0, 4.0]
        assert kept(column, values, min=2, max=3.0) == [2.0, 3.0]
        assert kept(column, values, equals=3) == [3.0]
        assert kept(column, values, **{"in": [4.0, 1, 9]}) == [1.0, 4.0]
        assert kept(column, values, not_in=[4.0, 1]) == [2.0, 3.0]
        assert kept(column, values, min=2, not_in=[3]) == [2.0, 4.0]


def test_texts_are_chosen_by_name() -> None:
    codes = [0.0, 1.0, 2.0, np.nan]
    assert kept(TOWN, codes, equals="Bonn") == [1.0]
    assert kept(TOWN, codes, **{"in": ["Kiel", "7"]}) == [0.0, 2.0]
    assert kept(TOWN, codes, not_in=["Kiel"]) == [0.0, 1.0]
    assert kept(TOWN, codes) == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("column", "item", "pointer", "code", "words"),
    [
        (TOWN, {"min": 1}, "/min", "not_a_number", "texts, which min cannot compare; list those you want in `equals`"),
        (TOWN, {"max": 0.0}, "/max", "not_a_number", "or `in`"),
        (TOWN, {"max": "Bonn"}, "/max", "not_a_number", "cannot compare"),
        (TOWN, {"equals": 7}, "/equals", "not_a_text", 'as in "7"'),
        (TOWN, {"in": ["Kiel", 7]}, "/in/1", "not_a_text", "holds texts"),
        (TOWN, {"equals": "Bon"}, "/equals", "unknown_value", "did you mean 'Bonn'"),
        (TOWN, {"not_in": ["Kiel", "kiel "]}, "/not_in/1", "unknown_value", "has no value"),
        (MANY, {"equals": "a"}, "/equals", "too_many_categories", "more than 10,000"),
        (AGE, {"min": "3"}, "/min", "not_a_number", "without quotes"),
        (AGE, {"in": [1, "2"]}, "/in/1", "not_a_number", "holds numbers"),
        (SOLD, {"min": "March"}, "/min", "not_a_date", "as in 2024-03-01"),
        (SOLD, {"min": "2024-W01"}, "/min", "not_a_date", "holds dates"),
        (SOLD, {"max": "2024-02-30"}, "/max", "not_a_date", "holds dates"),
        (SOLD, {"max": "2024-02-03T25:00"}, "/max", "not_a_date", "holds dates"),
    ],
)
def test_what_a_column_cannot_be_compared_with(
    column: Column, item: dict[str, Any], pointer: str, code: str, words: str
) -> None:
    fault = refused(column, **item)
    assert (fault.pointer, fault.code) == (f"/data/where/0{pointer}", code)
    assert words in fault.detail
    assert fault.detail.endswith(".")


def days(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment - datetime(1970, 1, 1, tzinfo=moment.tzinfo)) / timedelta(days=1)


def test_dates() -> None:
    stored = [days("2024-02-29T23:59:59.999999"), days("2024-03-01"), days("2024-03-01T12:00:00"), days("2024-03-02")]
    eve, morning, noon, after = stored
    assert kept(SOLD, stored, min="2024-03-01") == [morning, noon, after]
    assert kept(SOLD, stored, max="2024-03-01") == [eve, morning, noon]  # the whole day
    assert kept(SOLD, stored, equals="2024-03-01") == [morning, noon]
    assert kept(SOLD, stored, equals="2024-03-01T12:00:00Z") == [noon]
    assert kept(SOLD, stored, equals="2024-03-01T13:00:00+01:00") == [noon]
    assert kept(SOLD, stored, equals="2024-03-01 12:00") == [noon]
    assert kept(SOLD, stored, not_in=["2024-03-01"]) == [eve, after]
    assert kept(SOLD, stored, **{"in": ["2024-03-02", "2024-02-29"]}) == [eve, after]
    assert kept(SOLD, stored, min=DAY, max=DAY) == [morning]  # days since 1970, as before there were texts


moments = st.integers(-(2**51), 2**52).map(
    lambda count: datetime(1970, 1, 1, tzinfo=UTC) + count * timedelta(microseconds=1)
)


@given(moments, moments)
def test_any_moments_compare_as_moments(one: datetime, other: datetime) -> None:
    low, high = sorted((one, other))
    stored = [days(low.isoformat()), days(high.isoformat())]
    assert kept(SOLD, stored, min=low.isoformat(), max=high.isoformat()) == stored
    assert kept(SOLD, stored, max=low.isoformat()) == [v for v in stored if v == stored[0]]
    whole = high.date().isoformat()
    assert kept(SOLD, stored, min=whole) == [v for v in stored if v >= days(f"{whole}T00:00Z")]


@given(
    st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 4)), min_size=1, max_size=8),
    st.lists(st.one_of(st.integers(-8, 12), st.just(np.nan)), min_size=1),
    st.booleans(),
)
def test_intervals_are_a_union(spans: list[tuple[int, int]], values: list[float], negated: bool) -> None:
    intervals = [(float(low), float(low + width)) for low, width in spans]
    condition = Condition.of(0, intervals, negated=negated)
    expected = [not np.isnan(v) and any(a <= v <= b for a, b in intervals) != negated for v in values]
    assert condition.met_by(np.array(values, float)).tolist() == expected


@pytest.mark.parametrize(
    ("where", "place"),
    [
        ([{"column": "age", "min": 91}], 0),
        ([{"column": "age", "min": 5}, {"column": "age", "max": 0.5}], 1),
        ([{"column": "few", "equals": 1}], 0),
        ([{"column": "few", "min": 1}, {"column": "few", "not_in": [2, 4]}], 1),
        ([{"column": "few", "min": 3, "max": 1}], 0),
        ([{"column": "town", "equals": "Bonn"}, {"column": "town", "equals": "Kiel"}], 1),
        ([{"column": "sold", "min": "2025-01-01"}], 0),
        ([{"column": "y", "equals": 0.5}], 0),
    ],
)
def test_conditions_that_leave_no_row_are_told(where: list[dict[str, Any]], place: int) -> None:
    found = selected(where)
    assert isinstance(found, list)
    assert [(fault.pointer, fault.code) for fault in found] == [(f"/data/where/{place}", "no_rows")]
    assert "No row is left" in found[0].detail
    if where[0]["column"] == "sold":
        assert "its dates are from 2023-01-26 to 2024-03-31" in found[0].detail


def test_conditions_on_the_target_choose_classes() -> None:
    found = selected([{"column": "town", "not_in": ["7"]}], target="town", classes=True, features=["age"])
    assert isinstance(found, Selected)
    assert found.classes.names == ("Bonn", "Kiel")
    alone = selected([{"column": "town", "equals": "7"}], target="town", classes=True, features=["age"])
    assert isinstance(alone, list)
    assert alone[0].code == "one_class"


def test_a_number_with_two_values_is_a_class_though_they_are_not_listed() -> None:
    found = selected([], classes=True)
    assert isinstance(found, Selected)
    assert (found.classes.names, found.classes.levels) == (("0", "1"), (0.0, 1.0))


def test_ranges_are_written_as_they_were() -> None:
    for item in ({"column": "a", "min": 1.0, "max": None}, {"column": "a", "min": None, "max": None, "in": ["b", 2.0]}):
        assert read(**item).model_dump(mode="json") == item
        assert read(**read(**item).model_dump()) == read(**item)
