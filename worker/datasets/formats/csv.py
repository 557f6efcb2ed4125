"""CSV, by pyarrow's reader, in blocks: a first look decides the types of the columns, the rest of the file confirms."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as pa_csv

from worker.datasets.draft import Draft
from worker.datasets.formats.columns import BatchWriter, decimal_comma
from worker.datasets.refusal import Limits, RefusedError, invalid, named
from worker.datasets.source import Source

BLOCK = 2**22  # bytes parsed together; a row cannot be longer
DELIMITERS = ",;\t|"
_DAY = pa.timestamp("us")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a file is written: its delimiter, whether it begins with names, and these."""

    delimiter: str
    header: bool
    names: tuple[str, ...]

    @contextmanager
    def reading(self, source: Source, types: dict[str, pa.DataType]) -> Iterator[Any]:
        """A streaming reader. Raises RefusedError for what the parser does not take, and _RetypeError."""
        names = None if self.header else list(self.names)
        parsing = pa_csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True)
        try:
            with source.open() as stream:
                quotes = Quotes(stream)
                with pa_csv.open_csv(
                    pa.PythonFile(quotes, mode="r"),
                    pa_csv.ReadOptions(use_threads=False, block_size=BLOCK, column_names=names),
                    parsing,
                    pa_csv.ConvertOptions(column_types=types, strings_can_be_null=True),
                ) as reader:
                    yield reader
        except pa.ArrowInvalid as error:
            if "conversion error to" in str(error) and "UTF8" not in str(error):
                raise _RetypeError from None
            raise _explained(error, self, source) from None
        if types:
            quotes.check()


class Quotes:
    """A stream that counts the quotes that go by; the parser does not mind one that is never closed."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.count, self.closed = stream, 0, False

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        part = self._stream.read(size)
        self.count += part.count(b'"')
        return part

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()
        self.closed = True

    def check(self) -> None:
        """Raise RefusedError when the stream has ended inside a quoted text."""
        if self.count % 2:
            raise invalid("", "open_quote", "A quoted text is never closed (the number of quotes is odd).")


def read_csv(source: Source, directory: Path, limits: Limits, header: bool | None = None) -> Draft:
    """Read a CSV file in UTF-8. `header`: whether the first row holds names; None: unless all of it is numbers."""
    dialect = sniff(source, header)
    limits.check(1, len(dialect.names))
    types = _first_types(source, dialect)
    for _ in range(3):
        try:
            return _pass(source, directory, limits, dialect, types)
        except _RetypeError:
            types = _confirmed(source, dialect, types)
    raise invalid("", "csv", "The values of a column change their type in a way that cannot be read.")


def sniff(source: Source, header: bool | None) -> Dialect:
    """Delimiter and names from the beginning of the file."""
    with source.open() as stream:
        head = _head(stream)
    for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        if head.startswith(mark):
            raise invalid("", "encoding", "The file is in UTF-16; save it as UTF-8.")
    text = codecs.getincrementaldecoder("utf-8-sig")(errors="replace").decode(head).lstrip("\r\n")
    if not text.strip():
        raise invalid("", "empty", "The file is empty.")
    line = re.sub(r'"[^"]*"', "", text.partition("\n")[0])
    delimiter = max(DELIMITERS, key=line.count)
    try:
        first = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error:
        raise invalid("/rows/0", "csv", "The first row cannot be read as CSV.") from None
    present = not all(_is_number(field) for field in first) if header is None else header
    if not present:
        return Dialect(delimiter, header=False, names=tuple(f"x{j}" for j in range(len(first))))
    if any("\ufffd" in name for name in first):
        raise _encoding(source)
    return Dialect(delimiter, header=True, names=named(first))


def _head(stream: BinaryIO) -> bytes:
    head = b""
    while len(head) < BLOCK and (part := stream.read(BLOCK - len(head))):
        head += part
        if head.count(b"\n") > 1 and b'"' not in head:
            break
    return head


def _is_number(field: str) -> bool:
    return re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", field) is not None


def _first_types(source: Source, dialect: Dialect) -> list[pa.DataType]:
    with dialect.reading(source, {}) as reader:
        return [_target(kind) for kind in reader.schema.types]


def _target(kind: pa.DataType) -> pa.DataType:
    """What a column is read as, given what its first values look like."""
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind):
        return pa.float64()
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    if pa.types.is_date(kind):
        return _DAY
    return pa.string()


class _RetypeError(Exception):
    """A value does not fit the type that the beginning of its column suggested."""


def _pass(source: Source, directory: Path, limits: Limits, dialect: Dialect, types: list[pa.DataType]) -> Draft:
    with BatchWriter(directory, dialect.names, types, limits) as writer:
        with dialect.reading(source, dict(zip(dialect.names, types, strict=True))) as reader:
            for batch in _batches(reader):
                writer.add(batch.columns)
        for j, texts in writer.categories.items():
            if decimal_comma(texts):
                detail = (
                    f"Column {dialect.names[j]!r} holds numbers with a decimal comma (or commas between thousands); "
                    "write them with a point and without separators: 1234.5."
                )
                raise invalid(f"/columns/{j}", "decimal_comma", detail)
        return writer.finish(header=dialect.header)


def _batches(reader: Any) -> Iterator[Any]:
    while True:
        try:
            yield reader.read_next_batch()
        except StopIteration:
            return


def _confirmed(source: Source, dialect: Dialect, types: list[pa.DataType]) -> list[pa.DataType]:
    """The types that hold for the whole file: what is not all numbers, or all dates, is text."""
    held = {j for j, kind in enumerate(types) if not pa.types.is_string(kind)}
    with dialect.reading(source, dict.fromkeys(dialect.names, pa.string())) as reader:
        for batch in _batches(reader):
            held = {j for j in held if _castable(batch.column(j), types[j])}
    return [kind if j in held else pa.string() for j, kind in enumerate(types)]


def _castable(values: pa.Array, kind: pa.DataType) -> bool:
    try:
        pc.cast(pc.utf8_trim_whitespace(values), kind)
    except pa.ArrowInvalid:
        return False
    return True


def _explained(error: Exception, dialect: Dialect, source: Source) -> RefusedError:
    """The problem behind an error of the parser, without a word of the file's content."""
    message = str(error)
    ragged = re.match(r"CSV parse error: (?:Row #(\d+): )?Expected (\d+) columns, got (\d+)", message)
    if ragged:
        number, expected, found = (int(text or 0) for text in ragged.groups())
        number -= dialect.header
        hint = " A decimal comma looks like this, too." if dialect.delimiter == "," else ""
        detail = f"Row {number} has {found} values, and the first has {expected}.{hint}"
        return invalid(f"/rows/{number - 1}", "ragged", detail)
    if "UTF8" in message:
        return _encoding(source)
    if "straddling" in message:
        return invalid("", "long_row", f"A row is longer than {BLOCK} bytes; perhaps a quote is never closed.")
    if "Empty CSV" in message:
        return invalid("/rows", "empty", "There are no rows.")
    return invalid("", "csv", "The file cannot be read as CSV.")


def _encoding(source: Source) -> RefusedError:
    """Find the line of the first byte that is no UTF-8."""
    decoder, line = codecs.getincrementaldecoder("utf-8")(), 1
    with source.open() as stream:
        while part := stream.read(2**20):
            try:
                line += decoder.decode(part).count("\n")
            except UnicodeDecodeError as error:
                line += bytes(error.object[: error.start]).count(b"\n")
                break
    return invalid("", "encoding", f"Line {line} holds bytes that are no UTF-8; save the file as UTF-8.")
