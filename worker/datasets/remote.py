"""Datasets in an object store, and copies of them on this machine.

The objects of a dataset are `PREFIX/ID/FILE`; its manifest is written last and removed first, so that a dataset without
one is not there. Copies live in a cache of bounded size, the longest unused one goes first.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, NotSupportedError
from obstore.store import from_url

from worker.contract.dataset import DATASET_ID, Dataset, StoredFile
from worker.datasets.ingest import MANIFEST
from worker.datasets.storage import DatasetGoneError, StorageError
from worker.datasets.workshop import Workshop

CHUNK: Final = 8 * 2**20
MISSING: Final = (NotFoundError, FileNotFoundError)
THERE: Final = (AlreadyExistsError, FileExistsError)
ABANDONED: Final = 86_400.0
"""Seconds after which objects without a manifest are taken for the remains of an upload that failed."""


def remote_storage(url: str, data_dir: Path, cache: int) -> RemoteStorage:
    """The storage at a URL; credentials come from the environment, as the store's own tools read them."""
    try:
        return RemoteStorage(from_url(url), Workshop(data_dir / "uploads"), Cache(data_dir / "cache", cache))
    except (BaseError, ValueError) as error:
        raise StorageError(f"{url} names no storage that can be used: {error}") from None


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except (*MISSING, *THERE):
        raise
    except BaseError as error:
        raise StorageError(f"The storage does not do what it should: {str(error)[:300]}") from error


class RemoteStorage:
    """Datasets in an object store."""

    def __init__(self, store: Any, workshop: Workshop, cache: Cache) -> None:
        self.store, self.workshop, self.cache = store, workshop, cache

    def publish(self, directory: Path, dataset: Dataset) -> bool:
        """Upload the files, then the manifest. Two uploads of the same dataset write the same bytes."""
        manifest = f"{dataset.id}/{MANIFEST}"
        if self.read(dataset.id, MANIFEST) is not None:
            return False
        with _answering():
            for name in dataset.layout.files:
                obstore.put(self.store, f"{dataset.id}/{name}", directory / name, chunk_size=CHUNK)
            content = (directory / MANIFEST).read_bytes()
            try:
                obstore.put(self.store, manifest, content, mode="create")
            except THERE:
                return False
            except (NotSupportedError, NotImplementedError):
                obstore.put(self.store, manifest, content)
        return True

    def read(self, dataset_id: str, name: str) -> bytes | None:
        """Get an object."""
        try:
            with _answering():
                return bytes(obstore.get(self.store, f"{dataset_id}/{name}").bytes())
        except MISSING:
            return None

    def fetch(self, dataset_id: str) -> Path:
        """The copy in the cache, made now if it is not there."""
        return self.cache.fetch(dataset_id, self)

    def download(self, dataset_id: str, directory: Path) -> Dataset:
        """Copy all files, verified. Raises DatasetGoneError; StorageError for bytes that are not what was stored."""
        manifest = self.read(dataset_id, MANIFEST)
        if manifest is None:
            raise DatasetGoneError(f"There is no dataset {dataset_id} in the storage.")
        dataset = Dataset.model_validate_json(manifest)
        for name, stored in dataset.layout.files.items():
            self._copy(f"{dataset_id}/{name}", directory / name, stored)
        (directory / MANIFEST).write_bytes(manifest)
        return dataset

    def _copy(self, key: str, path: Path, stored: StoredFile) -> None:
        digest, size = hashlib.sha256(), 0
        try:
            with _answering(), path.open("wb") as file:
                for part in obstore.get(self.store, key).stream(min_chunk_size=CHUNK):
                    view = memoryview(part)
                    digest.update(view)
                    size += file.write(view)
        except MISSING:
            raise DatasetGoneError(f"{key} is not in the storage any more.") from None
        if (size, digest.hexdigest()) != (stored.bytes, stored.sha256):
            raise StorageError(f"{key} is not what was stored: {size} of {stored.bytes} bytes, or another hash.")

    def ids(self) -> Iterator[str]:
        """The prefixes with a manifest."""
        with _answering():
            for batch in obstore.list(self.store):
                for item in batch:
                    name, _, file = str(item["path"]).rpartition("/")
                    if file == MANIFEST and re.fullmatch(DATASET_ID, name):
                        yield name

    def delete(self, dataset_id: str) -> None:
        """Remove the manifest, then the other objects."""
        with _answering():
            with suppress(*MISSING):
                obstore.delete(self.store, f"{dataset_id}/{MANIFEST}")
            others = [str(item["path"]) for batch in obstore.list(self.store, f"{dataset_id}/") for item in batch]
            if others:
                obstore.delete(self.store, others)

    def sweep(self) -> int:
        """Remove what processes that are gone have left, here and (old objects without a manifest) in the store."""
        newest: dict[str, datetime] = {}
        complete = set()
        with _answering():
            for batch in obstore.list(self.store):
                for item in batch:
                    name, _, file = str(item["path"]).rpartition("/")
                    if re.fullmatch(DATASET_ID, name):
                        newest[name] = max(item["last_modified"], newest.get(name, item["last_modified"]))
                        if file == MANIFEST:
                            complete.add(name)
        now = datetime.now(UTC)
        old = [n for n, at in newest.items() if n not in complete and (now - at).total_seconds() > ABANDONED]
        for name in old:
            self.delete(name)
        return len(old) + self.workshop.sweep()


class Cache:
    """Copies of datasets in a directory, shared by the processes of a machine, of `limit` bytes together."""

    def __init__(self, root: Path, limit: int) -> None:
        self.root, self.limit = root, limit

    def fetch(self, dataset_id: str, storage: RemoteStorage) -> Path:
        """The directory of the copy; one process makes it, others wait. Raises as `RemoteStorage.download`."""
        path = self.root / dataset_id
        self.root.mkdir(parents=True, exist_ok=True)
        with _exclusive(self.root / f"{dataset_id}.lock"):
            if not _complete(path):
                shutil.rmtree(path, ignore_errors=True)
                directory = storage.workshop.make()
                try:
                    storage.download(dataset_id, directory)
                    directory.rename(path)
                finally:
                    shutil.rmtree(directory, ignore_errors=True)
            now = time.time()
            os.utime(path, (now, now))
        self._make_room(keep=dataset_id)
        return path

    def _make_room(self, keep: str) -> None:
        """Remove the longest unused copies. Who has mapped their files keeps them."""
        copies = [p for p in self.root.iterdir() if p.is_dir()]
        sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in copies}
        total = sum(sizes.values())
        for path in sorted(copies, key=lambda copy: copy.stat().st_mtime):
            if total <= self.limit:
                return
            if path.name != keep:
                shutil.rmtree(path, ignore_errors=True)
                total -= sizes[path]


def _complete(path: Path) -> bool:
    """Whether a copy has all of its files: its directory may have been removed in part."""
    try:
        dataset = Dataset.model_validate_json((path / MANIFEST).read_bytes())
        return all((path / name).stat().st_size == stored.bytes for name, stored in dataset.layout.files.items())
    except (OSError, ValueError):
        return False


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
