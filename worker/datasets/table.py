"""A dataset as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import sparse

from worker.contract.dataset import Dataset
from worker.datasets.ingest import MANIFEST
from worker.datasets.storage import Storage, StorageError


@dataclass(frozen=True, slots=True)
class Table:
    """The columns of a dataset, memory-mapped, not to be written to.

    `dense`: float64, rows x len(dataset.columns); `sparse`: float64, rows x dataset.sparse.columns, None without a
    sparse part. Missing values are NaN, categories their positions in the sorted texts, dates days since 1970-01-01.
    """

    dataset: Dataset
    dense: npt.NDArray[np.float64]
    sparse: sparse.csr_array | None


def open_table(storage: Storage, dataset_id: str) -> Table:
    """Map a dataset into memory, after a copy has been made where the storage is not of this machine.

    Raises DatasetGoneError; StorageError when the storage does not answer, or a file is not what was stored.
    """
    for _ in range(3):
        try:
            return _mapped(storage.fetch(dataset_id), dataset_id)
        except FileNotFoundError:  # the copy was removed from the cache just now
            continue
    raise StorageError(f"The files of dataset {dataset_id} disappear while they are opened; is the cache too small?")


def _mapped(path: Path, dataset_id: str) -> Table:
    dataset = Dataset.model_validate_json((path / MANIFEST).read_bytes())
    for name, stored in dataset.layout.files.items():
        if (path / name).stat().st_size != stored.bytes:
            raise StorageError(f"{name} of dataset {dataset_id} is not as long as it was made.")
    return Table(dataset, _dense(path, dataset), _sparse(path, dataset))


def _dense(path: Path, dataset: Dataset) -> npt.NDArray[np.float64]:
    shape, layout = (dataset.rows, len(dataset.columns)), dataset.layout.dense
    if layout is None:
        return np.empty(shape)
    return np.memmap(path / layout.file, "<f8", "r", layout.offset, shape, layout.order)


def _sparse(path: Path, dataset: Dataset) -> sparse.csr_array | None:
    layout = dataset.layout.sparse
    if layout is None or dataset.sparse is None:
        return None

    def mapped(name: str, dtype: str) -> npt.NDArray[np.generic]:
        return np.memmap(path / name, dtype, "r") if (path / name).stat().st_size else np.empty(0, dtype)

    parts = mapped(layout.data, "<f8"), mapped(layout.indices, layout.index_type), mapped(layout.indptr, "<i8")
    return sparse.csr_array(parts, shape=(dataset.rows, dataset.sparse.columns))
