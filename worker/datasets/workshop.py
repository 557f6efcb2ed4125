"""Directories in which datasets are made; what a process that is gone has left in them is swept away by the others."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final

ABANDONED: Final = 3600.0
"""Seconds after which a lock without a room is nobody's."""


class Workshop:
    """A directory with one room for each process, locked while the process lives."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._room: Path | None = None
        self._lock = -1

    def make(self) -> Path:
        """A new empty directory."""
        if self._room is None:
            name = uuid.uuid4().hex
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.root / f"{name}.lock")  # before the room, which nobody may see unlocked
            self._room = self.root / name
        path = self._room / uuid.uuid4().hex
        path.mkdir(parents=True)
        return path

    def sweep(self) -> int:
        """Remove the rooms of processes that are gone; returns how many."""
        swept = 0
        for room in self.root.glob("*") if self.root.exists() else ():
            lock = self.root / f"{room.name}.lock"
            if room == self._room or room.suffix == ".lock":
                continue
            try:
                descriptor = _locked(lock)
            except OSError:
                continue
            shutil.rmtree(room, ignore_errors=True)
            lock.unlink(missing_ok=True)
            os.close(descriptor)
            swept += 1
        self._sweep_locks()
        return swept

    def _sweep_locks(self) -> None:
        """Remove locks without a room, as a power cut leaves them; beside a young one a room may be in the making."""
        for lock in self.root.glob("*.lock"):
            with suppress(OSError):
                if not lock.with_suffix("").exists() and time.time() - lock.stat().st_mtime > ABANDONED:
                    descriptor = _locked(lock)
                    lock.unlink(missing_ok=True)
                    os.close(descriptor)

    def unfinished(self) -> list[Path]:
        """Everything that is being made, or was left."""
        return [path for room in self.root.glob("*") if room.is_dir() for path in room.iterdir()]


def _locked(path: Path) -> int:
    """A descriptor that holds the lock. Raises OSError when another process has it."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
