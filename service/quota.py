"""What all datasets may take of the disk together, those that are being made included."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import redis.asyncio

from service.problems import StorageFull
from service.settings import Settings
from worker import store
from worker.datasets import LocalStorage, Storage
from worker.datasets.draft import CONTENT

LOOK = 0.2  # seconds between looks at the files that a reader writes
T = TypeVar("T")
log = logging.getLogger(__name__)


class Quota:
    """The quota, and the uploads of this API process that are on their way to it.

    Each may take what the index and the other uploads leave, the one that came first what the index leaves: so one of
    them ends, and all together take little more than there is. `limit`: bytes, None: no limit; `evicting`:
    whether datasets that are there make room.
    """

    def __init__(self, limit: int | None, *, evicting: bool) -> None:
        self.limit = limit
        self._evicting = evicting
        self._taken = 0
        self._arriving: dict[Path, None] = {}  # in their order

    async def refresh(self, client: redis.asyncio.Redis) -> None:
        """Ask the index what is taken. Raises RedisError."""
        if self.limit is not None and not self._evicting:
            self._taken = await store.arun(client, store.stored_bytes())

    def added(self, size: int) -> None:
        """Note a dataset that is in the index now."""
        if not self._evicting:
            self._taken += size

    @contextmanager
    def arriving(self, directory: Path) -> Iterator[None]:
        """While there are files of an upload in a directory."""
        self._arriving[directory] = None
        try:
            yield
        finally:
            del self._arriving[directory]

    def room(self, directory: Path) -> int | None:
        """Bytes that the upload in a directory may take; None: as many as it likes."""
        if self.limit is None:
            return None
        first = next(iter(self._arriving), directory) == directory
        others = 0 if first else sum(size(other) for other in self._arriving if other != directory)
        return max(self.limit - self._taken - others, 0)

    def check(self, directory: Path) -> None:
        """Raise StorageFull when the files of an upload take more than there is room for."""
        room = self.room(directory)
        if room is not None and size(directory) > room:
            raise self.full(room)

    async def watch(self, directory: Path, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns, unless the files that are written meanwhile take too much. Raises StorageFull."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait([task], timeout=LOOK)
                self.check(directory)
            return await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    def full(self, room: int | None = None, headers: Mapping[str, str] | None = None) -> StorageFull:
        """The problem of a dataset that does not fit. `room`: bytes that it may take."""
        left = "" if room is None else f", of which {room} are left"
        return StorageFull(
            f"All datasets together may take {self.limit} bytes (GRADTUNE_DATASET_QUOTA_MB){left}; delete some that "
            "are not needed any more.",
            headers=headers,
        )


def size(directory: Path) -> int:
    """Bytes that an upload takes: of its file, or of what is made of it, whichever is more.

    The file is removed in the end, unless it is what is kept.
    """
    content = made = 0
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if entry.name == CONTENT:
                    content = entry.stat().st_size
                else:
                    made += entry.stat().st_size
    return max(content, made)


def limit_of(settings: Settings, storage: Storage) -> int | None:
    """The quota that is set, or half of what is free on the disk or taken by datasets; None for a remote storage."""
    if settings.dataset_quota is not None or not isinstance(storage, LocalStorage):
        return settings.dataset_quota
    there = next(path for path in (storage.root, *storage.root.parents) if path.exists())
    limit = (shutil.disk_usage(there).free + sum(map(_bytes_in, storage.directories()))) // 2
    log.info(
        "datasets may take %.1f GiB, half of what the disk has for them (GRADTUNE_DATASET_QUOTA_MB)", limit / 2**30
    )
    return limit


def _bytes_in(directory: Path) -> int:
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        return sum(entry.stat().st_size for entry in entries)
    return 0
