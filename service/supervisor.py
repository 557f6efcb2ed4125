"""Runs the parts of the service as child processes: starts them, restarts what dies, delivers what was lost, stops."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Final

from redis.exceptions import RedisError

from worker import store
from worker.embedded import EmbeddedServer, die_with_parent
from worker.queue.delivery import reconcile

TICK: Final = 0.2  # seconds between looks at the children
STARTING: Final = 0.05  # seconds between them until the service is announced
RECONCILE: Final = 2.0  # seconds between passes of the reconciler
PATIENCE: Final = 10.0  # seconds that children get to end after SIGTERM
SLOWEST_RESTART: Final = 10.0  # seconds; restarts of a child that keeps dying are delayed up to this

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Part:
    """One child process: what to run, and how often it has died lately."""

    name: str
    arguments: Sequence[str]
    pass_fds: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    deaths: int = 0
    restart_at: float = 0.0
    started_at: float = 0.0

    def start(self, environment: Mapping[str, str]) -> None:
        """Start the process; on Linux it dies with this one."""
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(  # noqa: S603 - our own modules
            [sys.executable, "-m", *self.arguments],
            env=dict(environment),
            pass_fds=self.pass_fds,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal reaches the supervisor alone
            preexec_fn=die_with_parent(os.getpid(), signal.SIGKILL),  # noqa: PLW1509 - one async-signal-safe call
        )

    def look_after(self, environment: Mapping[str, str]) -> None:
        """Start again what has died, later and later if it keeps dying."""
        now = time.monotonic()
        if self.process is not None:
            status = self.process.poll()
            if status is None:
                return
            if now - self.started_at > SLOWEST_RESTART:  # it worked, so this is not how it begins
                self.deaths = 0
            self.process = None
            self.restart_at = now + min(0.1 * 2 ** min(self.deaths, 10), SLOWEST_RESTART)
            self.deaths += 1
            log.error("%s ended with status %d; starting it again", self.name, status)
        if now >= self.restart_at:
            self.start(environment)


@dataclass(slots=True)
class Supervisor:
    """Keeps the parts running until it is told to stop by SIGTERM or SIGINT."""

    parts: Sequence[Part]
    environment: Mapping[str, str]
    redis_url: str
    server: EmbeddedServer | None = None
    retention: float = store.RETENTION
    kept: int = store.MOST_KEPT_BYTES
    stopping: bool = field(default=False, init=False)

    def run(self, announce: Callable[[], bool] = lambda: True) -> None:
        """Start everything and look after the children. Returns when all of them are gone.

        `announce` is called again and again until it returns true; it must not take long.
        """
        previous = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            for part in self.parts:
                part.start(self.environment)
            self._watch(announce)
        finally:
            self._end()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stopping = True

    def _watch(self, announce: Callable[[], bool]) -> None:
        client = store.connect(self.redis_url, patience=store.REQUEST_PATIENCE)
        reconcile_at, announced, last = 0.0, False, store.Pass()
        while not self.stopping:
            if self.server is not None and not self.server.alive:
                log.error("the embedded server has died; starting it again on the same data")
                self.server.restart(lambda: self.stopping)
            for part in self.parts:
                part.look_after(self.environment)
            if time.monotonic() >= reconcile_at:
                try:
                    reconcile(client, retention=self.retention, kept=self.kept, last=last)
                except RedisError as error:
                    store.note(client, error)
                reconcile_at = time.monotonic() + RECONCILE
            announced = announced or announce()
            time.sleep(TICK if announced else STARTING)

    def _end(self) -> None:
        running = [part for part in self.parts if part.process is not None and part.process.poll() is None]
        for part in running:
            assert part.process is not None
            part.process.terminate()
        deadline = time.monotonic() + PATIENCE
        for part in running:
            assert part.process is not None
            try:
                part.process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                log.warning("%s did not end in time and is killed", part.name)
                part.process.kill()
                part.process.wait()
