"""Parquet, and Arrow IPC files and streams, in batches of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc

from worker.contract.dataset import ColumnType
from worker.datasets.draft import Draft
from worker.datasets.formats.columns import BatchWriter, column_type
from worker.datasets.refusal import Limits, RefusedError, invalid, named
from worker.datasets.source import Source

BATCH = 2**20  # values of a batch, about
Types = Mapping[str, ColumnType] | None  # those that were asked for
_BROKEN = (pa.ArrowException, OSError, ValueError, TypeError, KeyError, IndexError, OverflowError)


def read_parquet(source: Source, directory: Path, limits: Limits, types: Types = None) -> Draft:
    """Read a Parquet file, row group by row group."""
    source.size()
    with _refusing("Parquet"), source.open() as stream, pq.ParquetFile(pa.PythonFile(stream, mode="r")) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
        names = checked_names(schema, rows, limits)
        batches = file.iter_batches(max(BATCH // len(names), 64), use_threads=False)
        return _written(batches, schema, names, directory, limits, types)


def read_arrow(source: Source, directory: Path, limits: Limits, types: Types = None) -> Draft:
    """Read an Arrow IPC file or stream, batch by batch."""
    with _refusing("Arrow IPC"), source.open() as stream:
        if stream.read(6) == b"ARROW1":
            source.size()
            reader = ipc.open_file(pa.PythonFile(stream, mode="r"))
            batches: Iterator[Any] = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            stream.seek(0)
            reader = ipc.open_stream(pa.PythonFile(stream, mode="r"))
            batches = _until_the_mark(reader, stream, source)
        names = checked_names(reader.schema, 0, limits)
        return _written(batches, reader.schema, names, directory, limits, types)


def _until_the_mark(reader: Any, stream: BinaryIO, source: Source) -> Iterator[Any]:
    """The batches of a stream, which may end anywhere: without its end mark nobody knows that it is complete."""
    yield from reader
    stream.seek(max(source.size() - 8, 0))
    if stream.read(8) != b"\xff\xff\xff\xff" + bytes(4):
        raise invalid("", "length", "The stream does not end with its end mark: it is cut off, or was never closed.")


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turn what the library says about broken files into a refusal without any of their content."""
    try:
        yield
    except (RefusedError, pa.ArrowMemoryError):
        raise
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        kind = type(error).__name__
        raise invalid("", "unreadable", f"The file cannot be read as {what} ({kind}); it may be damaged.") from None


def checked_names(schema: pa.Schema, rows: int, limits: Limits) -> tuple[str, ...]:
    """The names of the columns. Raises RefusedError for bad names or types, and for too many columns or rows."""
    if not schema.names:
        raise invalid("", "empty", "There are no columns.")
    limits.check(rows, len(schema.names))
    names = named(schema.names)
    for j, kind in enumerate(schema.types):
        column_type(kind, j, names[j])
    return names


def _written(
    batches: Any, schema: pa.Schema, names: tuple[str, ...], directory: Path, limits: Limits, types: Types
) -> Draft:
    with BatchWriter(directory, names, schema.types, limits, types) as writer:
        for batch in batches:
            batch.validate(full=True)
            if batch.num_rows:
                writer.add(batch.columns)
        return writer.finish()
