"""How a CSV file begins: names or data, lines before the table, encodings; and what is no table at all."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.datasets.files import Shelf, npz
from worker.contract.dataset import Format
from worker.datasets import RefusedError
from worker.datasets.sniff import recognize

# names or data


@pytest.mark.parametrize("width", [2, 3, 30])
def test_positions_in_order_are_names(shelf: Shelf, width: int):
    names = [str(j) for j in range(width)]
    rows = [",".join(f"{i + j / 7:.3f}" for j in range(width)) for i in range(3)]
    table = shelf.table("\n".join([",".join(names), *rows]).encode(), "csv")
    assert ([c.name for c in table.dataset.columns], table.dataset.rows) == (names, 3)


QUESTIONS = {
    "numbers over numbers": "5.1,3.5\n4.9,3.0\n4.7,3.2\n",
    "positions in another order": "1,0\n4,3\n4,3\n",
    "one number": "7\n8\n",
    "one row of numbers": "1,2\n",
    "iris": "5.1,3.5,Iris-setosa\n4.9,3.0,Iris-setosa\n4.7,3.2,Iris-virginica\n",
    "years": "country,1960,1961\nA,1,2\nB,3,4\n",
    "dates over dates": "2020-01-01,5\n2020-01-02,6\n",
    "letters that come again": "p,x,s\ne,x,s\np,x,y\ne,b,s\n",
    "a missing value": "b,30.83,?\na,58.67,1\nb,24.5,2\n",
    "formatted numbers": '"1,234",5%\n"2,345",6%\n',
    "numbers over texts": "1990,1991\na,b\n",
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_first_row_like_the_others_is_a_question(shelf: Shelf, name: str):
    content = QUESTIONS[name].encode()
    (fault,) = shelf.refusal(content, "csv").faults
    assert (fault.pointer, fault.code) == ("/rows/0", "header")
    assert "header=true" in fault.detail
    assert "header=false" in fault.detail


def test_the_answers(shelf: Shelf):
    content = QUESTIONS["iris"].encode()
    named, data = shelf.table(content, "csv", header=True), shelf.table(content, "csv", header=False)
    assert ([c.name for c in named.dataset.columns], named.dataset.rows) == (["5.1", "3.5", "Iris-setosa"], 2)
    assert ([c.name for c in data.dataset.columns], data.dataset.rows) == (["x0", "x1", "x2"], 3)
    assert_array_equal(data.dense[:, :2], [[5.1, 3.5], [4.9, 3.0], [4.7, 3.2]])
    assert named.dataset.id != data.dataset.id


@pytest.mark.parametrize(
    "content",
    [
        "a,b\n1,2\n",
        "a,b\nx,y\nz,w\n",
        "name,2020\nA,1\nB,2\nC,\n".replace("2020", "year"),
        "age,town\n,Ulm\n3,Bonn\n",
        "t,y\n2020-01-01,1\n",
        'a,y\n"1,234",2\n',
        "sex,class\nmale,1\nsex,0\n",
        "x\nyes\nno\n",
    ],
)
def test_names_over_other_things_are_names(shelf: Shelf, content: str):
    table = shelf.table(content.encode(), "csv", thousands=",")
    assert [c.name for c in table.dataset.columns] == content.partition("\n")[0].split(",")


def test_names_that_come_again_are_names_and_no_values(shelf: Shelf):
    """Two files, one after the other."""
    assert shelf.places(b"a,b\n1,2\na,b\n3,4\n", "csv") == [("/rows/1/columns/0", "mixed-column")]


@pytest.mark.parametrize("content", [",a,b\n0,1,2\n1,2,3\n", ",0,1\n0,1,2\n1,2,3\n"])
def test_the_index_of_pandas_is_named_as_the_cause(shelf: Shelf, content: str):
    (fault,) = shelf.refusal(content.encode(), "csv").faults
    assert (fault.pointer, fault.code, "index=False" in fault.detail) == ("/columns/0", "empty_name", True)


# before and beside the table


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize(
    ("before", "delimiter", "told"),
    [
        (b"sep=;", b";", 0),
        (b'"sep=|"', b"|", 0),
        (b"# made by X, \xc3\xbc", b",", 1),
        (b"# one|#two", b"\t", 2),
    ],
)
def test_lines_before_the_table(shelf: Shelf, mark: bytes, end: bytes, before: bytes, delimiter: bytes, told: int):
    lines = [*before.split(b"|#" if told else b"\0"), b"a,b", b"1,2", b"3,4"]
    if told == 2:
        lines[1] = b"#" + lines[1]
    table = shelf.table(mark + end.join(line if i < len(lines) - 3 else line.replace(b",", delimiter)
                                        for i, line in enumerate(lines)) + end, "csv")  # fmt: skip
    assert [c.name for c in table.dataset.columns] == ["a", "b"]
    assert_array_equal(table.dense, [[1, 2], [3, 4]])
    assert [(w.column, w.code, w.count) for w in table.dataset.warnings] == [(None, "preamble", told)] * bool(told)


def test_names_after_a_hash_are_names(shelf: Shelf):
    table = shelf.table(b"# made by X\n#a,b\n1,2\n", "csv")
    assert ([c.name for c in table.dataset.columns], table.dataset.warnings[0].count) == (["#a", "b"], 1)
    assert [c.name for c in shelf.table(b"# a,b\n1,2\n", "csv").dataset.columns] == ["# a", "b"]
    assert [c.name for c in shelf.table(b"#a,b\nx,y\n", "csv").dataset.columns] == ["#a", "b"]


@pytest.mark.parametrize("content", [b"a,b\n1,2,\n3,4,\n", b"a,b,\n1,2,\n", b"a;b;\n1;2;\n"])
def test_trailing_delimiters_are_named_as_the_cause(shelf: Shelf, content: bytes):
    (fault,) = shelf.refusal(content, "csv").faults
    assert (fault.pointer, fault.code) == ("/columns/2", "trailing_delimiter")
    assert "trailing" in fault.detail


@pytest.mark.parametrize("content", [b"Report\na,b\n1,2\n", b'"a","b"\n"1",1,2\n"2",3,4\n'])
def test_other_lines_and_row_names_are_named_as_causes(shelf: Shelf, content: bytes):
    (fault,) = shelf.refusal(content, "csv").faults
    assert (fault.pointer, fault.code) == ("/rows/0", "ragged")
    assert "before the names" in fault.detail


@pytest.mark.parametrize("content", [b" 0.1  18.0 2.3\n 0.02  0.0 7.0\n", b"a b c\n1 2 3\n4 5 6\n", b"x  y\n1  2\n"])
def test_blanks_between_values(shelf: Shelf, content: bytes):
    assert shelf.places(content, "csv") == [("/rows/0", "blanks")]


def test_single_blanks_on_request(shelf: Shelf):
    assert_array_equal(shelf.table(b"a b\n1 2\n3 4\n", "csv", delimiter=" ").dense, [[1, 2], [3, 4]])
    assert shelf.table(b"first name\nJohn Doe\nJane Roe\n", "csv").dataset.columns[0].distinct == 2


def test_a_delimiter_on_request(shelf: Shelf):
    table = shelf.table(b"a;b,c\n1;x,y\n", "csv", delimiter=";")
    assert [c.name for c in table.dataset.columns] == ["a", "b,c"]


# encodings


@pytest.mark.parametrize(
    "encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "shift_jis", "gb18030", "utf-8-sig"]
)
@pytest.mark.parametrize("block", [None, 7])
def test_encodings(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, encoding: str, block: int | None):
    word = "山田" if encoding in {"shift_jis", "gb18030"} or encoding.startswith("utf") else "Größe"
    text = f"# {word}\n{word},y\n{word}1,1\n{word}2,2\n" * 1
    if block is not None:
        monkeypatch.setattr("worker.datasets.formats.dialect.PIECE", block)
    table = shelf.table(text.encode(encoding), "csv", encoding=encoding)
    assert table.dataset.columns[0].name == word
    assert table.dataset.columns[0].categories == [f"{word}1", f"{word}2"]
    assert_array_equal(table.dense[:, 1], [1, 2])


def test_bytes_that_are_not_in_the_encoding(shelf: Shelf):
    content = "a,y\nx,1\n".encode("utf-16-le") + b"\x00\xd8\x00\xd8"
    assert shelf.places(content, "csv", encoding="utf-16-le") == [("", "encoding")]
    (fault,) = shelf.refusal("a,y\né,1\n".encode("latin-1"), "csv").faults
    assert "Line 2" in fault.detail
    assert "encoding=" in fault.detail


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("a,b\n1,2\n".encode("utf-16-be"), "encoding=utf-16-be"),
        ("a,b\n1,2\n".encode("utf-16-le"), "encoding=utf-16-le"),
        ("a,b\n1,2\n".encode("utf-16"), "encoding=utf-16"),
        ("a,b\n1,2\n".encode("utf-32-le"), "NUL"),
        (b"a,b\n1,\x002\n", "NUL"),
    ],
)
def test_other_encodings_are_named(shelf: Shelf, content: bytes, word: str):
    (fault,) = shelf.refusal(content, "csv").faults
    assert (fault.pointer, fault.code, word in fault.detail) == ("", "encoding", True)


# no table at all


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return buffer.getvalue()


OTHERS = {
    "html": (b"\n<!DOCTYPE html>\n<html>", "HTML"),
    "xml": (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "XML"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
    "json": (b'{"a": [1, 2]}', "JSON"),
    "json lines": (b'{"a": 1}\n{"a": 2}\n', "JSON"),
    "json records": (b'\xef\xbb\xbf[\n {"a": 1}]', "JSON"),
    "json rows": (b"[[1, 2], [3, 4]]", "JSON"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
    "xlsx": (zipped("[Content_Types].xml", "xl/workbook.xml"), "Excel"),
    "xlsx of another writer": (zipped("xl/workbook.xml", "[Content_Types].xml"), "Excel"),
    "ods": (zipped("mimetype", "content.xml"), "OpenDocument"),
    "zip": (zipped("a.csv"), "zip"),
    "tar": (bytes(257) + b"ustar\x0000" + bytes(250), "tar"),
    "gzip": (b"\x1f\x8b\x08", "gzip"),
    "7z": (b"7z\xbc\xaf\x27\x1c", "7z"),
    "pickle": (pickle.dumps(np.zeros(3)), "pickle"),
    "arff": (b"% a comment\n@RELATION iris\n@ATTRIBUTE a NUMERIC\n", "ARFF"),
    "sqlite": (b"SQLite format 3\0", "SQLite"),
    "png": (b"\x89PNG\r\n", "image"),
    "stata": (b"<stata_dta><header>", "Stata"),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("media_type", ["text/csv", "application/octet-stream"])
def test_files_that_are_no_tables_are_called_what_they_are(name: str, media_type: str):
    content, word = OTHERS[name]
    with pytest.raises(RefusedError) as refused:
        recognize(media_type, content)
    assert word in refused.value.detail
    assert refused.value.detail.endswith(".")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<a>,{b}\n1,2\n", "csv"),
        (b"[a],[b]\n1,2\n", "csv"),
        (b"{a},b\n1,2\n", "csv"),
        (b"version,size\n1,2\n", "csv"),
        (npz(a=np.zeros(2)), "npz"),
    ],
)
def test_files_that_only_begin_alike(content: bytes, kind: Format):
    assert recognize("application/octet-stream", content) == kind
