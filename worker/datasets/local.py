"""Datasets in a directory of this machine."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from worker.contract.dataset import DATASET_ID, Dataset, Layout
from worker.datasets import durable
from worker.datasets.manifest import MANIFEST, Record, open_record, read_record, require_id
from worker.datasets.storage import REMEDY, DamagedError, DatasetGoneError, StorageError, reading
from worker.datasets.verified import check_size, open_verified, pieces
from worker.datasets.workshop import Workshop

TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR})


class LocalStorage:
    """Datasets in a directory of this machine, a directory each, which appears and disappears by being renamed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workshop = Workshop(root / "tmp")
        self._kept = False  # whether the name of the root is on the disk

    def publish(self, directory: Path, dataset: Dataset, *, replace: bool = False) -> bool:
        """Rename the directory, once all of it is on the disk; one that is damaged swaps places with it."""
        for name in (*dataset.layout.files, MANIFEST):
            durable.sync(directory / name)
        durable.sync(directory)
        place = self._place(dataset.id)
        for _ in range(3):
            try:
                directory.rename(place)
            except OSError as error:
                if error.errno not in TAKEN:
                    raise
                if not replace and self._sound(dataset.id):
                    self._keep()  # whoever put it there may not have come so far
                    return False
                try:
                    durable.exchange(directory, place)
                except FileNotFoundError:  # it was removed just now
                    continue
            self._keep()
            return True
        raise StorageError(f"Dataset {dataset.id} is removed again and again while it is stored.")

    def _keep(self) -> None:
        """Wait until the names of datasets are on the disk."""
        durable.sync(self.root)
        if not self._kept:
            durable.sync_above(self.root)
            self._kept = True

    def _sound(self, dataset_id: str) -> bool:
        try:
            self.verify(dataset_id)
        except (DamagedError, DatasetGoneError):
            return False
        return True

    def _place(self, dataset_id: str) -> Path:
        return self.root / require_id(dataset_id)

    def read(self, dataset_id: str, name: str) -> bytes | None:
        """Read a file."""
        try:
            with reading(dataset_id, name):
                return (self._place(dataset_id) / name).read_bytes()
        except DamagedError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def inspect(self, dataset_id: str, layout: Layout) -> None:
        """Ask for the length of each file."""
        folder = str(self._place(dataset_id))
        for name, stored in layout.files.items():
            with reading(dataset_id, name):
                at = os.stat(f"{folder}/{name}")  # noqa: PTH116 - each job that is sent waits for it
            check_size(at.st_size, name, stored, dataset_id)

    def _record(self, dataset_id: str) -> Record:
        return open_record(read_record(self.fetch(dataset_id)), dataset_id)

    def verify(self, dataset_id: str) -> None:
        """Read each file that this process does not know."""
        for name, stored in self._record(dataset_id).files.items():
            open_verified(self._place(dataset_id), name, stored, dataset_id).close()

    def scrub(self, dataset_id: str) -> Iterator[int]:
        """Read each file."""
        for name, stored in self._record(dataset_id).files.items():
            yield from pieces(self._place(dataset_id), name, stored, dataset_id)

    def fetch(self, dataset_id: str) -> Path:
        """The directory itself."""
        path = self._place(dataset_id)
        if not path.exists():
            raise DatasetGoneError(f"The files of dataset {dataset_id} are not in the storage. {REMEDY}")
        return path

    def discard(self, dataset_id: str) -> bool:  # noqa: ARG002 - the protocol
        """There is no other one."""
        return False

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
            self._place(dataset_id).rename(trash)
            durable.sync(self.root)  # else a cut can leave half of it in its place
        except FileNotFoundError:
            pass
        finally:
            shutil.rmtree(trash, ignore_errors=True)

    def sweep(self) -> int:
        """Remove the rooms of processes that are gone."""
        return self.workshop.sweep()
