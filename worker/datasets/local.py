"""Datasets in a directory of this machine."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from worker.contract.dataset import DATASET_ID, Dataset
from worker.datasets.ingest import MANIFEST
from worker.datasets.storage import DatasetGoneError
from worker.datasets.workshop import Workshop


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

    def directories(self) -> Iterator[Path]:
        """One for each dataset."""
        yield from (self.root / name for name in self.ids())

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
