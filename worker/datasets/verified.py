"""Files compared with the hashes of their manifest: once in a process and its forks, and again by the scrubber."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from worker.contract.dataset import StoredFile
from worker.datasets.storage import DamagedError, reading

PIECE: Final = 4 * 2**20
SLOTS: Final = 4096


class Known:
    """Files that were verified. The memory is shared with forks: what a work-horse learns, the next one knows.

    The last `SLOTS` files are kept. A slot that two processes write at once holds nothing that any file has.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 32 * (SLOTS + 1))  # the first slot counts

    def __contains__(self, mark: bytes) -> bool:
        return self._memory.find(mark, 32) >= 0

    def add(self, mark: bytes) -> None:
        """Keep the mark of a file in place of the oldest one."""
        count = int.from_bytes(self._memory[:8], "little")
        self._memory[:8] = (count + 1).to_bytes(8, "little")
        start = 32 * (1 + count % SLOTS)
        self._memory[start : start + 32] = mark


_known = Known()


def _mark(file: BinaryIO, stored: StoredFile) -> bytes:
    """What tells this content of this file from any other: any write to it changes its times."""
    at = os.fstat(file.fileno())
    return hashlib.sha256(
        repr((at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns, stored.sha256)).encode()
    ).digest()


def open_verified(path: Path, name: str, stored: StoredFile, dataset_id: str) -> BinaryIO:
    """Open a file whose content is what was stored: read once, at 1 to 1.5 GB/s and a core. Raises DamagedError."""
    with reading(dataset_id, name):
        file = (path / name).open("rb", buffering=0)
        try:
            check_size(os.fstat(file.fileno()).st_size, name, stored, dataset_id)
            mark = _mark(file, stored)
            if mark not in _known:
                _check_hash(hashlib.file_digest(file, "sha256").hexdigest(), name, stored, dataset_id)
                if _mark(file, stored) == mark:  # nobody wrote to it meanwhile
                    _known.add(mark)
        except BaseException:
            file.close()
            raise
    return file


def pieces(path: Path, name: str, stored: StoredFile, dataset_id: str) -> Iterator[int]:
    """Read a file from the disk, piece by piece, and compare it in the end. Raises DamagedError."""
    digest, size = hashlib.sha256(), 0
    with reading(dataset_id, name), (path / name).open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):
            with suppress(OSError):  # else the memory is asked, not the disk
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while part := file.read(PIECE):
            digest.update(part)
            size += len(part)
            yield len(part)
    check_size(size, name, stored, dataset_id)
    _check_hash(digest.hexdigest(), name, stored, dataset_id)


def check_size(size: int, name: str, stored: StoredFile, dataset_id: str) -> None:
    """Raises DamagedError for a file that is shorter or longer than it was stored."""
    if size != stored.bytes:
        raise DamagedError(dataset_id, f"Its file {name} has {size} bytes instead of {stored.bytes}.")


def _check_hash(sha256: str, name: str, stored: StoredFile, dataset_id: str) -> None:
    if sha256 != stored.sha256:
        raise DamagedError(dataset_id, f"Its file {name} has another hash (SHA-256) than when it was stored.")
