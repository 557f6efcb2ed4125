"""How a CSV file is written, from its beginning: encoding, lines before the table, delimiter, names."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

import pyarrow as pa

from worker.contract.dataset import DatasetWarning, ReadingOptions
from worker.datasets.formats.spelling import DATES, FORMATTED, PLAIN, Spelling, Spellings
from worker.datasets.refusal import RefusedError, invalid, named
from worker.datasets.source import Source

DELIMITERS = ",;\t|"
HEAD = 2**22  # bytes that are looked at, if need be
LOOKED_AT = 50  # rows that are
PIECE = 2**20  # bytes decoded together
_EXCEL = re.compile(r"(?i)\"?sep=(.)\"?\s*")
_ASK = "say which by the option header=true or header=false (or `Content-Type: text/csv; header=present`, or `absent`)"


class Decoded(Source):
    """A text in another encoding, read as UTF-8."""

    def __init__(self, source: Source, encoding: str) -> None:
        super().__init__(source.path)
        self._source, self._encoding = source, encoding

    def open(self) -> BinaryIO:
        """A stream of UTF-8."""
        return cast("BinaryIO", _DecodedStream(self._source.open(), self._encoding))

    def size(self) -> int:
        """Bytes of the file, not of what is read."""
        return self._source.size()


class _DecodedStream(io.RawIOBase):
    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        super().__init__()
        self._stream, self._name = stream, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._rest, self._line, self._over = b"", 1, False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes. Raises RefusedError for what is not in this encoding."""
        while not self._over and (size < 0 or len(self._rest) < size):
            part = self._stream.read(PIECE)
            self._over = not part
            try:
                text = self._decoder.decode(part, final=self._over)
            except UnicodeError:
                raise encoding_fault(f"near line {self._line} are bytes that are no {self._name}") from None
            self._line += text.count("\n")
            self._rest += text.encode("utf-8", "surrogatepass")
        taken, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        return taken

    def close(self) -> None:
        self._stream.close()
        super().close()


def encoding_fault(what: str) -> RefusedError:
    """The refusal of a text for its encoding."""
    remedy = "save the file as UTF-8, or name its encoding by the option `encoding` (as in encoding=windows-1252)"
    return invalid("", "encoding", f"The file cannot be decoded: {what}; {remedy}.")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a file is written: bytes before the table, its delimiter, whether it begins with names, and these."""

    delimiter: str
    header: bool
    names: tuple[str, ...]
    skipped: int = 0
    warnings: tuple[DatasetWarning, ...] = ()


def sniff(source: Source, options: ReadingOptions) -> Dialect:
    """The dialect, as the options say or from the beginning of the file. Raises RefusedError."""
    text, mark = _text(source)
    skipped, delimiter, warnings = _preamble(text, options.delimiter)
    table = text[skipped:]
    blank = len(table) - len(table.lstrip("\r\n"))
    table = table[blank:]
    if not table.strip():
        raise invalid("", "empty", "The file is empty.")
    line = re.sub(r'"[^"]*"', "", table.partition("\n")[0])
    delimiter = delimiter or max(DELIMITERS, key=line.count)
    if options.delimiter is None and delimiter not in line:
        _check_blanks(table)
    rows = _rows(table, delimiter)
    header = _is_header(rows, Spellings.of(options)) if options.header is None else options.header
    _check_ends(rows, delimiter)
    if header and not rows[0][0].strip() and len(rows[0]) > 1:
        remedy = "give it one, or leave it out; pandas writes its index so, and to_csv(index=False) does not"
        raise invalid("/columns/0", "empty_name", f"Column 1 has no name: {remedy}.")
    names = named(rows[0]) if header else tuple(f"x{j}" for j in range(len(rows[0])))
    if any("\ufffd" in name for name in names):
        raise undecodable(source)
    before = mark + len(text[:skipped].encode()) if skipped else 0
    return Dialect(delimiter, header, names, before, warnings)


def _text(source: Source) -> tuple[str, int]:
    """The beginning of the file, a few rows, however long they are; and the bytes of its mark."""
    with source.open() as stream:
        head, lines, quotes = b"", 0, 0
        while len(head) < HEAD and (part := stream.read(2**16)):
            head, lines, quotes = head + part, lines + part.count(b"\n"), quotes + part.count(b'"')
            if lines > 2 * LOOKED_AT and quotes % 2 == 0:
                break
    for mark, name in ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if head.startswith(mark):
            raise encoding_fault(f"it is in UTF-16 (encoding={name})")
    if b"\0" in head:
        raise _binary(head)
    marked = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
    return codecs.getincrementaldecoder("utf-8")(errors="replace").decode(head[marked:]), marked


def _binary(head: bytes) -> RefusedError:
    """UTF-16 without its mark shows as every other byte being NUL."""
    for start, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        half = head[start::2]
        if half.count(0) > 0.4 * len(half) and head[1 - start :: 2].count(0) < 0.1 * len(half):
            return encoding_fault(f"every other byte is NUL, as in UTF-16 without its mark (encoding={name})")
    return encoding_fault("it has NUL bytes, so that it is no text, or one in UTF-16 or UTF-32")


def _preamble(text: str, delimiter: str | None) -> tuple[int, str | None, tuple[DatasetWarning, ...]]:
    """Characters before the table (`sep=;` of Excel, comments), the delimiter that they name, what is told of them."""
    skipped = 0
    if found := _EXCEL.fullmatch(text.partition("\n")[0]):
        skipped, delimiter = text.find("\n") + 1 or len(text), delimiter or found[1]
    lines = text[skipped:].splitlines(keepends=True)
    comments = 0
    while comments < len(lines) - 1 and lines[comments].startswith("#"):
        comments += 1
    if comments and _are_names(lines[comments - 1], lines[comments], delimiter):
        comments -= 1
    if not comments:
        return skipped, delimiter, ()
    lines_are = (
        "One line before the table begins with # and is"
        if comments == 1
        else f"{comments} lines before the table begin with # and are"
    )
    told = f"{lines_are} left out."
    warning = DatasetWarning(column=None, code="preamble", text=told, count=comments)
    return skipped + sum(map(len, lines[:comments])), delimiter, (warning,)


def _are_names(comment: str, line: str, delimiter: str | None) -> bool:
    """Whether a line with a `#` holds the names of the columns of the line below it."""
    for mark in [delimiter] if delimiter else DELIMITERS:
        if comment.count(mark) == line.count(mark) > 0:
            return comment[1:2] not in " \t#" or any(_is_number(field.strip(' "\r\n')) for field in line.split(mark))
    return False


def _check_blanks(table: str) -> None:
    """Refuse a file whose values are separated by blanks."""
    lines = [line.split() for line in table.splitlines()[:LOOKED_AT] if line.strip()]
    width = len(lines[-1])
    if width < 2 or any(len(line) != width for line in lines[1:]):
        return
    numbers = sum(_is_number(cell) for cell in lines[-1])
    if 2 * numbers >= width:
        remedy = "write them with commas or tabs, or send delimiter=space if it is always a single blank"
        raise invalid("/rows/0", "blanks", f"The values are separated by blanks, which is no CSV; {remedy}.")


def _is_number(field: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", field) is not None


def _rows(table: str, delimiter: str) -> list[list[str]]:
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(table, newline=""), delimiter=delimiter):
            if row or not rows:
                rows.append(row)
            if len(rows) > LOOKED_AT:
                break
    except csv.Error:
        if not rows:
            raise invalid("/rows/0", "csv", "The first row cannot be read as CSV.") from None
    return rows[:-1] if len(table) > HEAD // 2 and len(rows) > 1 else rows  # the last may be cut off


def _check_ends(rows: Sequence[Sequence[str]], delimiter: str) -> None:
    """Refuse delimiters at the ends of rows, which make a column of nothing."""
    below = rows[1:]
    longer = 0 if rows[0][-1] == "" else 1
    if len(rows[0]) + longer < 2 or not below:
        return
    if all(len(row) == len(rows[0]) + longer and row[-1] == "" for row in below):
        where = "Every row" if longer == 0 else "Every row but that of the names"
        told = f"{where} has a trailing delimiter: it ends with {delimiter!r}; remove these."
        raise invalid(f"/columns/{len(rows[0]) - 1 + longer}", "trailing_delimiter", told)


def _is_header(rows: Sequence[Sequence[str]], spellings: Spellings) -> bool:
    """Whether the first row holds names. Raises RefusedError where it may be both."""
    first, below = rows[0], rows[1:]
    counted = [str(j) for j in range(len(first))]
    if len(first) > 1 and list(first) in (counted, ["", *counted[:-1]]):
        return True  # as pandas numbers columns
    kinds = [_kind(spelling) for spelling in _spelled(first, spellings)]
    below = below[: max(2**16 // len(first), 5)]
    for j in (j for j, kind in enumerate(kinds) if kind == "text"):
        others = [row[j] for row in below if j < len(row) and row[j] != first[j]]
        column = {_kind(spelling) for spelling in _spelled(others, spellings)} - {None}
        if column and "text" not in column:
            return True  # a text over numbers or dates
    if "number" not in kinds and "date" not in kinds:
        again = sum(field in {row[j] for row in below if j < len(row)} for j, field in enumerate(first))
        if 2 * again < len(first):
            return True  # texts over texts, most of them others
    told = "The first row looks like the rows below it, so that it may be names or data"
    raise invalid("/rows/0", "header", f"{told}; {_ASK}.")


def _spelled(fields: Sequence[str], spellings: Spellings) -> list[Spelling]:
    codes = spellings.classify(pa.array([field.strip() for field in fields], pa.string()))
    return [Spelling(code) for code in codes.tolist()]


def _kind(spelling: Spelling) -> str | None:
    """Number, date or text, whether it would be read as such or not; None for a missing value."""
    if spelling is Spelling.MISSING:
        return None
    dates = {*DATES, Spelling.OTHER_DATE}
    return "number" if spelling in {*PLAIN, *FORMATTED} else "date" if spelling in dates else "text"


def undecodable(source: Source) -> RefusedError:
    """The refusal of bytes that are no UTF-8, with the line of the first one."""
    decoder, line = codecs.getincrementaldecoder("utf-8")(), 1
    with source.open() as stream:
        while part := stream.read(2**20):
            try:
                line += decoder.decode(part).count("\n")
            except UnicodeDecodeError as error:
                line += bytes(error.object[: error.start]).count(b"\n")
                break
    return encoding_fault(f"Line {line} holds bytes that are no UTF-8")
