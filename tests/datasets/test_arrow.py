"""Parquet and Arrow IPC: what they become, and what is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from tests.datasets.files import DENSE, Shelf, arrow, arrow_table, parquet
from worker.contract.dataset import Format
from worker.datasets import Limits, Reason

FILES: dict[str, tuple[Format, object]] = {
    "parquet": ("parquet", parquet),
    "parquet, small groups": ("parquet", lambda table: parquet(table, row_group_size=2, compression="zstd")),
    "arrow file": ("arrow", arrow),
    "arrow stream": ("arrow", lambda table: arrow(table, stream=True, codec="lz4")),
}


@pytest.fixture(params=FILES)
def made(request: pytest.FixtureRequest) -> tuple[Format, object]:
    return FILES[request.param]


def test_numbers_dates_and_categories(shelf: Shelf, made):
    kind, write = made
    table = shelf.table(write(arrow_table()), kind)
    columns = table.dataset.columns
    assert_array_equal(table.dense, DENSE)
    assert [c.type for c in columns] == ["number", "number", "category", "category", "date", "date"]
    assert (columns[2].categories, columns[3].categories) == (["a", "b", "\u00e9"], ["false", "true"])
    assert [c.missing for c in columns] == [1, 1, 1, 1, 2, 0]


def test_every_type_of_numbers_texts_and_dates(shelf: Shelf, made):
    kind, write = made
    whole = pa.array([1, None, 3])
    dates = pa.array([0, None, 864 * 10**5], pa.int64())
    arrays = {
        **{str(t): whole.cast(t) for t in (pa.int8(), pa.uint64(), pa.float32(), pa.decimal128(25, 2), pa.float64())},
        "null": pa.nulls(3),
        "ms": dates.cast(pa.timestamp("ms")),
        "us": dates.cast(pa.timestamp("us", "Europe/Berlin")),
        "large": pa.array(["x", None, "y"], pa.large_string()),
        "dictionary": pa.DictionaryArray.from_arrays([0, None, 2], ["y", "unused", "x"]),
    }
    table = shelf.table(write(pa.table(arrays)), kind)
    expected = [[1, np.nan, 3]] * 5 + [[np.nan] * 3, [0, np.nan, 1], [0, np.nan, 1e-3]]
    assert_array_equal(table.dense[:, :8].T, expected)
    texts = table.dataset.columns[9].categories
    assert texts is not None
    assert [texts[int(code)] for code in table.dense[[0, 2], 9]] == ["y", "x"]


@pytest.mark.parametrize(
    ("arrays", "pointer", "code"),
    [
        ({"a": [[1], [2]]}, "/columns/0", "dtype"),
        ({"a": [1, 2], "b": [b"x", b"y"]}, "/columns/1", "dtype"),
        ({"a": [{"x": 1}, None]}, "/columns/0", "dtype"),
        ({"a": pa.array([1, 2], pa.duration("s"))}, "/columns/0", "dtype"),
        ({"a": [1, 2], " ": [1, 2]}, "/columns/1", "empty_name"),
        ({"a": [1.0, float("inf")]}, "/rows/1/columns/0", "infinite"),
        ({"a": pa.array([], pa.int64())}, "/rows", "empty"),
    ],
)
def test_refused_with_the_place(shelf: Shelf, made, arrays, pointer, code):
    kind, write = made
    assert shelf.places(write(pa.table(arrays)), kind) == [(pointer, code)]


def test_duplicate_names(shelf: Shelf, made):
    kind, write = made
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    assert shelf.places(write(table), kind) == [("/columns/1", "duplicate_name")]


def test_limits(shelf: Shelf, made):
    kind, write = made
    refusal = shelf.refusal(write(pa.table({"a": np.zeros(1001)})), kind, Limits(values=1000))
    assert refusal.reason is Reason.TOO_LARGE
    wide = pa.table({f"c{j}": [1.0] for j in range(101)})
    assert shelf.refusal(write(wide), kind, Limits(columns=100)).reason is Reason.TOO_LARGE


def test_a_stream_without_its_end_is_cut_off(shelf: Shelf):
    content = arrow(arrow_table(), stream=True)
    assert shelf.places(content[:-8], "arrow") == [("", "length")]
