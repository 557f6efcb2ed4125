"""A disk that loses what was not synced: what each power cut would leave, while the real code runs on a real folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from worker.datasets import durable


@dataclass
class Disk:
    """What is safe of a folder: the bytes of each file at its last fsync, the names of each folder at its own.

    `cuts` are the folders that cuts would leave before each fsync and after each renaming, of two kinds each:
    a lazy disk keeps no more names than it must, an eager one keeps all names and yet no bytes that were not synced.
    Files and folders are known by their inodes. Each one seen stays open, so that no other gets its number.
    """

    root: Path
    scratch: Path
    files: dict[int, bytes] = field(default_factory=dict)
    folders: dict[int, dict[str, int]] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    cuts: list[tuple[str, Path]] = field(default_factory=list)
    held: ExitStack = field(default_factory=ExitStack)

    def synced(self, descriptor: int) -> None:
        """Note an fsync that has returned."""
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        at = os.fstat(descriptor)
        self._hold(path)
        if stat.S_ISDIR(at.st_mode):
            self.folders[at.st_ino] = {entry.name: self._hold(entry) for entry in path.iterdir()}
        else:
            self.files[at.st_ino] = path.read_bytes()
        if path.is_relative_to(self.root.parent):
            self.events.append(f"sync {path.relative_to(self.root.parent)}")

    def _hold(self, path: Path) -> int:
        """Keep it open until the end; its inode."""
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW)
        self.held.callback(os.close, descriptor)
        return os.fstat(descriptor).st_ino

    def cut(self, moment: str) -> None:
        """Keep what would be left now."""
        for eager in (False, True):
            left = self.scratch / f"{len(self.cuts)}"
            left.mkdir()
            self._leave(self.root, self.root.stat().st_ino, left, eager=eager)
            self.cuts.append((f"{moment}, {'eager' if eager else 'lazy'}", left))

    def _leave(self, path: Path, inode: int, left: Path, *, eager: bool) -> None:
        now = {entry.name: entry.inode() for entry in os.scandir(path)} if eager else self.folders.get(inode, {})
        here = self._paths()
        for name, number in now.items():
            where = here.get(number)
            if number in self.folders or (where is not None and where.is_dir()):
                (left / name).mkdir()
                self._leave(where or path / name, number, left / name, eager=eager and where is not None)
            else:
                size = where.stat().st_size if where is not None and eager else 0
                (left / name).write_bytes(self.files.get(number, bytes(size)))

    def _paths(self) -> dict[int, Path]:
        return {path.stat().st_ino: path for path in (self.root, *self.root.rglob("*"))}


@contextmanager
def disk(root: Path, scratch: Path) -> Iterator[Disk]:
    """Watch what this process writes to a folder."""
    watched = Disk(root, scratch)
    root.mkdir(parents=True, exist_ok=True)
    scratch.mkdir()
    fsync, rename, exchange = os.fsync, os.rename, durable.exchange

    def syncing(descriptor: int) -> None:
        watched.cut("before a sync")
        fsync(descriptor)
        watched.synced(descriptor)

    def renaming(one: Path, other: Path, **rest: int) -> None:
        rename(one, other, **rest)
        watched.events.append(f"name {Path(other).relative_to(root.parent)}")
        watched.cut("after a renaming")

    def exchanging(one: Path, other: Path) -> None:
        exchange(one, other)
        watched.events.append(f"swap {other.relative_to(root.parent)}")
        watched.cut("after a swap")

    with watched.held, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", syncing)
        patch.setattr(os, "rename", renaming)
        patch.setattr(durable, "exchange", exchanging)
        yield watched
