"""Where datasets are kept: a directory or an object store. A dataset is there completely, or not at all."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from worker.contract.dataset import DATASET_ID, Dataset
from worker.datasets.ingest import MANIFEST
from worker.datasets.workshop import Workshop

CACHE_MB = 20_480.0


class DatasetGoneError(Exception):
    """There is no dataset with this id (any more)."""


class StorageError(Exception):
    """The storage does not answer, refuses, or returned other bytes than it was given."""


class Storage(Protocol):
    """What a storage does. Every method but `workshop`'s may raise StorageError, and OSError for the disk."""

    workshop: Workshop

    def publish(self, directory: Path, dataset: Dataset) -> bool:
        """Put a finished directory in its place; false when the dataset is there already."""
        ...

    def read(self, dataset_id: str, name: str) -> bytes | None:
        """A small file of a dataset; None when it is not there."""
        ...

    def fetch(self, dataset_id: str) -> Path:
        """A directory of this machine with all files of a dataset. Raises DatasetGoneError."""
        ...

    def ids(self) -> Iterator[str]:
        """Every dataset."""
        ...

    def delete(self, dataset_id: str) -> None:
        """Remove a dataset, if it is there."""
        ...

    def sweep(self) -> int:
        """Remove what was begun by processes that are gone; returns how much that was."""
        ...


class LocalStorage:
    """Datasets in a directory of this machine, a directory each, which appears and disappears by being renamed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workshop = Workshop(root / "tmp")

    def publish(self, directory: Path, dataset: Dataset) -> bool:
        """Rename the directory."""
        try:
            directory.rename(self.root / dataset.id)
        except OSError:
            if (self.root / dataset.id / MANIFEST).exists():
                return False
            raise
        return True

    def read(self, dataset_id: str, name: str) -> bytes | None:
        """Read a file."""
        try:
            return (self.root / dataset_id / name).read_bytes()
        except FileNotFoundError:
            return None

    def fetch(self, dataset_id: str) -> Path:
        """The directory itself."""
        path = self.root / dataset_id
        if not (path / MANIFEST).exists():
            raise DatasetGoneError(f"There is no dataset {dataset_id} in {self.root}.")
        return path

    def ids(self) -> Iterator[str]:
        """The names of directories."""
        if self.root.exists():
            yield from (path.name for path in self.root.iterdir() if re.fullmatch(DATASET_ID, path.name))

    def delete(self, dataset_id: str) -> None:
        """Rename the directory away, then remove it; who has mapped its files keeps them."""
        trash = self.workshop.make()
        try:
            (self.root / dataset_id).rename(trash)
        except FileNotFoundError:
            pass
        finally:
            shutil.rmtree(trash, ignore_errors=True)

    def sweep(self) -> int:
        """Remove the rooms of processes that are gone."""
        return self.workshop.sweep()


def open_storage(url: str | None, data_dir: Path, cache_mb: float = CACHE_MB) -> Storage:
    """The storage at `url` (`s3://`, `gs://`, `az://`, `file://`), or in `data_dir`. Raises StorageError."""
    if url is None:
        return LocalStorage(data_dir / "datasets")
    if url.startswith("file://"):
        return LocalStorage(Path(url.removeprefix("file://")))
    from worker.datasets.remote import remote_storage  # noqa: PLC0415 - few need it

    return remote_storage(url, data_dir, int(cache_mb * 2**20))


def storage_from_environment() -> Storage:
    """The storage that the settings of this process name, `GRADTUNE_STORAGE_URL` or `GRADTUNE_DATA_DIR`."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    data_dir = os.environ.get("GRADTUNE_DATA_DIR") or Path(base) / "gradtune"
    cache = float(os.environ.get("GRADTUNE_CACHE_MB") or CACHE_MB)
    return open_storage(os.environ.get("GRADTUNE_STORAGE_URL") or None, Path(data_dir), cache)
