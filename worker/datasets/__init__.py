"""Datasets: bytes of any accepted format -> canonical form -> arrays that workers memory-map."""

from __future__ import annotations

import hashlib
import shutil
from datetime import UTC, datetime
from pathlib import Path

from worker.contract.dataset import Dataset, Format, ReadingOptions
from worker.datasets.draft import CONTENT
from worker.datasets.ingest import assemble, read
from worker.datasets.local import LocalStorage
from worker.datasets.manifest import MANIFEST
from worker.datasets.opening import open_storage, storage_from_environment
from worker.datasets.refusal import Limits, Reason, RefusedError
from worker.datasets.source import Source
from worker.datasets.storage import DamagedError, DatasetGoneError, Storage, StorageError
from worker.datasets.table import Table, open_table

__all__ = [
    "MANIFEST",
    "DamagedError",
    "Dataset",
    "DatasetGoneError",
    "Limits",
    "LocalStorage",
    "Reason",
    "RefusedError",
    "Source",
    "Storage",
    "StorageError",
    "Table",
    "add_file",
    "assemble",
    "open_storage",
    "open_table",
    "read",
    "storage_from_environment",
]


def add_file(
    storage: Storage, path: Path, kind: Format, limits: Limits | None = None, options: ReadingOptions | None = None
) -> Dataset:
    """Put a file into a storage, here and now, in this process. Raises RefusedError."""
    directory = storage.workshop.make()
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        shutil.copyfile(path, directory / CONTENT)
        source = Source(directory / CONTENT)
        draft = read(source, directory, kind, limits or Limits(), options)
        dataset = assemble(directory, draft, kind, source.size(), digest, datetime.now(UTC), options)
        storage.publish(directory, dataset)
        return dataset
    finally:
        shutil.rmtree(directory, ignore_errors=True)
