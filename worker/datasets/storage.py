"""What a storage of datasets does, and how it fails. A dataset is there completely, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from worker.contract.dataset import Dataset
from worker.datasets.workshop import Workshop


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
