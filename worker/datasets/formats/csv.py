"""CSV, by pyarrow's reader, in blocks.

The beginning of the file suggests the types of the columns, and one pass reads them so. Where a value contradicts, or
may mean something else than it was read as, those columns are looked at as a whole (`Evidence`), and the file is
read again with what was learnt: at most three passes, and a look before the second.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from pyarrow import csv as pa_csv

from worker.contract.dataset import ColumnType, DatasetWarning, ReadingOptions
from worker.datasets.draft import DenseWriter, Draft
from worker.datasets.formats.columns import wanted_types
from worker.datasets.formats.converters import (
    Converter,
    DoubtError,
    Floats64,
    Integers,
    Moments,
    Padding,
    TextDates,
    TextNumbers,
    Texts,
    without_minus,
)
from worker.datasets.formats.dialect import Decoded, Dialect, sniff, undecodable
from worker.datasets.formats.spelling import Evidence, Spellings
from worker.datasets.formats.verdict import Column, type_of, warnings_of
from worker.datasets.refusal import Limits, RefusedError, invalid
from worker.datasets.source import Source

BLOCK = 2**22  # bytes parsed together; a row cannot be longer
PASSES = 4  # more than are ever needed
GLANCE = 2**16  # values of the first block that suggest types


def read_csv(source: Source, directory: Path, limits: Limits, options: ReadingOptions | None = None) -> Draft:
    """Read a CSV file. Raises RefusedError."""
    options = options or ReadingOptions()
    if options.encoding is not None:
        source = Decoded(source, options.encoding)
    dialect = sniff(source, options)
    limits.check(1, len(dialect.names))
    reading = _Reading(source, dialect, options)
    reading.glance()
    for _ in range(PASSES):
        if (draft := reading.attempt(directory, limits)) is not None:
            return draft
    raise invalid("", "csv", "The values of a column change their type in a way that cannot be read.")


class _Parser:
    """The file as batches of Arrow columns."""

    def __init__(self, source: Source, dialect: Dialect, decimal: str) -> None:
        self._source, self._dialect, self._decimal = source, dialect, decimal

    @contextmanager
    def reading(
        self, types: dict[str, pa.DataType], included: Sequence[str] | None = None, padding: Padding | None = None
    ) -> Iterator[Any]:
        """A streaming reader. Raises RefusedError for what the parser does not take, and DoubtError."""
        dialect = self._dialect
        converting = pa_csv.ConvertOptions(
            column_types=types,
            strings_can_be_null=True,
            null_values=[""],
            decimal_point=self._decimal,
            include_columns=None if included is None else list(included),
        )
        names = None if dialect.header else list(dialect.names)
        try:
            with closing(Quotes(self._source.open(), padding)) as quotes:
                quotes.skip(dialect.skipped)
                with pa_csv.open_csv(
                    pa.PythonFile(quotes, mode="r"),
                    pa_csv.ReadOptions(use_threads=False, block_size=BLOCK, column_names=names),
                    pa_csv.ParseOptions(delimiter=dialect.delimiter, newlines_in_values=True),
                    converting,
                ) as reader:
                    yield reader
        except pa.ArrowInvalid as error:
            if "conversion error to" in str(error) and "UTF8" not in str(error):
                raise DoubtError from None
            raise _explained(error, dialect, self._source) from None
        if types:
            quotes.check()


class _KnownBetterError(Exception):
    """What is being read has another type, as a look at all of it has shown."""


class Quotes:
    """A stream, which counts the quotes that go by: the parser does not mind an open one.

    The parser reads ahead in a thread of its own, which does not end with the parser. A file that is closed during a
    read gives its number to the next file that is opened, whose bytes that read would take: so the read closes it.
    """

    def __init__(self, stream: BinaryIO, padding: Padding | None = None) -> None:
        self._stream, self.count, self.closed, self._padding = stream, 0, False, padding
        self._lock, self._is_reading = threading.Lock(), False

    def skip(self, count: int) -> None:
        """Leave out the beginning."""
        while count and (part := self._stream.read(count)):
            count -= len(part)

    def read(self, size: int = -1) -> bytes:
        """The next bytes; none once the stream is closed."""
        with self._lock:
            if self.closed:
                return b""
            self._is_reading = True
        try:
            part = self._stream.read(size)
        finally:
            with self._lock:
                self._is_reading = False
                if self.closed:
                    self._stream.close()
        self.count += part.count(b'"')
        if self._padding is not None:
            self._padding.watch(part)
        return part

    def close(self) -> None:
        """Close the stream, after the read that goes on if there is one."""
        with self._lock:
            self.closed = True
            if not self._is_reading:
                self._stream.close()

    def check(self) -> None:
        """Raise RefusedError when the stream has ended inside a quoted text."""
        if self.count % 2:
            raise invalid("", "open_quote", "A quoted text is never closed (the number of quotes is odd).")


class _Reading:
    """What is known of the columns of one file: a guess of each, then evidence of those that were doubtful."""

    def __init__(self, source: Source, dialect: Dialect, options: ReadingOptions) -> None:
        self._dialect, self._spellings = dialect, Spellings.of(options)
        wanted = wanted_types(options.types or {}, dialect.names)
        self._columns = [Column(j, name, wanted.get(j)) for j, name in enumerate(dialect.names)]
        self._kinds: list[ColumnType] = ["number"] * len(self._columns)
        self._zones: dict[int, str | None] = {}
        self._parsed: set[int] = set()
        """Columns of numbers and dates that pyarrow parses by itself."""
        self._whole: set[int] = set()
        """Those of them that seem to be whole numbers."""
        self._signs: set[int] = set()
        self._seen: dict[int, Evidence] = {}
        self._parser = _Parser(source, dialect, self._spellings.decimal)

    def glance(self) -> None:
        """Guess types from the first block."""
        with self._parser.reading({}) as reader:
            kinds = list(reader.schema.types)
            texts = any(pa.types.is_string(kind) for kind in kinds)
            block = next(_batches(reader), None) if texts else None
        unclear: list[int] = []
        for column, kind in zip(self._columns, kinds, strict=True):
            j = column.j
            if column.wanted is not None:
                self._kinds[j] = column.wanted
            elif pa.types.is_integer(kind) or pa.types.is_null(kind):
                self._parsed.add(j)
                self._whole.add(j)
            elif pa.types.is_floating(kind):
                self._parsed.add(j)
            elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
                self._kinds[j], self._zones[j] = "date", getattr(kind, "tz", None)
                self._parsed.add(j)
            elif block is None or not pa.types.is_string(kind):  # booleans, times of the day
                self._kinds[j] = "category"
            elif not self._guess(column, block.column(j).slice(0, max(GLANCE // len(kinds), 20))):
                unclear.append(j)
        self._survey(unclear)

    def _guess(self, column: Column, values: pa.Array) -> bool:
        """Guess the type of texts; whether that went well."""
        seen = Evidence(self._spellings)
        seen.add(values, 0)
        try:
            self._kinds[column.j] = type_of(column, seen)
        except RefusedError:  # the whole column may say otherwise
            return False
        return True

    def attempt(self, directory: Path, limits: Limits) -> Draft | None:
        """Read the file as far as is known; None when more is known than before."""
        converters = [self._converter(column) for column in self._columns]
        with DenseWriter(directory, self._dialect.names, limits) as writer:
            try:
                self._copy(converters, writer)
            except _KnownBetterError:
                return None
            except DoubtError:
                self._doubt(converters)
                return None
            if self._corrected(converters, writer):
                return None
            categories = {j: one.categories for j, one in enumerate(converters) if isinstance(one, Texts)}
            return writer.finish(self._kinds, categories, self._dialect.header, list(self._warnings()))

    def _converter(self, column: Column) -> Converter:
        j, kind = column.j, self._kinds[column.j]
        if kind == "category":
            return Texts(column.name, without_minus(self._spellings) if j in self._signs else self._spellings)
        if kind == "date":
            return Moments(self._zones.get(j)) if j in self._parsed else TextDates(self._spellings)
        if j in self._parsed:
            return Integers() if j in self._whole else Floats64()
        return TextNumbers(self._spellings)

    def _copy(self, converters: Sequence[Converter], writer: DenseWriter) -> None:
        watched = Padding(self._dialect.delimiter) if self._whole - set(self._seen) else None
        types = {name: one.arrow for name, one in zip(self._dialect.names, converters, strict=True)}
        step = max(2**20 // len(converters), 512)
        with self._parser.reading(types, padding=watched) as reader:
            for batch in _batches(reader):
                if watched is not None and watched.found:
                    self._survey(sorted(self._whole - set(self._seen)))
                    watched = None
                    if any(self._kinds[j] != "number" for j in self._whole):
                        raise _KnownBetterError
                for start in range(0, batch.num_rows, step):
                    parts = [column.slice(start, step) for column in batch.columns]
                    block = np.empty((len(parts[0]), len(parts)))
                    for j, part in enumerate(parts):
                        block[:, j] = self._values(converters[j], part, j, writer.summaries.rows)
                    writer.add(block)

    def _values(self, converter: Converter, part: pa.Array, j: int, row: int) -> Any:
        try:
            return converter.values(part)
        except DoubtError:
            if j not in self._seen:
                raise
            raise self._unreadable(j, part, row) from None

    def _unreadable(self, j: int, part: pa.Array, row: int) -> RefusedError:
        """The refusal of a value that looks right and is not: the 30th of February."""
        column = self._columns[j]
        probe = self._converter(column)
        for i in range(len(part)):
            try:
                probe.values(part.slice(i, 1))
            except DoubtError:
                shown = f"row {row + i + 1}, column {column.name!r}: {part[i].as_py()[:60]!r} is no {self._kinds[j]}"
                return invalid(f"/rows/{row + i}/columns/{j}", "mixed-column", f"{shown[0].upper()}{shown[1:]}.")
        return invalid(f"/columns/{j}", "mixed-column", f"Column {column.name!r} cannot be read as {self._kinds[j]}.")

    def _doubt(self, converters: Sequence[Converter]) -> None:
        """A value contradicts: look at every column that is not text, and read it from its texts from now on."""
        self._parsed.clear()
        doubtful = [j for j, one in enumerate(converters) if not isinstance(one, Texts) and j not in self._seen]
        self._survey(doubtful)

    def _corrected(self, converters: Sequence[Converter], writer: DenseWriter) -> bool:
        """At the end of the file: whether a column is of another type than it was read as."""
        before, signs = list(self._kinds), set(self._signs)
        for j, one in enumerate(converters):
            if isinstance(one, Texts):
                self._weigh(self._columns[j], one)
        others = [j for j, one in enumerate(converters) if j not in self._seen and one.doubtful(writer.summaries, j)]
        self._survey(others)
        changed = {j for j, kind in enumerate(self._kinds) if kind != before[j]}
        self._parsed -= changed
        return bool(changed) or signs != self._signs

    def _weigh(self, column: Column, texts: Texts) -> None:
        seen = texts.evidence()
        if seen.tokens["-"] and "+" in texts.categories and not self._spellings.stated:
            self._signs.add(column.j)  # two signs, and no missing values
            return
        self._settle(column, seen)

    def _survey(self, which: Sequence[int]) -> None:
        """Look at some columns as a whole, and decide. Raises RefusedError."""
        if not which:
            return
        names = [self._columns[j].name for j in which]
        seen, row = [Evidence(self._spellings) for _ in which], 0
        with self._parser.reading(dict.fromkeys(names, pa.string()), names) as reader:
            for batch in _batches(reader):
                for one, values in zip(seen, batch.columns, strict=True):
                    one.add(values, row)
                row += batch.num_rows
        for j, one in zip(which, seen, strict=True):
            self._settle(self._columns[j], one)

    def _settle(self, column: Column, seen: Evidence) -> None:
        self._kinds[column.j] = type_of(column, seen)
        self._seen[column.j] = seen

    def _warnings(self) -> Iterator[DatasetWarning]:
        yield from self._dialect.warnings
        for j, seen in sorted(self._seen.items()):
            yield from warnings_of(self._columns[j], seen, self._kinds[j])


def _batches(reader: Any) -> Iterator[Any]:
    while True:
        try:
            yield reader.read_next_batch()
        except StopIteration:
            return


def _explained(error: Exception, dialect: Dialect, source: Source) -> RefusedError:
    """The problem behind an error of the parser, without a word of the file's content."""
    message = str(error)
    ragged = re.match(r"CSV parse error: (?:Row #(\d+): )?Expected (\d+) columns, got (\d+)", message)
    if ragged:
        return _ragged([int(text or 0) for text in ragged.groups()], dialect)
    if "UTF8" in message:
        return undecodable(source)
    if "straddling" in message:
        return invalid("", "long_row", f"A row is longer than {BLOCK} bytes; perhaps a quote is never closed.")
    if "Empty CSV" in message:
        return invalid("/rows", "empty", "There are no rows.")
    return invalid("", "csv", "The file cannot be read as CSV.")


def _ragged(numbers: Sequence[int], dialect: Dialect) -> RefusedError:
    number, expected, found = numbers
    number -= dialect.header
    detail = f"Row {number} has {found} values, and the first has {expected}."
    if dialect.delimiter == ",":
        detail += " A decimal comma looks like this, too."
    if expected < found and number == 1:
        detail += (
            " So do lines of text before the names, and names of rows (as R writes them) without a name of theirs."
        )
    return invalid(f"/rows/{number - 1}", "ragged", detail)
