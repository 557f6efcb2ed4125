"""NPZ: dense arrays with a row for each example, or one sparse matrix as scipy saves it, with columns beside it."""

from __future__ import annotations

import errno
import math
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from scipy import sparse

from worker.contract.dataset import ColumnType, Layout
from worker.datasets.categories import Categories
from worker.datasets.draft import DenseWriter, Draft, preview, write
from worker.datasets.formats.npy import Header, field_kind, field_values, read_header
from worker.datasets.integers import BEYOND, lost
from worker.datasets.refusal import Limits, Piece, RefusedError, invalid, named
from worker.datasets.source import Source, read_exactly
from worker.datasets.sparse import SparseWriter

BLOCK = 2**19  # values read together
_SCIPY = {"format", "shape", "data", "indices", "indptr", "row", "col", "_is_array"}
_ROWS = "save it by rows (matrices in C order, sparse ones by `.tocsr()`), or in parts"
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError)


@dataclass(slots=True)
class Member:
    """An array in the file: its header, and a stream at its data, which has to be read in order."""

    name: str
    header: Header
    stream: BinaryIO
    piece: Piece

    @property
    def rows(self) -> int:
        """Length of the first dimension."""
        return self.header.shape[0] if self.header.shape else 0

    @property
    def width(self) -> int:
        """Columns of the table that it becomes."""
        return self.header.shape[1] if len(self.header.shape) == 2 else 1

    def take(self, count: int) -> npt.NDArray[Any]:
        """The next `count` items."""
        size = count * self.header.dtype.itemsize
        self.piece.what = f"the array {self.name[:60]!r}"
        with _reading(self.name):
            data = read_exactly(self.stream, size)
        if len(data) != size:
            raise _fault(self.name, "length", "has fewer values than its header says")
        return np.frombuffer(data, self.header.dtype)

    def end(self) -> None:
        """Raise RefusedError unless all has been read; the checksum is verified here."""
        with _reading(self.name):
            more = self.stream.read(1)
        if more:
            raise _fault(self.name, "length", "has more values than its header says")

    def whole(self) -> npt.NDArray[Any]:
        """All of it."""
        values = self.take(math.prod(self.header.shape))
        self.end()
        return values.reshape(self.header.shape, order=self.header.order)


def _fault(name: str, code: str, text: str) -> RefusedError:
    shown = name[:60]
    return invalid(f"/arrays/{shown.replace('~', '~0').replace('/', '~1')}", code, f"The array {shown!r} {text}.")


@contextmanager
def _reading(name: str | None = None) -> Iterator[None]:
    """Turn what the zip reader says about a damaged archive into a refusal; what the disk says passes.

    `name`: the array being read, if it is one of them.
    """
    try:
        yield
    except (*_BROKEN, OSError) as error:
        if (failure := _failure_of_the_disk(error)) is not None:
            raise failure from None
        if name is not None:
            raise _fault(
                name, "zip", "cannot be read out of the NPZ file (a zip of .npy arrays): it is damaged"
            ) from None
        raise invalid("", "zip", "The file cannot be read as NPZ (a zip of .npy arrays); it may be damaged.") from None


def _failure_of_the_disk(error: BaseException | None) -> OSError | None:
    """What zipfile may have turned into a complaint about the archive."""
    while error is not None:
        # a damaged offset makes the reader seek to before the start of the file, or to where no file goes
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            return error
        error = error.__context__
    return None


def read_npz(source: Source, directory: Path, limits: Limits) -> Draft:
    """Read an NPZ file."""
    source.size()
    piece = Piece("the directory of the NPZ file", _ROWS)
    with piece.within(limits), _reading(), ExitStack() as stack:
        archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(source.open())))
        members = _members(archive, stack, limits, piece)
        if {"format", "shape"} <= set(members):
            return _read_sparse(members, directory, limits)
        return _read_dense(list(members.values()), directory, limits)


def _members(archive: zipfile.ZipFile, stack: ExitStack, limits: Limits, piece: Piece) -> dict[str, Member]:
    infos = archive.infolist()
    if not infos:
        raise invalid("", "empty", "There are no arrays.")
    limits.check(1, len(infos))
    if len(infos) > 1000:
        raise invalid("", "arrays", f"There are {len(infos)} arrays; at most 1000 are read.")
    if min(info.header_offset for info in infos) > 0:  # zip files are found by their end
        raise invalid("", "joined", "Several NPZ files were joined, of which only the last would be read; send one.")
    members: dict[str, Member] = {}
    for info in infos:
        name = info.filename.removesuffix(".npy")
        if name == info.filename or "/" in name or "\\" in name or not name or info.filename != info.orig_filename:
            raise _fault(info.filename, "name", "is not called NAME.npy; only arrays belong into an NPZ file")
        if name in members:
            raise _fault(name, "duplicate_name", "is there twice")
        if info.flag_bits & 1 or info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise _fault(name, "compression", "is encrypted or compressed in another way than numpy does")
        with _reading(name):
            stream = cast("BinaryIO", stack.enter_context(archive.open(info)))
            members[name] = Member(name, read_header(stream, f"The array {name[:60]!r}"), stream, piece)
    return members


def _read_dense(members: list[Member], directory: Path, limits: Limits) -> Draft:
    names, kinds = _columns(members, limits, members[0].rows)
    categories = {j: Categories(names[j]) for j, kind in enumerate(kinds) if kind == "category"}
    with DenseWriter(directory, names, limits) as writer:
        _copy(members, kinds, categories, writer, directory)
        return writer.finish(kinds, categories)


def _columns(members: list[Member], limits: Limits, rows: int) -> tuple[tuple[str, ...], list[ColumnType]]:
    """Names and types: `X` of 3 columns gives x0, x1, x2; a vector keeps its name."""
    names: list[str] = []
    kinds: list[ColumnType] = []
    for member in members:
        shape, name = member.header.shape, member.name
        if len(shape) not in {1, 2}:
            raise _fault(name, "dimensions", f"has {len(shape)} dimensions; send matrices and vectors")
        if member.rows != rows:
            raise _fault(name, "rows", f"has {member.rows} rows, and the others have {rows}; all need the same")
        if 0 in shape:
            raise _fault(name, "empty", "has no values")
        limits.check(rows, len(names) + member.width)
        kind = field_kind(member.header.dtype, len(names), name)
        kinds += [kind] * member.width
        names += [f"{name.lower()}{j}" for j in range(member.width)] if len(shape) == 2 else [name]
    return named(names), kinds


def _copy(
    members: list[Member],
    kinds: list[ColumnType],
    categories: Mapping[int, Categories],
    writer: DenseWriter,
    directory: Path,
) -> None:
    """Read all arrays in step, block of rows by block of rows."""
    rows, width = members[0].rows, sum(member.width for member in members)
    blocks = [_blocks(member, max(BLOCK // width, 512), directory) for member in members]
    start = 0
    while start < rows:
        parts = [next(block) for block in blocks]
        table = np.empty((len(parts[0]), width))
        j = 0
        for part in parts:
            for column in part.T:
                table[:, j] = writer.exact(j, field_values(column, kinds[j], categories.get(j), j, start))
                j += 1
        writer.add(table)
        start += len(table)
    for member in members:
        member.end()


def _blocks(member: Member, step: int, directory: Path) -> Iterator[npt.NDArray[Any]]:
    if member.header.order == "F" and len(member.header.shape) == 2:
        yield from _rows_of_columns(member, step, directory)
        return
    for start in range(0, member.rows, step):
        yield member.take(min(step, member.rows - start) * member.width).reshape(-1, member.width)


def _rows_of_columns(member: Member, step: int, directory: Path) -> Iterator[npt.NDArray[Any]]:
    """Blocks of rows of a matrix in F order, by a copy on the disk: archives are read from start to end."""
    rows, dtype = member.rows, member.header.dtype
    with tempfile.TemporaryFile(dir=directory, buffering=0) as copy:
        for _ in range(member.width):
            for start in range(0, rows, BLOCK):
                write(copy, member.take(min(BLOCK, rows - start)))
        for start in range(0, rows, step):
            block = np.empty((min(step, rows - start), member.width), dtype)
            for j in range(member.width):
                place = (j * rows + start) * dtype.itemsize
                block[:, j] = np.frombuffer(os.pread(copy.fileno(), len(block) * dtype.itemsize, place), dtype)
            yield block


def _read_sparse(members: dict[str, Member], directory: Path, limits: Limits) -> Draft:
    """A matrix of `scipy.sparse.save_npz`; further arrays with a row for each of its rows become dense columns."""
    kind, rows, width = _shape(members)
    beside = [member for name, member in members.items() if name not in _SCIPY]
    for name in ("data", "indices", "indptr") if kind in {"csr", "csc"} else ("data", "row", "col"):
        if name not in members or len(members[name].header.shape) != 1:
            raise _fault(name, "missing", f"is missing or no vector, and a matrix of format {kind} needs it")
        if members[name].header.dtype.kind not in ("fiub" if name == "data" else "iu"):
            raise _fault(name, "dtype", "is of a type that does not belong here")
    limits.check_sparse(width)
    limits.check(1, len(beside))
    if members["data"].rows > limits.values:
        limits.check(members["data"].rows, 1)
    draft = _read_dense_beside(beside, rows, directory, limits)
    with SparseWriter(directory, limits) as writer:
        for block in _csr_blocks(members, kind, (rows, width)):
            block.sort_indices()
            writer.add(block.data, block.indices.astype(np.int64), np.diff(block.indptr).astype(np.int64))
        described, layout, files = writer.finish("x", 0, width)
    joined = Layout(dense=draft.layout.dense, sparse=layout, files={**draft.layout.files, **files})
    return draft.model_copy(update={"sparse": described, "layout": joined})


def _read_dense_beside(beside: list[Member], rows: int, directory: Path, limits: Limits) -> Draft:
    if beside:
        names, kinds = _columns(beside, limits, rows)
        categories = {j: Categories(names[j]) for j, kind in enumerate(kinds) if kind == "category"}
        with DenseWriter(directory, names, limits) as writer:
            _copy(beside, kinds, categories, writer, directory)
            return writer.finish(kinds, categories)
    preview(directory, [], [], np.empty((0, 0)))
    return Draft(rows=rows, columns=[], layout=Layout(dense=None, sparse=None, files={}))


def _shape(members: dict[str, Member]) -> tuple[str, int, int]:
    form, shape = members["format"].header, members["shape"].header
    if form.bytes > 100 or form.dtype.kind not in "SU" or shape.shape != (2,) or shape.dtype.kind not in "iu":
        raise _fault("format", "format", "is not as scipy.sparse.save_npz writes it")
    text = members["format"].whole().item()
    kind = text.decode("latin-1") if isinstance(text, bytes) else text
    rows, width = (int(n) for n in members["shape"].whole())
    if kind not in {"csr", "csc", "coo"}:
        raise _fault("format", "format", "names a format that is not read; save the matrix with `.tocsr()`")
    if not (0 < rows < 2**31 and 0 < width < 2**31):
        raise _fault("shape", "empty", "does not say a number of rows and columns between 1 and 2147483647")
    return kind, rows, width


def _csr_blocks(members: dict[str, Member], kind: str, shape: tuple[int, int]) -> Iterator[sparse.csr_array]:
    """The matrix in blocks of rows; one by columns or by entries is converted as a whole."""
    if kind == "csr":
        yield from _rows(members, shape)
        return
    data = _entries(members["data"].whole())
    try:
        if kind == "csc":
            indices, indptr = members["indices"].whole(), members["indptr"].whole()
            _check_pointers(indptr, shape[1], len(data))
            _check_indices(indices, len(data), shape[0])
            whole = sparse.csc_array((data, indices, indptr), shape=shape).tocsr()
        else:
            row, column = members["row"].whole(), members["col"].whole()
            _check_indices(row, len(data), shape[0])
            _check_indices(column, len(data), shape[1])
            whole = sparse.coo_array((data, (row, column)), shape=shape).tocsr()
    except ValueError:
        raise _fault("data", "structure", "does not fit the other arrays of the matrix") from None
    yield whole


def _rows(members: dict[str, Member], shape: tuple[int, int]) -> Iterator[sparse.csr_array]:
    data, indices = members["data"], members["indices"]
    indptr = members["indptr"].whole().astype(np.int64)
    _check_pointers(indptr, shape[0], data.rows)
    if indices.rows != data.rows:
        raise _fault("indices", "structure", "is not as long as 'data'")
    start = 0
    while start < shape[0]:
        stop = max(int(np.searchsorted(indptr, indptr[start] + BLOCK, side="right")) - 1, start + 1)
        stop = min(stop, shape[0], start + BLOCK)
        count = int(indptr[stop] - indptr[start])
        values, columns = _entries(data.take(count)), indices.take(count)
        _check_indices(columns, count, shape[1])
        block = sparse.csr_array((values, columns, indptr[start : stop + 1] - indptr[start]), (stop - start, shape[1]))
        block.sum_duplicates()
        yield block
        start = stop
    data.end()
    indices.end()


def _entries(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Entries as float64. Raises RefusedError for integers that it cannot tell apart."""
    if values.dtype.kind in "iu" and (found := lost(values)) is not None and found.any():
        text = (
            "holds integers beyond 2^53 that float64 cannot tell apart; save floating-point values to have them rounded"
        )
        raise _fault("data", BEYOND, text)
    return values.astype(np.float64)


def _check_pointers(indptr: npt.NDArray[Any], lines: int, entries: int) -> None:
    sound = len(indptr) == lines + 1 and indptr[0] == 0 and indptr[-1] == entries and (np.diff(indptr) >= 0).all()
    if not sound:
        raise _fault("indptr", "structure", "does not divide the entries of 'data' among the rows")


def _check_indices(indices: npt.NDArray[Any], count: int, end: int) -> None:
    if len(indices) != count or (count and not (int(indices.min()) >= 0 and int(indices.max()) < end)):
        raise _fault("indices", "structure", "names places outside the matrix")
