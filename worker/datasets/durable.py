"""What has to be on the disk before somebody is told that it is there: files, and the names in folders."""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
_UNKNOWN = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP})


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk. Raises OSError, EIO for a bad disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNKNOWN or not path.is_dir():  # some file systems keep folders by themselves
            raise
    finally:
        os.close(descriptor)


def sync_above(path: Path) -> None:
    """Wait until the name of a folder, and those of the folders above it, are on the disk."""
    for folder in path.absolute().parents:
        with suppress(PermissionError):  # then it was not made by us
            sync(folder)


def exchange(one: Path, other: Path) -> None:
    """Swap two names. At every moment there is something at both, where the system knows how; who has it open keeps it.

    Raises FileNotFoundError when one of them is not there.
    """
    code = _swap(one, other)
    if code == 0:
        return
    if code not in _UNKNOWN:
        raise OSError(code, os.strerror(code), str(other))
    aside = one.with_name(f"{one.name}.aside")
    other.rename(aside)
    one.rename(other)
    aside.rename(one)


def _swap(one: Path, other: Path) -> int:
    """Swap two names in one step; the error number, ENOSYS where there is no such step."""
    call: Any = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return errno.ENOSYS
    done = call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE)
    return 0 if done == 0 else ctypes.get_errno()
