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

from worker.contract.dataset import DATASET_ID, Dataset, Layout, StoredFile
from worker.datasets.manifest import MANIFEST, SEAL, Record, open_record, require_id, seal_of
from worker.datasets.storage import DamagedError, DatasetGoneError, StorageError
from worker.datasets.verified import check_size
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

    def publish(self, directory: Path, dataset: Dataset, *, replace: bool = False) -> bool:
        """Upload the files, then the manifest. Two uploads of the same dataset write the same bytes."""
        manifest = f"{require_id(dataset.id)}/{MANIFEST}"
        try:
            self.verify(dataset.id)
            if not replace:
                return False
        except DatasetGoneError:
            pass
        except DamagedError:
            replace = True
        with _answering():
            for name in dataset.layout.files:
                obstore.put(self.store, f"{dataset.id}/{name}", directory / name, chunk_size=CHUNK)
            content = (directory / MANIFEST).read_bytes()
            try:
                obstore.put(self.store, manifest, content, mode="overwrite" if replace else "create")
            except THERE:
                return False
            except (NotSupportedError, NotImplementedError):
                obstore.put(self.store, manifest, content)
        return True

    def read(self, dataset_id: str, name: str) -> bytes | None:
        """Get an object."""
        try:
            with _answering():
                return bytes(obstore.get(self.store, f"{require_id(dataset_id)}/{name}").bytes())
        except MISSING:
            return None

    def inspect(self, dataset_id: str, layout: Layout) -> None:
        """Nothing: each question costs a request. Whoever copies the files compares them."""

    def _record(self, dataset_id: str) -> tuple[Record, bytes]:
        manifest = self.read(dataset_id, MANIFEST)
        if manifest is None:
            raise DatasetGoneError(f"There is no dataset {dataset_id} in the storage.")
        return open_record(manifest, dataset_id), manifest

    def verify(self, dataset_id: str) -> None:
        """Ask for the length of each file: that bytes last is the store's affair, and copies are compared."""
        record, _ = self._record(dataset_id)
        with _answering():
            listed = (item for batch in obstore.list(self.store, f"{dataset_id}/") for item in batch)
            sizes = {str(item["path"]).rpartition("/")[2]: int(item["size"]) for item in listed}
        for name, stored in record.files.items():
            if name not in sizes:
                raise DamagedError(dataset_id, f"Its file {name} is not there.")
            check_size(sizes[name], name, stored, dataset_id)

    def scrub(self, dataset_id: str) -> Iterator[int]:
        """As `verify`: to read everything would have to be paid for."""
        self.verify(dataset_id)
        yield 0

    def fetch(self, dataset_id: str) -> Path:
        """The copy in the cache, made now if it is not there."""
        return self.cache.fetch(require_id(dataset_id), self)

    def discard(self, dataset_id: str) -> bool:
        """Remove the copy from the cache."""
        self.cache.discard(require_id(dataset_id))
        return True

    def download(self, dataset_id: str, directory: Path) -> None:
        """Copy all files, verified. Raises DatasetGoneError; DamagedError for bytes that are not what was stored."""
        record, manifest = self._record(dataset_id)
        for name, stored in record.files.items():
            if not any(self._copied(dataset_id, name, directory / name, stored) for _ in range(2)):
                raise DamagedError(dataset_id, f"Its file {name} has another length or hash than when it was stored.")
        if (seal := seal_of(manifest)) is not None:
            (directory / SEAL).write_bytes(seal)
        (directory / MANIFEST).write_bytes(manifest)

    def _copied(self, dataset_id: str, name: str, path: Path, stored: StoredFile) -> bool:
        """Copy a file; whether it is what was stored. Raises DatasetGoneError, DamagedError where there is none."""
        digest, size = hashlib.sha256(), 0
        try:
            with _answering(), path.open("wb") as file:
                for part in obstore.get(self.store, f"{dataset_id}/{name}").stream(min_chunk_size=CHUNK):
                    view = memoryview(part)
                    digest.update(view)
                    size += file.write(view)
        except MISSING:
            self._record(dataset_id)  # a dataset that is being removed has no manifest any more
            raise DamagedError(dataset_id, f"Its file {name} is not there.") from None
        return (size, digest.hexdigest()) == (stored.bytes, stored.sha256)

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
                obstore.delete(self.store, f"{require_id(dataset_id)}/{MANIFEST}")
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

    def discard(self, dataset_id: str) -> None:
        """Remove a copy. Who has mapped its files keeps them."""
        with _exclusive(self.root / f"{dataset_id}.lock"):
            shutil.rmtree(self.root / dataset_id, ignore_errors=True)

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
    """Whether a copy has all of its files: its directory may have been removed in part, or the power may have been cut.

    Their content is compared when they are opened.
    """
    try:
        files = open_record((path / MANIFEST).read_bytes(), path.name).files
        return all((path / name).stat().st_size == stored.bytes for name, stored in files.items())
    except (OSError, StorageError):
        return False


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
