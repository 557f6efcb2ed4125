"""NPY files: what they become, and what is refused."""

from __future__ import annotations

import io
import json
import struct
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tests.datasets.files import Shelf, npy
from worker.datasets import Limits, Reason
from worker.datasets.formats import npy as reader

X = np.random.default_rng(0).normal(size=(700, 20))
X[3, 2] = np.nan


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", "<f2", "<i4", "|u1", "|b1"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("width", [1, 3, 20])
def test_a_matrix_becomes_itself(shelf: Shelf, dtype: str, order: str, width: int):
    array = np.asarray(np.nan_to_num(X[:, :width]) * 10 + 50, dtype=dtype, order=order)
    table = shelf.table(npy(array), "npy")
    assert_array_equal(table.dense, array.astype(float))
    assert (table.dataset.rows, table.sparse) == (700, None)
    assert [column.name for column in table.dataset.columns] == [f"x{j}" for j in range(width)]


def test_a_float64_matrix_is_kept_as_it_is(shelf: Shelf):
    for array in (X, np.asfortranarray(X)):
        content = npy(array)
        table = shelf.table(content, "npy")
        assert (shelf.storage.root / table.dataset.id / "content").read_bytes() == content
        assert table.dense.flags.f_contiguous == array.flags.f_contiguous


def test_summaries_are_those_of_numpy(shelf: Shelf):
    array = X.copy()
    array[:, 1] = np.arange(700) % 7 + 1e9
    array[:, 4] = np.nan
    array[:, 5] = 1e200 * np.sign(X[:, 5])
    for layout in (array, np.asfortranarray(array), array[:, :6].copy()):
        columns = shelf.table(npy(layout), "npy").dataset.columns
        for j, column in enumerate(columns):
            values = layout[~np.isnan(layout[:, j]), j]
            assert column.missing == 700 - len(values)
            if len(values) == 0:
                assert (column.min, column.max, column.mean, column.std) == (None,) * 4
                continue
            assert (column.min, column.max) == (values.min(), values.max())
            assert column.distinct == len(np.unique(values))
            if j != 5:
                assert column.mean is not None
                assert column.std is not None
                assert_allclose([column.mean, column.std], [values.mean(), values.std()], rtol=1e-12)
        assert columns[5].std is None  # its square overflows


def test_more_than_a_thousand_distinct_values_are_not_counted(shelf: Shelf):
    array = np.column_stack([np.arange(5000), np.arange(5000) % 1000, np.arange(5000) % 1001])
    assert [c.distinct for c in shelf.table(npy(array), "npy").dataset.columns] == [None, 1000, None]


def test_fields_of_records_are_columns(shelf: Shelf):
    records = np.array(
        [(1, "b", np.datetime64("2020-01-01T12"), True), (2, "", np.datetime64("NaT"), False), (3, "a", 0, True)],
        dtype=[("n", "<i2"), ("text", "U3"), ("day", "M8[h]"), ("flag", "?")],
    )
    table = shelf.table(npy(records), "npy")
    assert [c.type for c in table.dataset.columns] == ["number", "category", "date", "number"]
    assert table.dataset.columns[1].categories == ["a", "b"]
    assert_array_equal(table.dense, [[1, 1, 18262.5, 1], [2, np.nan, np.nan, 0], [3, 0, 0, 1]])
    shown = json.loads((shelf.storage.root / table.dataset.id / "preview.json").read_bytes())
    assert shown["rows"][:2] == [[1, "b", "2020-01-01T12:00:00Z", 1], [2, None, None, 0]]


def with_header(text: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


HEADER = b"{'descr': '<f8', 'fortran_order': False, 'shape': (%s,), }\n"
REFUSED = {
    "cut off": (npy(X)[:-1], "", "length"),
    "too long": (npy(X) + b"\0", "", "length"),
    "lying rows": (with_header(HEADER % b"1000000"), "", "length"),
    "negative": (with_header(HEADER % b"-5"), "/header", "npy_header"),
    "not a header": (with_header(b"__import__('os').abort()\n"), "/header", "npy_header"),
    "nested": (with_header(b"(" * 60000), "/header", "npy_header"),
    "pickled": (npy(np.array([{}, None])), "/header", "pickled"),
    "pickled field": (npy(np.array([(1, None)], dtype=[("a", "i4"), ("b", "O")])), "/header", "pickled"),
    "complex": (npy(np.array([1j, 2])), "/header", "dtype"),
    "texts": (npy(np.array(["a", "b"])), "/header", "dtype"),
    "three dimensions": (npy(np.zeros((2, 2, 2))), "/header", "dimensions"),
    "scalar": (npy(np.float64(3.0)), "/header", "dimensions"),
    "no rows": (npy(np.zeros((0, 3))), "/header", "empty"),
    "no columns": (npy(np.zeros((3, 0))), "/header", "empty"),
    "infinite": (npy(np.where(np.isnan(X), -np.inf, X)), "/rows/3/columns/2", "infinite"),
    "infinite, F order": (npy(np.asfortranarray(np.where(np.isnan(X), np.inf, X))), "/rows/3/columns/2", "infinite"),
    "matrix in a field": (npy(np.zeros(3, dtype=[("a", "f8", 2)])), "/columns/0", "dtype"),
    "empty": (b"", "/header", "npy_header"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_place(shelf: Shelf, case: str):
    content, pointer, code = REFUSED[case]
    assert shelf.places(content, "npy") == [(pointer, code)]


def test_limits_of_columns_and_values(shelf: Shelf):
    limits = Limits(values=1000, columns=50)
    assert shelf.refusal(npy(np.zeros((10, 51))), "npy", limits).reason is Reason.TOO_LARGE
    assert shelf.refusal(npy(np.zeros((1001, 1))), "npy", limits).reason is Reason.TOO_LARGE
    assert shelf.refusal(with_header(HEADER % b"10000000000000000"), "npy").reason is Reason.TOO_LARGE
    shelf.table(npy(np.zeros((20, 50))), "npy", limits)


NAMES = ["gr\u00f6\u00dfe \u2603", "a\"b'c", "back\\slash \\n\\\\\u00e9", "\U0001f600", "plain"]


@pytest.mark.parametrize("version", [None, (2, 0), (3, 0)])
def test_field_names_in_every_version_of_the_format(shelf: Shelf, version: tuple[int, int] | None):
    """Versions 1 and 2 have Latin-1 names, 3 has UTF-8; `None` is what numpy chooses."""
    names = [name for name in NAMES if version != (2, 0) or name.isascii() or name == NAMES[2]]
    array = np.array([tuple(range(len(names)))] * 2, [(name, "f8") for name in names])
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy says that others may not read version 3
        np.lib.format.write_array(content, array, version=version)
    table = shelf.table(content.getvalue(), "npy")
    assert [column.name for column in table.dataset.columns] == names
    assert_array_equal(table.dense, [range(len(names))] * 2)


def test_long_headers(shelf: Shelf):
    """As many fields as columns are allowed; beyond, the message names the limit."""
    wide = np.zeros(3, [(f"field {j:05d}", "f8") for j in range(2000)])
    assert len(shelf.table(npy(wide), "npy").dataset.columns) == 2000
    head = b"{" + b" " * reader.LONGEST_HEADER + b"}"
    (fault,) = shelf.refusal(b"\x93NUMPY\x03\x00" + struct.pack("<I", len(head)) + head, "npy").faults
    assert (fault.pointer, fault.code) == ("/header", "long_header")
    assert str(reader.LONGEST_HEADER) in fault.detail


def test_a_field_that_is_not_read_is_named(shelf: Shelf):
    for dtype, remedy in (("m8[s]", "seconds"), ("c16", "numbers, texts or dates")):
        (fault,) = shelf.refusal(npy(np.zeros(2, [("a", "f8"), ("the field", dtype)])), "npy").faults
        assert (fault.pointer, fault.code) == ("/columns/1", "dtype")
        assert "'the field'" in fault.detail
        assert remedy in fault.detail
