"""Files ten times as large as the reader's memory, as their usual writers lay them out, are read; slow suite."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import ipc
from scipy import sparse

from service.readers import Readers
from worker.contract.dataset import Format, ReadingOptions
from worker.datasets.draft import CONTENT
from worker.datasets.refusal import Limits

MEMORY = 64 * 2**20
FOLD = 10
WIDTH = 8
ROWS = FOLD * MEMORY // (8 * WIDTH)
BLOCK = np.random.default_rng(0).normal(size=(2**16, WIDTH))
TEXTS = [f"text {i % 999}" for i in range(len(BLOCK))]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def batch(dictionary: bool = False) -> pa.RecordBatch:
    columns: dict[str, Any] = {f"x{j}": BLOCK[:, j] for j in range(WIDTH)}
    texts = pa.array(TEXTS)
    return pa.record_batch({**columns, "t": texts.dictionary_encode() if dictionary else texts})


def write_parquet(path: Path) -> None:
    """Row groups of 2^20 rows, the default of pandas and pyarrow."""
    table = pa.Table.from_batches([batch()] * 16)
    with pq.ParquetWriter(path, table.schema) as writer:
        for _ in range(ROWS // table.num_rows + 1):
            writer.write_table(table)


def write_one_group(path: Path) -> None:
    table = pa.Table.from_batches([batch()] * (ROWS // len(BLOCK) + 1))
    pq.write_table(table, path, row_group_size=table.num_rows, compression="none", use_dictionary=False)


def write_arrow(path: Path, codec: str | None, *, stream: bool) -> None:
    """Batches of 2^16 rows, the default of Feather."""
    make, options = ipc.new_stream if stream else ipc.new_file, ipc.IpcWriteOptions(compression=codec)
    part = batch(dictionary=True)
    with make(path, part.schema, options=options) as writer:
        for _ in range(ROWS // len(BLOCK) + 1):
            writer.write_batch(part)


def matrix(dtype: str, order: str) -> Any:
    rows = ROWS * 8 // np.dtype(dtype).itemsize
    return np.asarray(np.resize(BLOCK.astype(dtype), (rows, WIDTH)), order=order)


def write_npy(path: Path, dtype: str, order: str) -> None:
    with path.open("wb") as file:
        np.save(file, matrix(dtype, order))


def write_npz(path: Path, order: str) -> None:
    with path.open("wb") as file:
        np.savez(file, X=matrix("f8", order), y=np.resize(BLOCK[:, 0], ROWS))


def write_csr(path: Path) -> None:
    entries = FOLD * MEMORY // 12 + 1
    indices = np.resize(np.arange(40, dtype=np.int32), entries // 40 * 40)
    data = np.resize(BLOCK.ravel(), len(indices))
    lines = np.arange(len(indices) // 40 + 1) * 40
    with path.open("wb") as file:
        sparse.save_npz(file, sparse.csr_array((data, indices, lines), (len(lines) - 1, 100)), compressed=False)


def write_libsvm(path: Path) -> None:
    def line(row: list[float]) -> str:
        return " ".join(["1", *(f"{j + 1}:{value!r}" for j, value in enumerate(row))])

    part = "".join(line(row) + "\n" for row in BLOCK[:4096].tolist()).encode()
    with path.open("wb") as file:
        for _ in range(FOLD * MEMORY // len(part) + 1):
            file.write(part)


FILES: dict[str, tuple[Format, Callable[[Path], None]]] = {
    "parquet": ("parquet", write_parquet),
    "parquet, one row group": ("parquet", write_one_group),
    "arrow file": ("arrow", lambda path: write_arrow(path, "lz4", stream=False)),
    "arrow file, plain": ("arrow", lambda path: write_arrow(path, None, stream=False)),
    "arrow stream": ("arrow", lambda path: write_arrow(path, "zstd", stream=True)),
    "npy": ("npy", lambda path: write_npy(path, "f8", "C")),
    "npy, float32 by columns": ("npy", lambda path: write_npy(path, "f4", "F")),
    "npz": ("npz", lambda path: write_npz(path, "C")),
    "npz, by columns": ("npz", lambda path: write_npz(path, "F")),
    "npz, sparse": ("npz", write_csr),
    "libsvm": ("libsvm", write_libsvm),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_ten_times_the_memory(tmp_path: Path, name: str):
    kind, write = FILES[name]
    write(tmp_path / CONTENT)
    size = (tmp_path / CONTENT).stat().st_size
    assert size > FOLD * MEMORY or kind in {"parquet", "arrow"}  # whose content is, before it is compressed
    low, high, dtype = BLOCK[:, 0].min(), BLOCK[:, 0].max(), "f4" if "float32" in name else "f8"

    async def test() -> None:
        readers = Readers(Limits(memory=MEMORY), 1)
        try:
            draft = await readers.read(tmp_path, kind, ReadingOptions(), size)
        finally:
            readers.close()
        if draft.sparse is None:
            assert draft.rows >= ROWS
            assert (draft.columns[0].min, draft.columns[0].max) == (low.astype(dtype), high.astype(dtype))
        else:
            assert draft.sparse.nonzeros > FOLD * MEMORY // 30

    asyncio.run(test())
