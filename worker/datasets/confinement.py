"""What a process that parses files from outside can still do, after it has given up what it does not need.

Each step that the system does not allow is left out, and said in the log: a namespace without network (user namespaces
may be forbidden, as in most containers) and Landlock (Linux 5.13; without TCP from 6.7). Neither needs a privilege.
"""

from __future__ import annotations

import ctypes
import logging
import os
import struct
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

_PR_SET_NO_NEW_PRIVS: Final = 38
_NAMESPACES: Final = 0x10000000 | 0x40000000 | 0x00020000 | 0x08000000  # CLONE_NEWUSER, NEWNET, NEWNS, NEWIPC
_MS_RDONLY, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 0x1000, 0x4000, 0x40000
_CAPABILITIES: Final = 0x20080522  # _LINUX_CAPABILITY_VERSION_3

# linux/landlock.h; the numbers of system calls are the same on every architecture
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION: Final = 1  # LANDLOCK_CREATE_RULESET_VERSION
_BENEATH: Final = 1  # LANDLOCK_RULE_PATH_BENEATH
_READ: Final = 0b1101  # EXECUTE, READ_FILE, READ_DIR
_ACCESS: Final = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF}  # rights on files, by version
_FILES: Final = 0xC007
"""EXECUTE, WRITE_FILE, READ_FILE, TRUNCATE, IOCTL_DEV: the rights on what is no directory."""
_DEVICE_CONTROL: Final = 0x8000  # of version 5: never needed
_TCP: Final = 0b11  # BIND, CONNECT; of version 4
_SCOPED: Final = 0b11  # abstract unix sockets, signals; of version 6

log = logging.getLogger(__name__)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def isolate(hidden: Iterable[Path]) -> bool:
    """Leave the network, and see the hidden files and directories no more; returns whether that was allowed.

    To be called while there is one thread. What is hidden are the sockets and files of the job store.
    """
    if sys.platform != "linux":
        return False
    libc = _libc()
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    try:
        _checked(libc.unshare(_NAMESPACES))
        _checked(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
        for path in hidden:
            target = os.fsencode(path)
            if path.is_dir():
                _checked(libc.mount(b"none", target, b"tmpfs", _MS_RDONLY, b"size=4k"))
            elif path.exists():
                _checked(libc.mount(b"/dev/null", target, None, _MS_BIND, None))
        # no right to undo it
        _checked(libc.capset(struct.pack("Ii", _CAPABILITIES, 0), struct.pack("6I", *[0] * 6)))
    except OSError as error:
        log.debug("files are read in a process that has a network: %s", error)
        return False
    return True


def restrict(writable: Path, readable: Sequence[Path] | None = None) -> bool:
    """Change nothing outside one directory, read nothing but programs, reach no other process; whether that works.

    Neither the memory nor the environment of other processes of this user can be read any more. TCP is refused, too.
    """
    if sys.platform != "linux":
        return False
    libc = _libc()
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    try:
        version = _checked(libc.syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION))
        access = _ACCESS[min(version, max(_ACCESS))]
        rules = struct.pack("QQQ", access, _TCP if version >= 4 else 0, _SCOPED if version >= 6 else 0)
        size = 24 if version >= 6 else 16 if version >= 4 else 8
        ruleset = _checked(libc.syscall(_CREATE, rules, ctypes.c_size_t(size), 0))
        try:
            for path in programs() if readable is None else readable:
                _allow(libc, ruleset, path, access & _READ)
            _allow(libc, ruleset, Path(os.devnull), access & ~_DEVICE_CONTROL)
            _allow(libc, ruleset, writable, access & ~_DEVICE_CONTROL)
            _checked(libc.syscall(_RESTRICT, ruleset, 0))
        finally:
            os.close(ruleset)
    except OSError as error:
        log.debug("a file is read in a process that is not restricted: %s", error)
        return False
    return True


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, access: int) -> None:
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not path.is_dir():
            access &= _FILES
        try:
            _checked(libc.syscall(_ADD, ruleset, _BENEATH, struct.pack("=Qi", access, descriptor), 0))
        finally:
            os.close(descriptor)


def programs() -> list[Path]:
    """Where the interpreter, its libraries and the system's are, and what they ask the system."""
    system = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/etc", "/sys", "/dev/urandom", "/nix/store")
    own = (sys.prefix, sys.base_prefix, *sysconfig.get_paths().values())
    packages = {
        Path(file).parent
        for name, module in list(sys.modules.items())
        if "." not in name and hasattr(module, "__path__") and (file := getattr(module, "__file__", None))
    }
    return [*(Path(path) for path in (*system, *own)), *packages]
