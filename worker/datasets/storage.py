"""What a storage of datasets does, and how it fails. A dataset is there completely, or not at all."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from worker.contract.dataset import Dataset, Layout
from worker.datasets.workshop import Workshop

BAD_DISK = frozenset({errno.EIO, errno.EBADMSG, getattr(errno, "EUCLEAN", errno.EIO)})
REMEDY = "Upload the same file again, which repairs the dataset."


class DatasetGoneError(Exception):
    """There is no dataset with this id (any more)."""


class StorageError(Exception):
    """The storage does not answer, refuses, or returned other bytes than it was given."""


class DamagedError(StorageError):
    """A dataset is not what was stored: a sentence says which part, and how to repair it."""

    def __init__(self, dataset_id: str, what: str) -> None:
        super().__init__(f"Dataset {dataset_id} is damaged. {what} {REMEDY}")
        self.dataset_id = dataset_id


@contextmanager
def reading(dataset_id: str, name: str) -> Iterator[None]:
    """Take a file that is not there, is a folder, or cannot be read from the disk, for damage."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise DamagedError(dataset_id, f"Its file {name} is not there.") from error
    except OSError as error:
        if error.errno in BAD_DISK:
            raise DamagedError(dataset_id, f"Its file {name} cannot be read from the disk.") from error
        raise


class Storage(Protocol):
    """What a storage does. Every method but `workshop`'s may raise StorageError, and OSError for the disk.

    What is no id of a dataset is never joined to a path: DatasetGoneError.
    """

    workshop: Workshop

    def publish(self, directory: Path, dataset: Dataset, *, replace: bool = False) -> bool:
        """Put a finished directory in its place, to stay there when the power is cut.

        False when a sound one is there already; one that is damaged, or any with `replace`, makes room.
        """
        ...

    def read(self, dataset_id: str, name: str) -> bytes | None:
        """A small file of a dataset; None when it is not there."""
        ...

    def inspect(self, dataset_id: str, layout: Layout) -> None:
        """Look whether the files are there, as far as that costs next to nothing. Raises DamagedError."""
        ...

    def verify(self, dataset_id: str) -> None:
        """Compare what is there with what was stored, but for what this process knows. Raises DamagedError."""
        ...

    def scrub(self, dataset_id: str) -> Iterator[int]:
        """Compare all of it, whatever is known, in pieces: the bytes of each. Raises DamagedError, DatasetGoneError."""
        ...

    def fetch(self, dataset_id: str) -> Path:
        """A directory of this machine with all files of a dataset. Raises DatasetGoneError, DamagedError."""
        ...

    def discard(self, dataset_id: str) -> bool:
        """Give up a damaged directory that was fetched; whether another one can be fetched."""
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
