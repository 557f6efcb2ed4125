"""The work-horse: what a job function finds in its process, and how the parent waits for its end."""

import os
import select
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import redis


@dataclass(frozen=True, slots=True)
class Horse:
    """What the job function finds in its process: `owner` is the name to claim with, `lease` is in seconds."""

    client: redis.Redis
    job_id: str
    owner: str
    lease: float


_current: list[Horse] = []


def enter(surroundings: Horse) -> None:
    """Make this process a work-horse."""
    _current[:] = [surroundings]


def horse() -> Horse:
    """Return the surroundings of the job function. Raises: `RuntimeError` outside a work-horse."""
    if not _current:
        raise RuntimeError("this is no work-horse")
    return _current[0]


class Child:
    """Waits for the end of a child process, without reaping it."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._fd = -1
        with suppress(AttributeError, OSError):  # not everywhere
            self._fd = os.pidfd_open(pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds`; true when the child has ended."""
        if self._fd >= 0:
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            return bool(poll.poll(seconds * 1000))
        deadline = time.monotonic() + seconds
        while True:
            if os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
