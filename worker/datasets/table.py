"""A dataset as arrays."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from scipy import sparse

from worker.contract.dataset import Dataset
from worker.datasets.manifest import open_dataset, read_record
from worker.datasets.storage import DamagedError, Storage, StorageError
from worker.datasets.verified import open_verified


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
    """Map a dataset into memory, verified, after a copy has been made where the storage is not of this machine.

    Raises DatasetGoneError; DamagedError when a file is not what was stored; StorageError when the storage does not
    answer.
    """
    for _ in range(3):
        path = storage.fetch(dataset_id)
        try:
            return _mapped(path, dataset_id)
        except DamagedError:  # of a copy: it was removed from the cache just now, or the cache's disk is bad
            if not storage.discard(dataset_id):
                raise
    raise StorageError(f"The copies of dataset {dataset_id} do not last; is the cache too small, or its disk bad?")


def _mapped(path: Path, dataset_id: str) -> Table:
    dataset = open_dataset(read_record(path), dataset_id)
    with ExitStack() as opened:

        def verified(name: str) -> BinaryIO:
            """What was verified is what is mapped, even if another file takes this name now."""
            stored = dataset.layout.files[name]
            return opened.enter_context(open_verified(path, name, stored, dataset_id))

        return Table(dataset, _dense(verified, dataset), _sparse(verified, dataset))


def _dense(verified: Callable[[str], BinaryIO], dataset: Dataset) -> npt.NDArray[np.float64]:
    shape, layout = (dataset.rows, len(dataset.columns)), dataset.layout.dense
    if layout is None:
        return np.empty(shape)
    return np.memmap(verified(layout.file), "<f8", "r", layout.offset, shape, layout.order)


def _sparse(verified: Callable[[str], BinaryIO], dataset: Dataset) -> sparse.csr_array | None:
    layout = dataset.layout.sparse
    if layout is None or dataset.sparse is None:
        return None

    def mapped(name: str, dtype: str) -> npt.NDArray[np.generic]:
        file = verified(name)
        return np.memmap(file, dtype, "r") if dataset.layout.files[name].bytes else np.empty(0, dtype)

    parts = mapped(layout.data, "<f8"), mapped(layout.indices, layout.index_type), mapped(layout.indptr, "<i8")
    return sparse.csr_array(parts, shape=(dataset.rows, dataset.sparse.columns))
