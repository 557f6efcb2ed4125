"""File descriptors: as many as the system gives, some kept in reserve, and a word in the log when they are all used."""

from __future__ import annotations

import errno
import logging
import os
import resource
import time
from contextlib import suppress
from typing import Final

MOST: Final = 2**20
"""Descriptors that are asked for at most, where the system has no limit."""
SPARE: Final = 16
"""Descriptors that are held until all others are used."""
SILENCE: Final = 60.0
"""Seconds between lines of the log about the same thing."""
log = logging.getLogger(__name__)


def raise_limit() -> int:
    """Raise the limit of open files to the highest that this process may have; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # some systems have a lower limit than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return MOST if soft == resource.RLIM_INFINITY else soft


class Descriptors:
    """A reserve that is given up when it is needed: then connections are accepted again, for probes."""

    def __init__(self) -> None:
        self._spare: list[int] = []
        self._logged = -SILENCE
        self.exhausted = False

    def tend(self) -> None:
        """Look whether there is one to be had besides the reserve. To be called often."""
        try:
            while len(self._spare) < SPARE:
                self._spare.append(os.open(os.devnull, os.O_RDONLY))
            os.close(os.dup(self._spare[0]))
        except OSError as error:
            self.close()
            if error.errno not in {errno.EMFILE, errno.ENFILE}:
                return
            if not self.exhausted and time.monotonic() - self._logged >= SILENCE:
                log.error(  # noqa: TRY400 - where it happened says nothing
                    "all file descriptors are used (%s): only probes are answered until some are free", error
                )
                self._logged = time.monotonic()
            self.exhausted = True
        else:
            self.exhausted = False

    def close(self) -> None:
        """Give the reserve up."""
        while self._spare:
            os.close(self._spare.pop())
