"""A data directory on a file system of its own, which can be made full and be given room again. Needs root on Linux."""

import os
import subprocess
import sys
from pathlib import Path

ROOM = 2 * 1024**3  # bytes: an upper bound, memory is taken only for what is written
TRIES = 10
GRAIN = 64 * 1024  # bytes left when it is full


class Quota:
    """A tmpfs mounted on a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.full = False

    def mount(self) -> None:
        """Raises: `CalledProcessError` where that is not allowed."""
        _run("mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=700", "none", str(self._directory))

    def fill(self) -> None:
        """Take away the room that is left."""
        for attempt in range(1, TRIES + 1):
            usage = os.statvfs(self._directory)
            used = (usage.f_blocks - usage.f_bfree) * usage.f_frsize
            try:
                self._resize(used + GRAIN)
            except subprocess.CalledProcessError:  # more was written meanwhile
                if attempt == TRIES:
                    raise
            else:
                break
        self.full = True

    def free(self) -> None:
        """Give the room back."""
        self._resize(ROOM)
        self.full = False

    def unmount(self) -> None:
        _run("umount", str(self._directory))

    def _resize(self, size: int) -> None:
        _run("mount", "-o", f"remount,size={size}", str(self._directory))


def possible() -> str | None:
    """Why there can be no quota here; `None` if there can."""
    if sys.platform != "linux":
        return "a mount of limited size needs Linux"
    return None if os.geteuid() == 0 else "a mount of limited size needs root"


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=20)
