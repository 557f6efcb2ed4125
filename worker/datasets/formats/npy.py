"""NPY: a matrix or vector of numbers, or a structured vector whose fields are columns."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from worker.contract.dataset import Column, ColumnType, DenseLayout, Layout
from worker.datasets.categories import Categories
from worker.datasets.draft import CONTENT, SHOWN, DenseWriter, Draft, preview
from worker.datasets.refusal import Limits, RefusedError, invalid, named
from worker.datasets.source import Source, read_exactly
from worker.datasets.summary import Floats, Summaries

BLOCK = 2**17  # values read together
LEAST = 512  # rows read together, however wide they are
LONGEST_HEADER = 2**21  # bytes: those of 20,000 fields with names of 70 letters


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of an array says, and where its data begins."""

    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype[Any]
    offset: int

    @property
    def bytes(self) -> int:
        """Bytes of the data."""
        return int(self.dtype.itemsize) * int(np.prod(self.shape, dtype=object))


def read_header(stream: BinaryIO, what: str = "The file") -> Header:
    """The header of an array. Raises RefusedError for what is no header of a table that can be taken."""
    try:
        shape, fortran, dtype = npy_format.read_array_header_2_0(*_ascii_header(stream))
        if min(shape, default=0) < 0:
            raise ValueError("a length below zero")  # noqa: TRY301 - numpy's own complaints are of this kind
    except (OSError, MemoryError, RefusedError):
        raise
    except Exception:  # noqa: BLE001 - parsers of Python, which say all kinds of things about a broken header
        raise invalid("/header", "npy_header", f"{what} does not begin with the header of an NPY array.") from None
    if dtype.hasobject:
        raise invalid("/header", "pickled", f"{what} holds Python objects, which are never unpickled; send numbers.")
    return Header(tuple(int(n) for n in shape), "F" if fortran else "C", dtype, stream.tell())


def read_npy(source: Source, directory: Path, limits: Limits) -> Draft:
    """Read an NPY file. A little-endian float64 matrix stays as it is."""
    with source.open() as stream:
        header = read_header(stream)
        rows, width = table_shape(header, limits)
        if header.dtype.names is not None:
            draft = _read_records(stream, header, directory, limits)
        else:
            names = tuple(f"x{j}" for j in range(width))
            keep = header.dtype == np.dtype("<f8") and header.offset % 8 == 0
            if header.order == "F" and len(header.shape) == 2 and width > 1 and rows > 1:
                draft = _read_columns(stream, header, names, directory, limits, keep=keep)
            elif keep:
                draft = _keep_rows(stream, header, names, directory)
            else:
                with DenseWriter(directory, names, limits) as writer:
                    for block in row_blocks(stream, header, width):
                        writer.add(block)
                    draft = writer.finish(["number"] * width, {})
    if source.size() != header.offset + header.bytes:
        raise _length("The file is longer than its header says; send it as it was written.")
    return draft


def _ascii_header(stream: BinaryIO) -> tuple[BinaryIO, int]:
    """A header of any version as one of version 2, in ASCII, and its length: numpy's readers of 3 are not public."""
    version = npy_format.read_magic(stream)
    count = 2 if version == (1, 0) else 4
    size = int.from_bytes(stream.read(count), "little")
    if size > LONGEST_HEADER:
        detail = f"The header has {size} bytes, and {LONGEST_HEADER} are read; shorten the names, or send Parquet."
        raise invalid("/header", "long_header", detail)
    text = read_exactly(stream, size)
    if len(text) != size:
        raise ValueError("the header ends too early")
    # the header is a literal of Python, in which a letter and its escape mean the same
    letters = text.decode("utf-8" if version == (3, 0) else "latin-1").encode("ascii", "backslashreplace")
    return io.BytesIO(len(letters).to_bytes(4, "little") + letters), len(letters)


def table_shape(header: Header, limits: Limits, what: str = "The array") -> tuple[int, int]:
    """Rows and columns. Raises RefusedError for what is no table of numbers, or too large a one."""
    fields = header.dtype.names
    if len(header.shape) not in {1, 2} or (fields is not None and len(header.shape) != 1):
        detail = f"{what} has {len(header.shape)} dimensions; a table has 2 (rows, columns), or 1 for a single column."
        raise invalid("/header", "dimensions", detail)
    if fields is None and not _is_number(header.dtype):
        raise invalid("/header", "dtype", f"{what} is of type {header.dtype}; send real numbers.")
    rows = header.shape[0]
    width = len(fields) if fields is not None else header.shape[1] if len(header.shape) == 2 else 1
    if rows == 0 or width == 0:
        raise invalid("/header", "empty", f"{what} has {rows} rows and {width} columns.")
    limits.check(rows, width)
    return rows, width


def _is_number(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "fiub" and dtype.itemsize <= 8 and dtype.subdtype is None


def _length(detail: str) -> Exception:
    return invalid("", "length", detail)


def pieces(stream: BinaryIO, header: Header, count: int, size: int) -> Iterator[npt.NDArray[Any]]:
    """The `count` items of an array, `size` at a time. Raises RefusedError when they end too early."""
    for start in range(0, count, size):
        wanted = min(size, count - start)
        data = read_exactly(stream, wanted * header.dtype.itemsize)
        if len(data) != wanted * header.dtype.itemsize:
            detail = f"The header says {header.bytes} bytes of data, and there are fewer: the file is cut off."
            raise _length(detail)
        yield np.frombuffer(data, header.dtype)


def row_blocks(stream: BinaryIO, header: Header, width: int) -> Iterator[npt.NDArray[Any]]:
    """The rows of a matrix in C order (or of one row or column)."""
    step = max(BLOCK // width, LEAST)
    for piece in pieces(stream, header, header.shape[0] * width, step * width):
        yield piece.reshape(-1, width)


def _keep_rows(stream: BinaryIO, header: Header, names: tuple[str, ...], directory: Path) -> Draft:
    summaries, shown = Summaries(names), np.empty((0, min(len(names), SHOWN)))
    for block in row_blocks(stream, header, len(names)):
        if len(shown) < SHOWN:
            shown = np.concatenate([shown, block[: SHOWN - len(shown), :SHOWN]])
        summaries.add(block)
    columns = summaries.columns(["number"] * len(names), [None] * len(names))
    return _kept(header, columns, shown, directory)


def _kept(header: Header, columns: list[Column], shown: Floats, directory: Path) -> Draft:
    preview(directory, columns, [None] * len(columns), shown)
    dense = DenseLayout(file=CONTENT, offset=header.offset, order=header.order)
    return Draft(rows=header.shape[0], columns=columns, layout=Layout(dense=dense, sparse=None, files={}))


def _read_columns(
    stream: BinaryIO, header: Header, names: tuple[str, ...], directory: Path, limits: Limits, *, keep: bool
) -> Draft:
    """A matrix in F order: summarized column by column; of another type, it is written again in blocks of rows."""
    if not keep:
        return _transpose(stream, header, names, directory, limits)
    columns: list[Column] = []
    shown = np.empty((min(header.shape[0], SHOWN), min(len(names), SHOWN)))
    for j, name in enumerate(names):
        summaries, first = Summaries([name], first=j), True
        for piece in pieces(stream, header, header.shape[0], BLOCK):
            if first and j < SHOWN:
                shown[:, j] = piece[:SHOWN]
            first = False
            summaries.add(piece[:, None])
        columns += summaries.columns(["number"], [None])
    return _kept(header, columns, shown, directory)


def _transpose(stream: BinaryIO, header: Header, names: tuple[str, ...], directory: Path, limits: Limits) -> Draft:
    """Write a matrix in F order, which is not float64, as blocks of rows: each block takes one read a column."""
    rows, width = header.shape
    size = header.dtype.itemsize
    step = max(2**20 // width, LEAST)
    with DenseWriter(directory, names, limits) as writer:
        for start in range(0, rows, step):
            block = np.empty((min(step, rows - start), width), header.dtype)
            for j in range(width):
                stream.seek(header.offset + (j * rows + start) * size)
                block[:, j] = next(pieces(stream, header, len(block), len(block)))
            writer.add(block)
        return writer.finish(["number"] * width, {})


def _read_records(stream: BinaryIO, header: Header, directory: Path, limits: Limits) -> Draft:
    fields = header.dtype.names or ()
    names = named(fields)
    kinds = [field_kind(header.dtype[field], j, field) for j, field in enumerate(fields)]
    categories = {j: Categories(names[j]) for j, kind in enumerate(kinds) if kind == "category"}
    with DenseWriter(directory, names, limits) as writer:
        for piece in pieces(stream, header, header.shape[0], max(BLOCK // len(names), LEAST)):
            block = np.empty((len(piece), len(names)))
            for j, field in enumerate(fields):
                values = field_values(piece[field], kinds[j], categories.get(j), j, writer.summaries.rows)
                block[:, j] = writer.exact(j, values)
            writer.add(block)
        return writer.finish(kinds, categories)


def field_kind(dtype: np.dtype[Any], j: int, name: str) -> ColumnType:
    """What a numpy type becomes. Raises RefusedError for others than real numbers, texts and dates."""
    if _is_number(dtype):
        return "number"
    if dtype.kind in "US" and dtype.subdtype is None:
        return "category"
    if dtype.kind == "M" and np.datetime_data(dtype)[0] != "generic":
        return "date"
    remedy = "convert it to numbers, for example of seconds" if dtype.kind == "m" else "send numbers, texts or dates"
    raise invalid(f"/columns/{j}", "dtype", f"Column {name[:200]!r} is of type {str(dtype)[:60]}; {remedy}.")


def field_values(
    values: npt.NDArray[Any], kind: ColumnType, categories: Categories | None, j: int, row: int
) -> npt.NDArray[Any]:
    """The float64 values of numbers, dates (days) or texts (codes; an empty text is missing)."""
    if kind == "number":
        return values
    if kind == "date":
        moments = values.astype("datetime64[us]")
        return np.where(np.isnat(moments), np.nan, moments.astype(np.int64) / 86_400e6)
    assert categories is not None
    try:
        texts, positions = np.unique(_sound_text(values), return_inverse=True)
    except UnicodeError:
        detail = f"Column {j + 1} holds what is no text (or, as bytes, no ASCII), near row {row + 1}; send Unicode."
        raise invalid(f"/columns/{j}", "encoding", detail) from None
    if len(texts) and texts[0] == "":
        return categories.codes(texts[1:].tolist(), positions - 1)
    return categories.codes(texts.tolist(), positions)


def _sound_text(values: npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    """Texts as Unicode. Raises UnicodeError for code points that there are not, on which numpy fails later."""
    texts = np.ascontiguousarray(values.astype(np.str_))
    points = texts.view(np.uint32) if texts.itemsize else np.empty(0, np.uint32)
    if ((points > 0x10FFFF) | ((points >= 0xD800) & (points < 0xE000))).any():
        raise UnicodeError
    return texts
