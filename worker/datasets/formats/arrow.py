"""Parquet, and Arrow IPC files and streams, in pieces of bounded size: pages of a row group, record batches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc

from worker.contract.dataset import ColumnType, DatasetWarning
from worker.datasets.draft import Draft
from worker.datasets.formats.arrow_types import CODED, plain, plain_type
from worker.datasets.formats.columns import BatchWriter
from worker.datasets.refusal import Limits, Piece, RefusedError, invalid, named
from worker.datasets.source import Source

BATCH = 2**18  # values of a batch, about
WEIGHT = 2**22  # bytes of a batch of a Parquet file, about, as they are encoded there
BUFFER = 2**16  # bytes read together from a column of a Parquet file
GAP = 128  # bytes between the last batch of an Arrow file and its footer: the end mark, and what writers align to
Types = Mapping[str, ColumnType] | None  # those that were asked for
_ALONE: Final = ipc.IpcReadOptions(use_threads=False)
_END_MARK: Final = b"\xff\xff\xff\xff" + bytes(4)
_NO_MEMORY = re.compile("memory|alloc|launch worker thread")  # what codecs and others say whose errors have no class
_BROKEN = (pa.ArrowException, OSError, ValueError, TypeError, KeyError, IndexError, OverflowError)
_ROW_GROUPS = (
    "write smaller ones (`row_group_size` of pandas, pyarrow and Polars, `ROW_GROUP_SIZE` of DuckDB, "
    "`row_group_offsets` of fastparquet)"
)
_BATCHES = (
    "write smaller ones (`chunksize` of `write_feather` and pandas' `to_feather`, `max_chunksize` of `write_table`, "
    "`record_batch_size` of Polars' `write_ipc`)"
)


def read_parquet(source: Source, directory: Path, limits: Limits, wanted: Types = None) -> Draft:
    """Read a Parquet file, row group by row group, each column page by page."""
    size, piece = source.size(), Piece("the footer of the Parquet file", "write fewer, larger row groups")
    with piece.within(limits), _refusing("Parquet"), source.open() as stream:
        file = pq.ParquetFile(pa.PythonFile(stream, mode="r"), pre_buffer=False)
        schema, metadata = file.schema_arrow, file.metadata
        types = checked_types(schema, metadata.num_rows, limits)
        _check_alone(stream, metadata, size)
        buffer = max(min(BUFFER, limits.memory // 16 // len(types)), 2**12)
        file = pq.ParquetFile(pa.PythonFile(stream, mode="r"), metadata=metadata, pre_buffer=False, buffer_size=buffer)
        return _written(_row_groups(file, types, piece), schema, types, directory, limits, wanted)


def _row_groups(file: Any, types: list[pa.DataType], piece: Piece) -> Iterator[Any]:
    """The rows of all row groups, in batches that are small however wide or long the values are."""
    metadata, count = file.metadata, file.num_row_groups
    texts = any(kind in {pa.string(), pa.large_string(), CODED} for kind in types)
    most = BATCH // metadata.num_columns // (8 if texts else 1)  # a text of a dictionary may be long, and come often
    piece.remedy = _ROW_GROUPS
    for i in range(count):
        group = metadata.row_group(i)
        rows, size = group.num_rows, group.total_byte_size
        piece.what = f"row group {i + 1} of {count} ({rows} rows, {size / 2**20:.0f} MiB)"
        together = max(min(most, WEIGHT * rows // max(size, 1)), 64)
        yield from file.iter_batches(together, row_groups=[i], use_threads=False)


def _check_alone(stream: BinaryIO, metadata: Any, size: int) -> None:
    """Raise RefusedError for several files in one: the last one's directory leads to parts of the first one."""
    if not metadata.num_row_groups:
        return
    group = metadata.row_group(metadata.num_row_groups - 1)
    columns = [group.column(j) for j in range(group.num_columns)]
    start = max((c.dictionary_page_offset or c.data_page_offset) + c.total_compressed_size for c in columns)
    stream.seek(start)
    rest, before = size - 8 - metadata.serialized_size - start, b""
    while rest > 0 and (part := stream.read(min(rest, 2**20))):
        if b"PAR1PAR1" in before + part:
            raise _joined("Parquet")
        rest, before = rest - len(part), part[-7:]


def _joined(what: str) -> RefusedError:
    detail = f"Several {what} files were joined, of which only one would be read; write all rows into one file."
    return invalid("", "joined", detail)


def read_arrow(source: Source, directory: Path, limits: Limits, wanted: Types = None) -> Draft:
    """Read an Arrow IPC file or stream, batch by batch; several streams one after the other, if they are alike."""
    piece = Piece("the schema", _BATCHES)
    with piece.within(limits), _refusing("Arrow IPC"), source.open() as stream:
        if stream.read(6) == b"ARROW1":
            return _read_file(stream, source.size(), directory, limits, wanted, piece)
        stream.seek(0)
        reader = ipc.open_stream(pa.PythonFile(stream, mode="r"), options=_ALONE)
        types = checked_types(reader.schema, 0, limits)
        return _written(_streams(reader, stream, source, piece), reader.schema, types, directory, limits, wanted)


def _read_file(stream: BinaryIO, size: int, directory: Path, limits: Limits, wanted: Types, piece: Piece) -> Draft:
    stream.seek(max(size - 10, 0))
    end = size - 10 - int.from_bytes(stream.read(4), "little")
    watched = _Watched(stream, end)
    reader = ipc.open_file(pa.PythonFile(watched, mode="r"), options=_ALONE)
    types = checked_types(reader.schema, 0, limits)
    count = reader.num_record_batches

    def batches() -> Iterator[Any]:
        for i in range(count):
            piece.what = f"record batch {i + 1} of {count}"
            yield reader.get_batch(i)
        if count and end - watched.furthest > GAP:
            raise _joined("Arrow IPC")

    return _written(batches(), reader.schema, types, directory, limits, wanted)


class _Watched:
    """A stream that remembers how far it was read before a position: up to where the batches of a file reach."""

    closed = False

    def __init__(self, stream: BinaryIO, end: int) -> None:
        self._stream, self._end, self.furthest = stream, end, 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        start = self._stream.tell()
        part = self._stream.read(size)
        if start < self._end:
            self.furthest = max(self.furthest, start + len(part))
        return part

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _streams(reader: Any, stream: BinaryIO, source: Source, piece: Piece) -> Iterator[Any]:
    """The batches of all streams. Each may end anywhere: without its end mark nobody knows that it is complete."""
    number, count = 1, 0
    while True:
        piece.what = f"record batch {count + 1}"
        if (batch := next(reader, None)) is not None:
            count += 1
            yield batch
            continue
        end = stream.tell()
        stream.seek(max(end - 8, 0))
        if stream.read(8) != _END_MARK:
            raise invalid(
                "", "length", "The stream does not end with its end mark: it is cut off, or was never closed."
            )
        if end == source.size():
            return
        number += 1
        following = ipc.open_stream(pa.PythonFile(stream, mode="r"), options=_ALONE)
        if not following.schema.equals(reader.schema):
            detail = f"Stream {number} in the file has other columns than the first; send each on its own."
            raise invalid("", "joined", detail)
        reader = following


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turn what the library says about broken files into a refusal without any of their content."""
    try:
        yield
    except (RefusedError, pa.ArrowMemoryError):
        raise
    except pa.ArrowNotImplementedError:
        detail = f"The {what} file uses a compression, an encoding or a type that is not read; write it as zstd, plain."
        raise invalid("", "unsupported", detail) from None
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if _NO_MEMORY.search(str(error)):
            raise MemoryError from None
        kind = type(error).__name__
        raise invalid("", "unreadable", f"The file cannot be read as {what} ({kind}); it may be damaged.") from None


def checked_types(schema: pa.Schema, rows: int, limits: Limits) -> list[pa.DataType]:
    """What the columns are read as. Raises RefusedError for bad names or types, and for too many columns or rows."""
    if not schema.names:
        raise invalid("", "empty", "There are no columns.")
    limits.check(rows, len(schema.names))
    named(schema.names)
    return [plain_type(field, j) for j, field in enumerate(schema)]


def index_columns(schema: pa.Schema) -> frozenset[str]:
    """The columns that were the index of a data frame, by what pandas says in the schema."""
    try:
        stated = orjson.loads((schema.metadata or {})[b"pandas"])["index_columns"]
        return frozenset(name for name in stated if isinstance(name, str)) & frozenset(schema.names)
    except (KeyError, TypeError, ValueError):
        return frozenset()


def _written(
    batches: Iterator[Any], schema: pa.Schema, types: list[pa.DataType], directory: Path, limits: Limits, wanted: Types
) -> Draft:
    step = max(BATCH // len(types), 512)
    with BatchWriter(directory, tuple(schema.names), types, limits, wanted) as writer:
        for batch in batches:
            batch.validate(full=True)
            for start in range(0, batch.num_rows, step):
                part = batch.slice(start, step)
                writer.add([plain(values, kind) for values, kind in zip(part.columns, types, strict=True)])
        return _indexed(writer.finish(), index_columns(schema))


def _indexed(draft: Draft, index: frozenset[str]) -> Draft:
    """The draft with its index columns marked as such, and told."""
    if not index:
        return draft
    columns = [column.model_copy(update={"index": column.name in index}) for column in draft.columns]
    text = "was the index of a data frame: it is a feature only where a job names it among them."
    told = [
        DatasetWarning(column=column.name, code="index-column", text=f"Column {column.name!r} {text}", count=draft.rows)
        for column in columns
        if column.index
    ]
    return draft.model_copy(update={"columns": columns, "warnings": [*draft.warnings, *told]})
