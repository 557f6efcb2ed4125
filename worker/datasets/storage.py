"""Where datasets are kept: a directory for each, named by its id, complete or not there at all."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from worker.contract.dataset import DATASET_ID, Dataset
from worker.datasets.ingest import MANIFEST


class DatasetGoneError(Exception):
    """There is no dataset with this id (any more)."""


class LocalStorage:
    """Datasets in a directory of this machine. What is being made lies in `tmp` beside them, on the same disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tmp = root / "tmp"

    def workspace(self) -> Path:
        """A new directory to make a dataset in."""
        path = self.tmp / uuid.uuid4().hex
        path.mkdir(parents=True)
        return path

    def publish(self, directory: Path, dataset: Dataset) -> bool:
        """Put a finished directory in its place, in one step; false when the dataset is there already."""
        try:
            directory.rename(self.root / dataset.id)
        except OSError:
            if (self.root / dataset.id / MANIFEST).exists():
                return False
            raise
        return True

    def read(self, dataset_id: str, name: str) -> bytes | None:
        """A small file of a dataset; None when it is not there."""
        try:
            return (self.root / dataset_id / name).read_bytes()
        except FileNotFoundError:
            return None

    def fetch(self, dataset_id: str) -> Path:
        """The directory of a dataset on this machine. Raises DatasetGoneError."""
        path = self.root / dataset_id
        if not (path / MANIFEST).exists():
            raise DatasetGoneError(f"There is no dataset {dataset_id} in the storage.")
        return path

    def ids(self) -> Iterator[str]:
        """Every dataset."""
        if self.root.exists():
            yield from (path.name for path in self.root.iterdir() if re.fullmatch(DATASET_ID, path.name))

    def delete(self, dataset_id: str) -> bool:
        """Remove a dataset; false when it was not there."""
        self.tmp.mkdir(parents=True, exist_ok=True)
        trash = self.tmp / uuid.uuid4().hex
        try:
            (self.root / dataset_id).rename(trash)
        except FileNotFoundError:
            return False
        shutil.rmtree(trash, ignore_errors=True)
        return True
