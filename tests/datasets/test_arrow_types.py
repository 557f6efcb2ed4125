"""Types that today's writers use beyond the plain ones, the index of a data frame, and types that are not read."""

from __future__ import annotations

import datetime as dt
import decimal
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from tests.datasets.files import Shelf, arrow, parquet
from worker.contract.columns import Selected, select
from worker.contract.data import DatasetData
from worker.contract.dataset import Format
from worker.core.training import Ridge
from worker.datasets import Table

Writer = Callable[[pa.Table], bytes]
IPC: dict[str, tuple[Format, Writer]] = {
    "file": ("arrow", arrow),
    "stream": ("arrow", lambda table: arrow(table, stream=True, rows=3)),
}
ALL: dict[str, tuple[Format, Writer]] = {"parquet": ("parquet", parquet), **IPC}
INDICES = [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()]
TEXTS = [pa.string(), pa.large_string(), pa.string_view()]


def texts(table: Table, j: int = 0) -> list[str | None]:
    """The values of a category."""
    categories = table.dataset.columns[j].categories
    assert categories is not None
    return [None if np.isnan(code) else categories[int(code)] for code in table.dense[:, j]]


@pytest.mark.parametrize("form", ALL)
def test_dictionaries_of_texts(shelf: Shelf, form: str):
    """Of any index type: only texts that occur are categories, nulls among the texts or the rows are missing."""
    kind, write = ALL[form]
    null = None if kind == "arrow" else "\u00e9"  # pyarrow does not write null as an entry to Parquet
    entries = ["y", null, "unused", "\u00e9", "", "y"]
    rows = [3, 0, None, 1, 5, 4, 3]
    columns = {
        f"{index} {text}": pa.DictionaryArray.from_arrays(pa.array(rows, index), pa.array(entries).cast(text))
        for index in INDICES
        for text in TEXTS
        if kind == "arrow" or text != pa.string_view()  # pyarrow itself does not write those to Parquet
    }
    table = shelf.table(write(pa.table(columns)), kind)
    for j, column in enumerate(table.dataset.columns):
        assert texts(table, j) == ["\u00e9", "y", None, null, "y", "", "\u00e9"], column.name
        assert (column.categories, column.distinct) == (["", "y", "\u00e9"], 3), column.name


@pytest.mark.parametrize("form", ALL)
@pytest.mark.parametrize("index", [pa.int8(), pa.uint32()])
def test_dictionaries_of_other_values_are_these_values(shelf: Shelf, form: str, index: pa.DataType):
    kind, write = ALL[form]
    values = {
        "f": pa.array([2.5, None, -1.0]),
        "i": pa.array([2**53 - 1, None, 3]),
        "u": pa.array([7, None, 3], pa.uint8()),
        "d": pa.array([decimal.Decimal("1.25"), None, decimal.Decimal("-3.00")]),
        "t": pa.array([dt.date(1970, 1, 3), None, dt.date(1969, 12, 31)]),
    }
    rows = pa.array([2, 0, None, 1 if kind == "arrow" else None, 0], index)
    if kind == "parquet":
        values = {name: each.fill_null(each[0]) for name, each in values.items()}
    columns = {name: pa.DictionaryArray.from_arrays(rows, each) for name, each in values.items()}
    table = shelf.table(write(pa.table(columns)), kind)
    nan = np.nan
    expected = [
        [-1, 2.5, nan, nan, 2.5], [3, 2**53 - 1, nan, nan, 2**53 - 1], [3, 7, nan, nan, 7],
        [-3, 1.25, nan, nan, 1.25], [-1, 2, nan, nan, 2],
    ]  # fmt: skip
    assert_array_equal(table.dense.T, expected)
    assert [column.type for column in table.dataset.columns] == ["number"] * 4 + ["date"]


@pytest.mark.parametrize("form", IPC)
def test_views_runs_and_extensions(shelf: Shelf, form: str):
    kind, write = IPC[form]
    long = "more than the twelve bytes that lie in a view itself"
    flags = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0, None, -1, 1], pa.int8()))
    notes = pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}", None, "1", "{}", "1"]))
    opaque = pa.opaque(pa.int8(), "a", "b")
    columns = {
        "view": pa.array([long, None, "a", long, "a"]).cast(pa.string_view()),
        "runs": pa.RunEndEncodedArray.from_arrays(pa.array([2, 3, 5], pa.int32()), pa.array(["x", None, "y"])),
        "bool8": flags,
        "json": notes,
        "opaque": pa.ExtensionArray.from_storage(opaque, pa.array([1, None, 3, 4, 5], pa.int8())),
        "half": pa.array([1.5, None, 2, 3, 4]).cast(pa.float16()),
        "flags": pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 0, 0], pa.uint8()), pa.array([True, False])),
    }
    table = shelf.table(write(pa.table(columns)), kind)
    assert texts(table, 0) == [long, None, "a", long, "a"]
    assert texts(table, 1) == ["x", "x", None, "y", "y"]
    assert texts(table, 2) == ["true", "false", None, "true", "true"]
    assert texts(table, 3) == ["{}", None, "1", "{}", "1"]
    assert_array_equal(table.dense[:, 4:6].T, [[1, np.nan, 3, 4, 5], [1.5, np.nan, 2, 3, 4]])
    assert texts(table, 6) == ["true", "false", None, "true", "true"]


UNREAD: dict[str, tuple[pa.Array, str]] = {
    "list": (pa.array([[1], [2]]), "column of its own"),
    "struct": (pa.array([{"x": 1}, None]), "column of its own"),
    "map": (pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int8())), "column of its own"),
    "bytes": (pa.array([b"a", b"b"]), "decode"),
    "view of bytes": (pa.array([b"a", b"b"], pa.binary_view()), "decode"),
    "uuid": (pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"a" * 16] * 2, pa.binary(16))), "decode"),
    "dictionary of bytes": (pa.array([b"a", b"b"]).dictionary_encode(), "decode"),
    "time of day": (pa.array([1, 2], pa.time64("us")), "seconds"),
    "duration": (pa.array([1, 2], pa.duration("s")), "seconds"),
    "interval": (pa.array([pa.MonthDayNano([1, 2, 3])] * 2), "seconds"),
}


@pytest.mark.parametrize("form", ALL)
@pytest.mark.parametrize("case", UNREAD)
def test_a_type_that_is_not_read(shelf: Shelf, form: str, case: str):
    """By the name of the column, its type and what to do: it is not damaged."""
    kind, write = ALL[form]
    values, remedy = UNREAD[case]
    table = pa.table({"a": [1, 2], "of \u00e4 kind": values})
    try:
        content = write(table)
    except pa.ArrowNotImplementedError:
        assert form == "parquet"
        return
    (fault,) = shelf.refusal(content, kind).faults
    assert (fault.pointer, fault.code) == ("/columns/1", "dtype")
    assert fault.detail.startswith("Column 'of \u00e4 kind' is of type ")
    assert remedy in fault.detail


def test_periods_of_pandas_are_dates_without_their_unit(shelf: Shelf):
    stated = {"ARROW:extension:name": "pandas.period", "ARROW:extension:metadata": '{"freq": "M"}'}
    schema = pa.schema([pa.field("month", pa.int64(), metadata=stated)])
    (fault,) = shelf.refusal(arrow(pa.table([[600, 601]], schema=schema)), "arrow").faults
    assert "to_timestamp" in fault.detail


# the index of a data frame


def with_pandas(table: pa.Table, stated: Any) -> pa.Table:
    return table.replace_schema_metadata({"pandas": stated if isinstance(stated, bytes) else json.dumps(stated)})


def frame() -> pa.Table:
    return pa.table({"x": [1.0, 2, 3], "y": [2.0, 3, 4], "day": [1, 2, 3], "__index_level_1__": [7, 5, 6]})


def features(table: Table, **data: Any) -> tuple[str, ...]:
    chosen = select(DatasetData(dataset_id=table.dataset.id, target="y", **data), table.dataset, Ridge())
    assert isinstance(chosen, Selected)
    return chosen.features


@pytest.mark.parametrize("form", ALL)
def test_an_index_is_no_feature_unless_it_is_named(shelf: Shelf, form: str):
    kind, write = ALL[form]
    stated = {"index_columns": ["day", {"kind": "range"}, "__index_level_1__", "gone"], "columns": []}
    table = shelf.table(write(with_pandas(frame(), stated)), kind)
    assert [column.index for column in table.dataset.columns] == [False, False, True, True]
    assert [(told.column, told.code, told.count) for told in table.dataset.warnings] == [
        ("day", "index-column", 3), ("__index_level_1__", "index-column", 3)
    ]  # fmt: skip
    assert features(table) == ("x",)
    assert features(table, features=["*"]) == ("x", "y")[:1]
    assert features(table, features=[{"all_but": ["x"]}, "x"]) == ("x",)
    assert features(table, features=["x", "day"]) == ("x", "day")
    chosen = select(DatasetData(dataset_id=table.dataset.id, target="y", time="day"), table.dataset, Ridge())
    assert isinstance(chosen, Selected)
    assert (chosen.features, chosen.roles["time"]) == (("x",), 2)


NO_INDEX: dict[str, Any] = {
    "range": {"index_columns": [{"kind": "range", "start": 0, "stop": 3, "step": 1}]},
    "none": {"index_columns": []},
    "no list": {"index_columns": 7},
    "nothing": {},
    "another kind": [1],
    "no JSON": b"{",
    "no text": b"\xff",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("case", NO_INDEX)
def test_without_an_index_or_with_metadata_that_nobody_reads(shelf: Shelf, case: str):
    table = shelf.table(arrow(with_pandas(frame(), NO_INDEX[case])), "arrow")
    assert features(table) == ("x", "day", "__index_level_1__")
    assert not any(told.code == "index-column" for told in table.dataset.warnings)
