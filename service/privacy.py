"""Files of the service are for its own user alone."""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

OURS: Final = frozenset({"redis", "datasets", "uploads", "cache"})
"""What the service makes in its data directory."""
log = logging.getLogger(__name__)


def keep_private(data_dir: Path) -> None:
    """Whatever this process and its children make can be opened by their user only.

    Directories of earlier versions are tightened. The data directory itself is, too, unless it holds other things:
    it may be somebody's home.
    """
    os.umask(0o077)
    with suppress(OSError):  # there is none yet, or one that cannot be read: what needs it will say so
        names = {entry.name for entry in data_dir.iterdir()}
        paths = [data_dir / name for name in sorted(names & OURS)]
        for path in [*paths, data_dir] if names <= OURS else paths:
            _tighten(path)


def _tighten(path: Path) -> None:
    status = path.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and mode & 0o077:
        path.chmod(mode & ~0o077)
        log.warning("%s could be opened by other users of this machine (mode %o); it cannot any more", path, mode)
