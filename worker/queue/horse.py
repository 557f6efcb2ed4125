"""The work-horse: a fork of the worker that runs one job after the other, until it is tired or something goes wrong."""

import gc
import json
import logging
import os
import random
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import redis

from worker.embedded import die_with_parent
from worker.queue import memory

GROWTH: Final = 256 * 2**20
"""Bytes that jobs may leave behind in a work-horse before it is replaced."""

CONCLUDING: Final = b"c"
"""What a horse says when the search of its job is over."""

log = logging.getLogger(__name__)

Turn = Literal["done", "tired", "gone"]
"""How a job's turn ended: its function returned (and the horse takes no further job), or the horse died."""


@dataclass(frozen=True, slots=True)
class Horse:
    """What the job function finds in its process: `owner` is the name to claim with, `lease` is in seconds.

    `concluding` tells the worker that the search is over: what is left may take longer than the job's time limit.
    """

    client: redis.Redis
    job_id: str
    owner: str
    lease: float
    concluding: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Stable:
    """What every work-horse of a worker is made with.

    `warm_up` runs once in each horse; `memory` is in bytes, above what the horse has then; `jobs` is the number of jobs
    after which a horse is replaced.
    """

    function: Callable[[str], object]
    client: redis.Redis
    lease: float
    warm_up: Callable[[], None]
    memory: int | None
    jobs: int


_current: list[Horse] = []


def horse() -> Horse:
    """Return the surroundings of the job function. Raises: `RuntimeError` outside a work-horse."""
    if not _current:
        raise RuntimeError("this is no work-horse")
    return _current[0]


class WorkHorse:
    """The worker's end of one work-horse, which is a child process in a process group of its own.

    They share a socket: a line `[job, owner]` goes there, one byte comes back when the function concludes its job, and
    another when it has returned. A function that raises ends its process, and so nothing comes back but the end of the
    stream. `concluding`: whether the job's search is over.
    """

    def __init__(self, stable: Stable) -> None:
        self.concluding = False
        arrange = die_with_parent(os.getpid(), signal.SIGKILL)
        self._channel, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            os.setpgrp()
            if arrange is not None:
                arrange()
            self._channel.close()
            _main(stable, theirs)
        theirs.close()
        with suppress(OSError):  # the child may have done it, and may be gone
            os.setpgid(self.pid, self.pid)

    def hand(self, job_id: str, owner: str) -> None:
        """Give it a job to run under the name `owner`. If it is dead, `wait` will tell."""
        self.concluding = False
        with suppress(OSError):
            self._channel.sendall(json.dumps([job_id, owner]).encode() + b"\n")

    def wait(self, seconds: float) -> Turn | None:
        """Wait up to `seconds` for the end of the turn; `None`: it goes on."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        until = time.monotonic() + seconds
        while poll.poll(max(until - time.monotonic(), 0.0) * 1000):
            try:
                answer = self._channel.recv(1)
            except OSError:
                return "gone"
            if answer != CONCLUDING:
                return {b"+": "done", b"-": "tired"}.get(answer, "gone")  # type: ignore[return-value]
            self.concluding = True
        # A child of the horse that outlives it would keep the stream open.
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return None if ended is None else "gone"

    def kill(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the horse and its children."""
        try:
            os.killpg(self.pid, sig)
        except (ProcessLookupError, PermissionError):  # no group yet, or (macOS) the horse is a zombie
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, sig)

    def end(self) -> int:
        """Kill it if it lives, with its children; return what `waitpid` says of it."""
        self.kill()
        self._channel.close()
        with suppress(ChildProcessError):
            return os.waitpid(self.pid, 0)[1]
        return 0


def _main(stable: Stable, channel: socket.socket) -> None:
    """Be the horse. Never returns, and leaves nothing to any `finally` of the worker's."""
    code = 1
    try:
        _clear()
        stable.warm_up()
        if stable.memory is not None:
            memory.limit(stable.memory)
        gc.collect()
        gc.freeze()  # so that the collection after each job is quick
        _serve(stable, channel)
        code = 0
    except BaseException:
        log.exception("the work-horse of job %s ends with an error", _current[0].job_id if _current else "(none)")
    finally:
        os._exit(code)


def _serve(stable: Stable, channel: socket.socket) -> None:
    """Run the jobs that come through the channel, until it is closed or this process should be replaced."""
    fresh = memory.resident()
    with channel.makefile("rb") as lines:
        for number, line in enumerate(lines, start=1):
            job_id, owner = json.loads(line)
            tell = partial(channel.sendall, CONCLUDING)
            _current[:] = [Horse(stable.client, job_id, owner, stable.lease, tell)]
            stable.function(job_id)
            _clear()
            gc.collect()
            tired = number >= stable.jobs or memory.resident() > fresh + GROWTH or threading.active_count() > 1
            channel.sendall(b"-" if tired else b"+")


def _clear() -> None:
    """Begin anew: what a job may have left in its process must not reach the next one."""
    _current.clear()
    signal.alarm(0)
    # The worker decides when a horse ends; a signal to all processes of a service or a terminal is for the worker.
    for sig in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sig, signal.SIG_IGN)
    random.seed()
