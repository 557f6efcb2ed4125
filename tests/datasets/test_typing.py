"""What the columns of a CSV file are, as their whole content says: nothing is read otherwise without a word."""

from __future__ import annotations

import io
import tempfile
import time
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tests.datasets.files import Shelf
from worker.contract.dataset import DatasetWarning
from worker.datasets import Limits, RefusedError, Source, Table
from worker.datasets.formats import csv as reader
from worker.datasets.formats.converters import Padding

NAN = np.nan


def column_of(values: list[str], others: int = 20) -> bytes:
    """A file with these values in the column `a`, quoted, at the rows from 0 on, and numbers below them."""
    quoted = [f'"{value}"' for value in values] + [f"{i}.5" for i in range(others)]
    return ("a,y\n" + "".join(f"{value},{i}\n" for i, value in enumerate(quoted))).encode()


def warned(table: Table) -> list[DatasetWarning]:
    for warning in table.dataset.warnings:
        assert warning.text.endswith(".")
        assert warning.count >= len(warning.examples)
    return table.dataset.warnings


# missing values

TOKENS = ["NA", "NaN", "nan", "null", "<NA>", "-", "?", "N/A", "#N/A"]


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_among_numbers_is_a_missing_value_and_told(shelf: Shelf, token: str):
    table = shelf.table(column_of(["1.5", token, f" {token} "]), "csv")
    (column, _), (warning,) = table.dataset.columns, warned(table)
    assert (column.type, column.missing, column.distinct) == ("number", 2, 20)
    assert (warning.column, warning.code, warning.count) == ("a", "missing-tokens", 2)
    assert [(one.row, one.value) for one in warning.examples] == [(1, token), (2, token)]
    assert_array_equal(table.dense[:3, 0], [1.5, NAN, NAN])


@pytest.mark.parametrize("token", ["NA", "?", "-", "<NA>"])
def test_a_token_among_texts(shelf: Shelf, token: str):
    table = shelf.table(f"a,y\nred,1\n{token},2\nblue,3\n,4\n".encode(), "csv")
    column = table.dataset.columns[0]
    assert (column.categories, column.missing) == (["blue", "red"], 2)
    assert [(one.code, one.count) for one in warned(table)] == [("missing-tokens", 1)]


@pytest.mark.parametrize("late", [False, True])
def test_a_token_after_blocks_of_numbers(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, late: bool):
    monkeypatch.setattr(reader, "BLOCK", 1000)
    lines = [f"{i}.25,{i},2020-01-{i % 28 + 1:02},t{i % 3}" for i in range(1000)]
    row = 900 if late else 2
    lines[row] = "?,?,?,?"
    table = shelf.table(("a,b,c,d\n" + "\n".join(lines)).encode(), "csv")
    assert [column.type for column in table.dataset.columns] == ["number", "number", "date", "category"]
    assert [column.missing for column in table.dataset.columns] == [1, 1, 1, 1]
    assert [(w.column, w.examples[0].row) for w in warned(table)] == [(name, row) for name in "abcd"]
    assert np.isnan(table.dense[row]).all()
    rest = np.delete(np.arange(1000), row)
    assert_array_equal(table.dense[rest, :2], np.column_stack([rest + 0.25, rest]))


def test_plus_and_minus_are_texts(shelf: Shelf):
    table = shelf.table(b"a,y\n+,1\n-,2\n?,3\n-,4\n", "csv")
    column = table.dataset.columns[0]
    assert (column.categories, column.missing) == (["+", "-"], 1)
    assert [(w.code, w.count) for w in warned(table)] == [("missing-tokens", 1)]


def test_the_option_missing_is_exact_and_silent(shelf: Shelf):
    table = shelf.table(column_of(["1.5", "n.d.", "x"]), "csv", missing=["n.d.", "x"])
    assert (table.dataset.columns[0].missing, warned(table)) == (2, [])
    assert shelf.places(column_of(["1.5", "NA"]), "csv", missing=["n.d."]) == [("/rows/1/columns/0", "mixed-column")]


def test_a_column_of_missing_values_alone_is_of_numbers(shelf: Shelf):
    table = shelf.table(b"a,b,y\nNA,,1\n?,,2\n", "csv")
    assert [(c.type, c.missing) for c in table.dataset.columns] == [("number", 2), ("number", 2), ("number", 0)]


# numbers among texts


@pytest.mark.parametrize("value", ["abc", "1.2.3", "12 mg", "<0.05", "1e", "0x10", "true", "2020-01-01"])
def test_numbers_with_a_text_are_refused(shelf: Shelf, value: str):
    content = column_of(["1.5", "2", value])
    refusal = shelf.refusal(content, "csv")
    (fault,) = refusal.faults
    assert (fault.pointer, fault.code) == ("/rows/2/columns/0", "mixed-column")
    for word in ("'a'", "22 of 23", "row 3", repr(value), "types=a:category", "missing="):
        assert word in fault.detail
    table = shelf.table(content, "csv", types={"a": "category"})
    assert table.dataset.columns[0].categories == sorted({"1.5", "2", value} | {f"{i}.5" for i in range(20)})
    assert shelf.table(content, "csv", missing=[value]).dataset.columns[0].missing == 1


@pytest.mark.parametrize("row", [0, 5, 999])
def test_the_row_of_the_text_is_named_wherever_it_is(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, row: int):
    monkeypatch.setattr(reader, "BLOCK", 500)
    lines = [f"{i},{i}.5" for i in range(1000)]
    lines[row] = "oops,1.5"
    assert shelf.places(("a,b\n" + "\n".join(lines)).encode(), "csv") == [(f"/rows/{row}/columns/0", "mixed-column")]


class Slow(io.RawIOBase):
    """A file whose reads take a moment; whether it was closed during one."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file, self.reading, self.torn = path.open("rb", buffering=0), 0, False

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        self.reading += 1
        time.sleep(0.02)
        part = b"" if self._file.closed else self._file.read(size)
        self.reading -= 1
        return part

    def close(self) -> None:
        self.torn |= self.reading > 0
        self._file.close()
        super().close()


def test_a_file_is_not_closed_while_the_parser_reads_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Else the next file that is opened, of whomever, has its number, and lacks the bytes that this read takes."""
    monkeypatch.setattr(reader, "BLOCK", 500)
    content = tmp_path / "content"
    content.write_text("a,b\n" + "\n".join("oops,1.5" if i == 200 else f"{i},{i}.5" for i in range(400)))
    opened: list[Slow] = []

    class SlowSource(Source):
        def open(self) -> BinaryIO:
            opened.append(Slow(self.path))
            return cast("BinaryIO", opened[-1])

    with pytest.raises(RefusedError):
        reader.read_csv(SlowSource(content), tmp_path, Limits())
    ends = time.monotonic() + 30
    while not all(one.closed for one in opened) and time.monotonic() < ends:
        time.sleep(0.01)
    assert len(opened) > 2
    assert all(one.closed for one in opened)
    assert not any(one.torn for one in opened)


def test_fewer_numbers_than_texts_are_texts(shelf: Shelf):
    table = shelf.table(b"a,y\n1,1\nx,2\ny,3\n2,4\nz,5\n", "csv")
    assert (table.dataset.columns[0].categories, warned(table)) == (["1", "2", "x", "y", "z"], [])


def test_one_half_of_numbers_is_enough_to_be_asked(shelf: Shelf):
    assert shelf.places(b"a,y\n1,1\nx,2\ny,3\n2,4\n", "csv") == [("/rows/1/columns/0", "mixed-column")]


@pytest.mark.parametrize(
    ("values", "code"),
    [
        (["1,234,567", "2,345,678"], "thousands"),
        (["1,234.50", "999"], "thousands"),
        (["1'234", "1"], "thousands"),
        (["1.234.567", "5"], "thousands"),
        (["1,5", "2"], "decimal_comma"),
        (["50%", "60 %"], "percent"),
        (["$5", "€1,000.00"], "currency"),
    ],
)
def test_numbers_that_are_not_read_are_refused_with_the_remedy(shelf: Shelf, values: list[str], code: str):
    content = ("a\ty\n" + "".join(f"{value}\t{i}\n" for i, value in enumerate(values))).encode()
    (fault,) = shelf.refusal(content, "csv").faults
    assert (fault.pointer, fault.code) == ("/columns/0", code)
    assert "types=a:category" in fault.detail


@pytest.mark.parametrize(
    ("thousands", "decimal", "texts", "numbers"),
    [
        (",", None, ["1,234,567", "1,234.5", "-12", ".5", "1e3"], [1234567, 1234.5, -12, 0.5, 1000]),
        (".", ",", ["1.234.567", "1.234,5", "-12", ",5", "1,5e3"], [1234567, 1234.5, -12, 0.5, 1500]),
        (" ", ",", ["1 234 567", "1 234,5", "+12", "0,5", ""], [1234567, 1234.5, 12, 0.5, NAN]),
        ("'", None, ["1'234", "12.5", "?", "7", "8"], [1234, 12.5, NAN, 7, 8]),
        (None, ",", ["1,5", "2", "-,5", "1,", "1e2"], [1.5, 2, -0.5, 1, 100]),
    ],
)  # fmt: skip
def test_marks_in_numbers(shelf: Shelf, thousands: Any, decimal: Any, texts: list[str], numbers: list[float]):
    content = ("a;y\n" + "".join(f"{text};{i}\n" for i, text in enumerate(texts))).encode()
    table = shelf.table(content, "csv", thousands=thousands, decimal=decimal)
    assert table.dataset.columns[0].type == "number"
    assert_array_equal(table.dense[:, 0], numbers)


@pytest.mark.parametrize("text", ["1,23", "12,34,567", "1,2345", "1,234,56"])
def test_marks_in_wrong_places_are_no_numbers(shelf: Shelf, text: str):
    assert shelf.places(column_of(["1,234", text]), "csv", thousands=",") == [("/rows/1/columns/0", "mixed-column")]


def test_a_point_is_no_decimal_comma(shelf: Shelf):
    assert shelf.places(b"a;y\n1,5;1\n2.5;2\n3,5;3\n", "csv", decimal=",") == [("/rows/1/columns/0", "mixed-column")]


# types that were asked for


def test_types_settle_what_a_column_is(shelf: Shelf):
    content = b"a,b,c,d\n1,2020-01-01,007,5\n2,2020-01-02,1,6\n"
    table = shelf.table(content, "csv", types={"a": "category", "b": "category", "c": "number", "d": "number"})
    assert [c.type for c in table.dataset.columns] == ["category", "category", "number", "number"]
    assert_array_equal(table.dense, [[0, 0, 7, 5], [1, 1, 1, 6]])
    assert warned(table) == []


@pytest.mark.parametrize(
    ("types", "place"),
    [
        ({"a": "number"}, "/rows/1/columns/0"),
        ({"a": "date"}, "/rows/0/columns/0"),
        ({"b": "number"}, "/rows/0/columns/1"),
    ],
)
def test_types_that_do_not_fit_are_refused_with_the_row(shelf: Shelf, types: dict[str, str], place: str):
    assert shelf.places(b"a,b\n1,2020-01-01\nx,2020-01-02\ny,\n", "csv", types=types) == [(place, "mixed-column")]


def test_types_of_columns_that_are_not_there(shelf: Shelf):
    (fault,) = shelf.refusal(b"price,y\n1,2\n", "csv", types={"prise": "number"}).faults
    assert (fault.pointer, fault.code) == ("/query/types", "unknown_column")
    assert "price" in fault.detail


# dates


def test_nanoseconds(shelf: Shelf):
    table = shelf.table(
        b"d,y\n2021-11-07 14:00:00.011463807+00:00,1\n2021-11-07 14:00:00+00:00,2\n2021-11-07T15:00:00.5+01:00,3\n",
        "csv",
    )
    assert table.dataset.columns[0].type == "date"
    seconds = (table.dense[:, 0] - 18938) * 86400 - 14 * 3600
    np.testing.assert_allclose(seconds, [0.011463807, 0, 0.5], atol=1e-6)
    assert [(w.code, w.count) for w in warned(table)] == [("rounded-times", 1)]


def test_times_with_a_zone_and_without(shelf: Shelf):
    table = shelf.table(b"d,y\n2021-01-01T00:00:00Z,1\n2021-01-01 06:00:00,2\n2021-01-02,3\n", "csv")
    assert_array_equal(table.dense[:, 0], [18628, 18628.25, 18629])
    (warning,) = warned(table)
    assert (warning.code, warning.count, [one.row for one in warning.examples]) == ("mixed-time-zones", 2, [1, 2])


@pytest.mark.parametrize("value", ["2020-01-01", "2020-01-01T12:00:00Z", "2020-01-01 12:00"])
def test_dates_that_begin_late(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, value: str):
    monkeypatch.setattr(reader, "BLOCK", 1000)
    table = shelf.table(b"d,y\n" + b",1\n" * 3000 + f"{value},2\n".encode(), "csv")
    column = table.dataset.columns[0]
    assert (column.type, column.missing, warned(table)) == ("date", 3000, [])
    assert table.dense[-1, 0] == (18262 if len(value) == 10 else 18262.5)


@pytest.mark.parametrize("value", ["31/01/2021", "1/31/21", "31.01.2021 10:30", "2021/01/31", "31-Jan-2021"])
def test_dates_that_are_not_iso_are_told(shelf: Shelf, value: str):
    table = shelf.table(f"t,y\n{value},1\n{value},2\n,3\n".encode(), "csv")
    (warning,) = warned(table)
    assert (table.dataset.columns[0].type, warning.code, warning.count) == ("category", "dates-not-iso", 2)
    assert "ISO 8601" in warning.text


def test_a_date_that_there_is_not(shelf: Shelf):
    assert shelf.places(b"d,y\n2021-01-01,1\n2021-02-30,2\n", "csv") == [("/rows/1/columns/0", "mixed-column")]


def test_dates_with_a_text(shelf: Shelf):
    assert shelf.places(b"d,y\n2021-01-01,1\n2021-01-02,2\nsoon,3\n", "csv") == [("/rows/2/columns/0", "mixed-column")]


# whole numbers with leading zeros


@pytest.mark.parametrize("row", [0, 700])
@pytest.mark.parametrize("value", ["007", '"007"', " 007", "00"])
def test_leading_zeros_are_kept(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, row: int, value: str):
    monkeypatch.setattr(reader, "BLOCK", 1000)
    lines = [f"{i},{10 + i % 5},{i}.0" for i in range(800)]
    lines[row] = f"0,{value},01.5"
    table = shelf.table(("a,zip,b\n" + "\n".join(lines)).encode(), "csv")
    assert [c.type for c in table.dataset.columns] == ["number", "category", "number"]
    text = value.strip('"')
    assert table.dataset.columns[1].categories == sorted({"10", "11", "12", "13", "14", text})
    (warning,) = warned(table)
    assert (warning.code, warning.count, warning.examples[0].row) == ("leading-zeros", 1, row)
    assert "types=zip:number" in warning.text
    numbers = shelf.table(("a,zip,b\n" + "\n".join(lines)).encode(), "csv", types={"zip": "number"})
    assert (numbers.dataset.columns[1].type, numbers.dense[row, 1], warned(numbers)) == ("number", float(text), [])


@pytest.mark.parametrize("values", [["0", "10", "100"], ["00.5", "1"], ["-01", "2"], ["0", "-0", "1e05"]])
def test_other_zeros_are_numbers(shelf: Shelf, values: list[str]):
    table = shelf.table(("a,y\n" + "".join(f"{value},1\n" for value in values)).encode(), "csv")
    assert (table.dataset.columns[0].type, warned(table)) == ("number", [])


@given(
    st.lists(st.sampled_from(["0", "1", "007", "10", "0.07", "t01", "2020-01-01 06:07", "01:02"]), min_size=1),
    st.integers(1, 50),
    st.sampled_from([",", ";", "\t"]),
)
def test_padding_is_found_whatever_the_parts(fields: list[str], size: int, delimiter: str):
    content = delimiter.join(fields).encode() + b"\n"
    watch = Padding(delimiter)
    for start in range(0, len(content), size):
        watch.watch(content[start : start + size])
    assert watch.found >= ("007" in fields)
    whole = Padding(delimiter)
    whole.watch(content)
    assert whole.found == ("007" in fields)


# any mixture


VALUES = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
    st.sampled_from(["", "NA", "?", "007", "x", "2020-01-01", "9007199254740993", "50%", "1,5"]),
)


@settings(max_examples=40)
@given(st.lists(VALUES, min_size=1, max_size=30), st.integers(30, 400))
def test_a_column_is_refused_or_told_or_exactly_its_values(values: list[str], block: int):
    """Whatever is mixed: what is stored stands for the texts of the file, one for one."""

    content = ("a,y\n" + "".join(f'"{value}",1\n' for value in values)).encode()
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as directory:
        patch.setattr(reader, "BLOCK", block)
        shelf = Shelf(Path(directory))
        if shelf.refused(content, "csv"):
            return
        table = shelf.table(content, "csv")
        column, stored = table.dataset.columns[0], table.dense[:, 0].tolist()
        codes = {warning.code for warning in warned(table)}
        for text, value in zip(values, stored, strict=True):
            if np.isnan(value):
                assert text == "" or (text in {"NA", "?"} and "missing-tokens" in codes)
            elif column.categories is not None:
                assert column.categories[int(value)] == text
            elif column.type == "number":
                exact = "integers-beyond-double" in codes or "." in text or "e" in text
                assert float(text) == value if exact else int(text) == int(value)
