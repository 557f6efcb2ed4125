"""CSV files: what they become, and what is refused."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.datasets.files import Shelf
from worker.datasets import Limits, Reason
from worker.datasets.formats import csv as reader


def test_numbers_dates_and_categories(shelf: Shelf):
    table = shelf.table(
        b"age,day,at,color,flag,empty\n"
        b"1,2020-01-01,2020-01-01T06:00:00Z,red,true,\n"
        b"2.5,2020-01-03,,\"blue, dark\",false,\n"
        b",,2020-01-02T00:00:00Z,red,true,NA\n",
        "csv",
    )  # fmt: skip
    columns = table.dataset.columns
    assert [c.name for c in columns] == ["age", "day", "at", "color", "flag", "empty"]
    assert [c.type for c in columns] == ["number", "date", "date", "category", "category", "number"]
    assert [c.missing for c in columns] == [1, 1, 1, 0, 0, 3]
    assert columns[3].categories == ["blue, dark", "red"]
    nan = np.nan
    expected = [[1, 18262, 18262.25, 1, 1, nan], [2.5, 18264, nan, 0, 0, nan], [nan, nan, 18263, 1, 1, nan]]
    assert_array_equal(table.dense, expected)
    shown = json.loads((shelf.storage.root / table.dataset.id / "preview.json").read_bytes())
    assert shown["rows"][0] == [1.0, "2020-01-01", "2020-01-01T06:00:00Z", "red", "true", None]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_dialects(shelf: Shelf, end: str, delimiter: str, mark: bytes):
    rows = [["a", 'b "quoted"', "c\nd"], ["1", "x" + delimiter, "3"], ["4", 'y"', "6.5"]]
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(rows)
    table = shelf.table(mark + text.getvalue().encode(), "csv")
    assert [c.name for c in table.dataset.columns] == rows[0]
    assert_array_equal(table.dense, [[1, 0, 3], [4, 1, 6.5]])
    assert table.dataset.columns[1].categories == ["x" + delimiter, 'y"']


REFUSED = {
    "empty": (b"", "", "empty"),
    "blank": (b"\n\n", "", "empty"),
    "names only": (b"a,b\n", "/rows", "empty"),
    "short row": (b"a,b\n1,2\n3\n", "/rows/1", "ragged"),
    "long row": (b"a,b\n1,2,3\n", "/rows/0", "ragged"),
    "short row under numbers": (b"x,2\n1,2\n3\n", "/rows/1", "ragged"),
    "duplicate names": (b"a,b,a\n1,2,3\n", "/columns/2", "duplicate_name"),
    "empty name": (b"a,,c\n1,2,3\n", "/columns/1", "empty_name"),
    "long name": (b"a," + b"b" * 201 + b"\n1,2\n", "/columns/1", "long_name"),
    "infinite": (b"a,b\n1,2\n3,inf\n", "/rows/1/columns/1", "infinite"),
    "decimal comma": (b"a;b\n1,5;2\n2;3\n", "/columns/0", "decimal_comma"),
    "quoted decimal comma": (b'a,b\n"1,5",2\n"2,5",3\n', "/columns/0", "decimal_comma"),
    "decimal comma, not quoted": (b"a,b\n1,5,2\n", "/rows/0", "ragged"),
    "bad text": (b"a,b\n1,2\n1,\xff\xfe\n", "", "encoding"),
    "bad number": (b"a,b\n1,2\n1,2\xff\n", "", "encoding"),
    "bad name": (b"a,\xff\n1,2\n", "", "encoding"),
    "utf-16": ("a,b\n1,2\n".encode("utf-16"), "", "encoding"),
    "open quote": (b'a,b\n1,"2\n3,4\n', "", "open_quote"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_place(shelf: Shelf, case: str):
    content, pointer, code = REFUSED[case]
    assert shelf.places(content, "csv") == [(pointer, code)]


def test_the_line_of_bad_text_is_named(shelf: Shelf):
    content = b"a,b\n" + b"1,x\n" * 300_000 + b"1,\xe9\n"
    (fault,) = shelf.refusal(content, "csv").faults
    assert "Line 300002 " in fault.detail


def test_a_row_longer_than_a_block(shelf: Shelf, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reader, "BLOCK", 1000)
    assert shelf.places(b"a,b\n1,2\n" * 20 + b"1," + b"x" * 5000 + b"\n", "csv") == [("", "long_row")]


def test_limits_of_columns_and_values(shelf: Shelf):
    wide = ",".join(f"c{j}" for j in range(100_000)) + "\n" + ",".join("1" for _ in range(100_000)) + "\n"
    refusal = shelf.refusal(wide.encode(), "csv")
    assert refusal.reason is Reason.TOO_LARGE
    assert "100000" in refusal.detail
    assert shelf.refusal(b"a\n" + b"1\n" * 1001, "csv", Limits(values=1000)).reason is Reason.TOO_LARGE
