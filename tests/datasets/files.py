"""Files of every format, and a storage to put them in."""

from __future__ import annotations

import datetime as dt
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import ipc
from scipy import sparse

from worker.contract.dataset import Format, ReadingOptions
from worker.datasets import Limits, LocalStorage, RefusedError, Source, Table, add_file, open_table, read


def npy(array: Any) -> bytes:
    """The array as NPY, pickled objects included."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


class Shelf:
    """A storage in a directory of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.storage = LocalStorage(path / "datasets")
        self.scratch = path / "scratch"

    def table(self, content: bytes, kind: Format, limits: Limits | None = None, **options: Any) -> Table:
        """The table that a file becomes."""
        file = self.path / "file"
        file.write_bytes(content)
        try:
            return open_table(self.storage, add_file(self.storage, file, kind, limits, ReadingOptions(**options)).id)
        finally:
            assert self.storage.workshop.unfinished() == []

    def refusal(self, content: bytes, kind: Format, limits: Limits | None = None, **options: Any) -> RefusedError:
        """Why a file is refused."""
        before = list(self.storage.ids())
        with pytest.raises(RefusedError) as caught:
            self.table(content, kind, limits, **options)
        assert list(self.storage.ids()) == before
        error = caught.value
        assert error.detail.endswith(".")
        assert all(fault.detail.endswith(".") for fault in error.faults)
        return error

    def refused(self, content: bytes, kind: Format) -> bool:
        """Whether a file is refused; as `table`, but quicker."""
        self.scratch.mkdir(exist_ok=True)
        (self.scratch / "content").write_bytes(content)
        try:
            read(Source(self.scratch / "content"), self.scratch, kind, Limits())
        except RefusedError:
            return True
        return False

    def places(self, content: bytes, kind: Format, **options: Any) -> list[tuple[str, str]]:
        """Pointer and code of what is wrong with a file."""
        return [(fault.pointer, fault.code) for fault in self.refusal(content, kind, **options).faults]


def npz(**arrays: Any) -> bytes:
    """Arrays as NPZ, compressed."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def scipy_npz(matrix: Any, **beside: Any) -> bytes:
    """A sparse matrix as scipy saves it, with further arrays."""
    buffer = io.BytesIO()
    sparse.save_npz(buffer, matrix)
    with zipfile.ZipFile(buffer, "a") as archive:
        for name, array in beside.items():
            archive.writestr(f"{name}.npy", npy(array))
    return buffer.getvalue()


def parquet(table: pa.Table, **options: Any) -> bytes:
    """A table as Parquet."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def arrow(table: pa.Table, *, stream: bool = False, rows: int = 4, codec: str | None = None) -> bytes:
    """A table as an Arrow IPC file or stream, in batches."""
    buffer = io.BytesIO()
    make = ipc.new_stream if stream else ipc.new_file
    with make(buffer, table.schema, options=ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table, rows)
    return buffer.getvalue()


def libsvm(matrix: Any, labels: Any) -> bytes:
    """A sparse matrix as LIBSVM text, indices from 1."""
    lines = []
    for i, label in enumerate(labels):
        row = matrix[[i]].tocsr()
        pairs = zip(row.indices + 1, row.data, strict=True)
        lines.append(" ".join([repr(float(label)), *(f"{j}:{float(value)!r}" for j, value in sorted(pairs))]))
    return ("\n".join(lines) + "\n").encode()


TABLE: dict[str, Any] = {
    "number": [1.5, None, -3.0, 4.25, 1e-300],
    "whole": [1, 2, 3, None, 2**40],
    "text": ["b", "a", None, "b", "\u00e9"],
    "flag": [True, False, None, True, True],
    "day": [dt.date(1970, 1, 2), None, dt.date(1969, 12, 31), dt.date(2020, 2, 29), None],
    "moment": [dt.datetime(2020, 1, 1, 6, tzinfo=dt.UTC)] * 5,
}
NAN = np.nan
DENSE = [
    [1.5, 1, 1, 1, 1, 18262.25],
    [NAN, 2, 0, 0, NAN, 18262.25],
    [-3.0, 3, NAN, NAN, -1, 18262.25],
    [4.25, NAN, 1, 1, 18321, 18262.25],
    [1e-300, 2**40, 2, 1, NAN, 18262.25],
]
"""What `TABLE` becomes."""


def arrow_table() -> pa.Table:
    """`TABLE` as an Arrow table."""
    return pa.table(TABLE)


def sample_matrix() -> Any:
    """A sparse matrix with an empty row and an empty last column."""
    dense = np.zeros((6, 5))
    dense[[0, 0, 1, 3, 5], [1, 3, 0, 2, 3]] = [1.0, -2.5, 1e-5, 3, 7]
    return sparse.csr_array(dense)


def samples() -> dict[str, tuple[Format, bytes]]:
    """A small file of each kind."""
    matrix, labels = sample_matrix(), np.array([1, -1, 1, 1, -1, 1])
    records = np.array([(1.0, "a"), (2.0, "b")], dtype=[("n", "f4"), ("t", "U1")])
    table = arrow_table().select([0, 2])
    return {
        "csv": ("csv", b'a,b c,"d"\n1,x,2020-01-01\n2.5,"y ""q""",2020-01-02\n,z,\n'),
        "npy": ("npy", npy(np.arange(12.0).reshape(4, 3))),
        "npy columns": ("npy", npy(np.asfortranarray(np.arange(12.0).reshape(4, 3)))),
        "npy small": ("npy", npy(np.arange(12, dtype="i2").reshape(4, 3))),
        "npy records": ("npy", npy(records)),
        "npz": ("npz", npz(X=np.arange(8.0).reshape(4, 2), y=np.array(["a", "b", "a", "c"]))),
        "npz csr": ("npz", scipy_npz(matrix, y=labels)),
        "npz csc": ("npz", scipy_npz(matrix.tocsc())),
        "npz coo": ("npz", scipy_npz(matrix.tocoo(), y=labels)),
        "parquet": ("parquet", parquet(table, compression="zstd")),
        "arrow file": ("arrow", arrow(table)),
        "arrow stream": ("arrow", arrow(table, stream=True, codec="zstd")),
        "libsvm": ("libsvm", libsvm(matrix, labels)),
    }
