"""Integers that float64 cannot tell apart: no format merges them, and no smaller ones are touched."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy import sparse

from tests.datasets.files import Shelf, arrow, npy, npz, parquet, scipy_npz
from worker.contract.dataset import Format
from worker.datasets import Reason, Table, categories
from worker.datasets.integers import is_lost, lost

Made = tuple[Format, bytes]
BIG = 2**53


def records(values: list[int], dtype: str) -> bytes:
    rows = [(value, i) for i, value in enumerate(values)]
    return npy(np.array(rows, [("id", dtype), ("y", "f8")]))


def decimals(values: list[int]) -> pa.Table:
    exact = pa.array([Decimal(value) for value in values], pa.decimal128(38, 0))
    return pa.table({"id": exact, "y": np.arange(len(values)) + 0.0})


FORMATS: dict[str, Callable[[list[int], str], Made]] = {
    "csv": lambda v, _: ("csv", ("id,y\n" + "".join(f"{x},{i}\n" for i, x in enumerate(v))).encode()),
    "parquet": lambda v, d: ("parquet", parquet(pa.table({"id": np.array(v, d), "y": np.arange(len(v)) + 0.0}))),
    "arrow": lambda v, d: ("arrow", arrow(pa.table({"id": np.array(v, d), "y": np.arange(len(v)) + 0.0}))),
    "npy rows": lambda v, d: ("npy", npy(np.column_stack([np.array(v, d), np.arange(len(v)).astype(d)]))),
    "npy columns": lambda v, d: (
        "npy",
        npy(np.asfortranarray(np.column_stack([np.array(v, d), np.arange(len(v)).astype(d)]))),
    ),
    "npy records": lambda v, d: ("npy", records(v, d)),
    "npz": lambda v, d: ("npz", npz(id=np.array(v, d), y=np.arange(len(v)) + 0.0)),
    "npz matrix": lambda v, d: ("npz", npz(X=np.column_stack([np.array(v, d), np.array(v, d)]))),
    "decimal": lambda v, _: ("parquet", parquet(decimals(v))),
}  # fmt: skip


def stored(table: Table, j: int = 0) -> list[int | None]:
    """The integers of a column as the dataset tells them."""
    column, values = table.dataset.columns[j], table.dense[:, j].tolist()
    named = column.categories
    return [None if np.isnan(x) else int(named[int(x)]) if named is not None else int(x) for x in values]


def told(table: Table) -> list[tuple[str, str | None, int]]:
    return [(one.code, one.column, one.count) for one in table.dataset.warnings]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dtype", ["i8", "u8"])
@pytest.mark.parametrize("first", [BIG, 2**62 + 1, 2**63 - 40])
def test_forty_neighbours_stay_forty(shelf: Shelf, name: str, dtype: str, first: int):
    values = [3, 10, *np.repeat([first + i for i in range(40)], 3).tolist(), 7]
    kind, content = FORMATS[name](values, dtype)
    table = shelf.table(content, kind)
    column = table.dataset.columns[0]
    assert stored(table) == values
    assert (column.type, column.distinct, column.missing) == ("category", 43, 0)
    assert column.categories == sorted(map(str, set(values)))
    count = sum(int(float(value)) != value for value in values)
    assert (*told(table)[0][:1], told(table)[0][2]) == ("integers-beyond-double", count)
    (example, *_) = table.dataset.warnings[0].examples
    assert values[example.row] == int(example.value)


@pytest.mark.parametrize("name", set(FORMATS) - {"decimal"})
def test_unsigned_integers_up_to_64_bits(shelf: Shelf, name: str):
    values = [2**64 - 1, 2**64 - 2, 2**63 + 1, 5]
    kind, content = FORMATS[name](values, "u8")
    assert stored(shelf.table(content, kind)) == values


@pytest.mark.parametrize("name", FORMATS)
def test_integers_that_float64_holds_stay_numbers(shelf: Shelf, name: str):
    values = [BIG, -BIG, 2**62, 1_600_000_000 * 10**9, 0]
    kind, content = FORMATS[name](values, "i8")
    table = shelf.table(content, kind)
    assert (table.dataset.columns[0].type, told(table), stored(table)) == ("number", [], values)


@pytest.mark.parametrize("late", [0, 150_000])
def test_neighbours_that_come_late(shelf: Shelf, late: int):
    """Rows before the first of them have been written as numbers: they become categories, too."""
    values = [i % 50 for i in range(late)] + [BIG + 1, BIG]
    for content, kind in ((npy(np.array(values)[:, None]), "npy"), (parquet(pa.table({"id": values})), "parquet")):
        table = shelf.table(content, kind)  # type: ignore[arg-type]
        assert stored(table) == values
        assert table.dataset.warnings[0].examples[0].row == late


@pytest.mark.parametrize("kind", ["parquet", "arrow", "csv"])
def test_missing_values_among_them(shelf: Shelf, kind: Format):
    values = [BIG + 1, None, BIG, None]
    table = pa.table({"id": pa.array(values, pa.int64()), "y": [1.0, 2.0, 3.0, 4.0]})
    text = "id,y\n" + "".join(f"{'' if value is None else value},1\n" for value in values)
    content = {"parquet": parquet(table), "arrow": arrow(table), "csv": text.encode()}[kind]
    made = shelf.table(content, kind)
    assert (stored(made), made.dataset.columns[0].missing) == (values, 2)


@pytest.mark.parametrize("name", ["csv", "parquet", "arrow", "decimal"])
def test_as_numbers_they_are_rounded_and_told(shelf: Shelf, name: str):
    kind, content = FORMATS[name]([BIG + 1, BIG, BIG + 3], "i8")
    table = shelf.table(content, kind, types={"id": "number"})
    assert table.dataset.columns[0].type == "number"
    assert_array_equal(table.dense[:, 0], [float(BIG + 1), float(BIG), float(BIG + 3)])
    assert told(table) == [("integers-beyond-double", "id", 2)]
    assert "types=id:category" in table.dataset.warnings[0].text


@pytest.mark.parametrize("name", ["csv", "parquet", "arrow"])
def test_types_of_whole_columns(shelf: Shelf, name: str):
    kind, content = FORMATS[name]([7, 12, 7], "i8")
    table = shelf.table(content, kind, types={"id": "category"})
    assert (table.dataset.columns[0].categories, told(table)) == (["12", "7"], [])
    texts = parquet(pa.table({"a": ["1.5", None, "2"], "d": ["2020-01-01", "2020-01-02", None]}))
    both = shelf.table(texts, "parquet", types={"a": "number", "d": "date"})
    assert_array_equal(both.dense, [[1.5, 18262], [np.nan, 18263], [2, np.nan]])
    assert shelf.places(texts, "parquet", types={"d": "number"}) == [("/columns/1", "unfit_option")]
    assert shelf.places(parquet(pa.table({"a": [1.5]})), "parquet", types={"a": "category"})[0][1] == "unfit_option"


def test_decimals_of_more_than_64_bits(shelf: Shelf):
    content = parquet(pa.table({"id": pa.array([Decimal(2**70 + 1), Decimal(1)], pa.decimal128(38, 0))}))
    assert shelf.places(content, "parquet") == [("/columns/0", "integers-beyond-double")]
    assert shelf.table(content, "parquet", types={"id": "number"}).dense[0, 0] == 2.0**70


@pytest.mark.parametrize("name", ["csv", "npy rows", "parquet"])
def test_too_many_of_them(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setattr(categories, "MOST", 100)
    for early in (0, 60):
        kind, content = FORMATS[name]([*range(early), *(BIG + 1 + i for i in range(101 - early // 2))], "i8")
        refusal = shelf.refusal(content, kind)
        assert (refusal.reason, "100" in refusal.detail) == (Reason.TOO_LARGE, True)


@pytest.mark.parametrize("word", ["9007199254740993", "-9007199254740993", "18446744073709551615"])
def test_libsvm_refuses_them_by_line(shelf: Shelf, word: str):
    assert shelf.places(f"1 1:2\n{word} 1:3\n".encode(), "libsvm") == [("/lines/1", "integers-beyond-double")]
    assert shelf.places(f"1 1:2\n2 1:{word}\n".encode(), "libsvm") == [("/lines/1", "integers-beyond-double")]
    assert shelf.table(f"1 1:2\n{word}.0 1:1e300\n".encode(), "libsvm").dense[1, 0] == float(word)


@pytest.mark.parametrize("form", ["tocsr", "tocsc", "tocoo"])
def test_sparse_matrices_of_them_are_refused(shelf: Shelf, form: str):
    matrix = getattr(sparse.csr_array(np.array([[BIG + 1, 0], [0, 3]])), form)()
    assert shelf.places(scipy_npz(matrix), "npz") == [("/arrays/data", "integers-beyond-double")]


INTEGERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-5, 5), st.integers(BIG - 3, BIG + 3))


@given(st.lists(INTEGERS, min_size=1, max_size=20))
def test_which_integers_are_lost(values: list[int]):
    expected = [int(float(value)) != value for value in values]
    found = lost(np.array(values, np.int64))
    assert (found is None and not any(expected)) or (found is not None and found.tolist() == expected)
    assert [is_lost(str(value)) for value in values] == expected
    unsigned = [value + 2**63 for value in values]
    found = lost(np.array(unsigned, np.uint64))
    assert [False] * len(values) if found is None else found.tolist() == [int(float(v)) != v for v in unsigned]


@settings(max_examples=25, deadline=None)
@given(st.lists(INTEGERS, min_size=1, max_size=30), st.sampled_from(sorted(set(FORMATS) - {"npy rows", "npy columns"})))
def test_every_integer_comes_back(values: list[int], name: str):
    with tempfile.TemporaryDirectory() as directory:
        kind, content = FORMATS[name](values, "i8")
        table = Shelf(Path(directory)).table(content, kind)
        assert stored(table) == values
        lossy: Any = any(is_lost(str(value)) for value in values)
        assert bool(told(table)) == lossy
