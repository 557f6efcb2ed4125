"""Several starts of a job at the same time: each searched in a fork, told in order, as if they took turns.

The search of a start depends on nothing that other starts do, so forks work ahead on the next ones while the steps of
the first are told. What is told, and so budgets, checkpoints and results, is the same to the last bit as without them.
Forks rather than threads: SciPy's LAPACK holds the interpreter's lock (docs/decisions/core-starts-at-once.md).
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Self

from worker.core.outer.descend import Search, Trials
from worker.core.records import Array, Outcome, Trial
from worker.core.search.one_start import search
from worker.core.search.plan import Prepared
from worker.embedded import die_with_parent
from worker.queue import memory

WORTH = 1e-3  # seconds of an evaluation from which on a fork, which takes about 10 ms, is soon made up for
AHEAD = 2  # starts that are searched or wait to be told, for each fork: what waits takes memory

Event = Trial | Outcome

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Fork:
    """A process that searches one start, and what it has said that has not been told yet."""

    pid: int
    connection: Connection
    events: deque[Event] = field(default_factory=deque)
    running: bool = True

    @classmethod
    def begin(cls, prepared: Prepared, number: int, state: Mapping[str, Array] | None, share: int) -> _Fork:
        """Fork; `share`: part of the memory left that it may take."""
        ours, theirs = Pipe(duplex=False)
        arrange = die_with_parent(os.getpid(), signal.SIGKILL)
        pid = os.fork()
        if pid == 0:
            if arrange is not None:
                arrange()
            _be_fork(theirs, prepared, number, state, share)
        theirs.close()
        return cls(pid, ours)

    def read(self) -> None:
        """Take what it has said; at its end, or at its death, it is not running any more."""
        try:
            while self.connection.poll():
                self.events.append(self.connection.recv())
        except (EOFError, OSError):
            self.end()

    def end(self) -> None:
        """Kill it if it lives."""
        if self.running:
            self.running = False
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.connection.close()
            with suppress(ChildProcessError):
                os.waitpid(self.pid, 0)


def _be_fork(
    connection: Connection, prepared: Prepared, number: int, state: Mapping[str, Array] | None, share: int
) -> None:
    """Search, and say what comes of it. Never returns, and leaves nothing to any `finally` of the parent's."""
    try:
        memory.divide(share)
        trials = Trials(search(prepared, number, state))
        for trial in trials:
            connection.send(trial)
        connection.send(trials.outcome)
        connection.close()
    except BrokenPipeError:  # nobody wants to know any more
        pass
    except BaseException:
        log.exception("the fork for start %d ends with an error; the start is searched without it", number)
    finally:
        os._exit(0)


def _seconds(prepared: Prepared, number: int) -> float:
    """How long an evaluation takes, at a point that is evaluated in any case."""
    began = time.perf_counter()
    prepared.objective.evaluate(prepared.objective.hyperparameters.start(number, prepared.plan.seed))
    return time.perf_counter() - began


class Ahead:
    """What `tune` asks for the trials of a start: searches up to `at_once` starts at the same time.

    A fork that dies, or that gets no memory, is replaced by a search in this process from where it had come to.
    """

    def __init__(self, at_once: int, worth: float = WORTH) -> None:
        self._at_once, self._least = at_once, worth
        self._worth = False
        self._of: Prepared | None = None
        self._forks: dict[int, _Fork] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End all forks."""
        for fork in self._forks.values():
            fork.end()
        self._forks.clear()

    def __call__(self, prepared: Prepared, number: int, state: Mapping[str, Array] | None = None) -> Search:
        """The trials of a start, from the `state` of an earlier trial."""
        if self._of is not prepared:
            self.stop()
            self._of, self._worth = prepared, self._at_once > 1 and _seconds(prepared, number) >= self._least
        alone = number + 1 >= prepared.outer.starts and number not in self._forks
        if self._at_once < 2 or not self._worth or alone:
            return (yield from search(prepared, number, state))
        since = 0  # trials told since `state`
        while True:
            event = self._next(prepared, number, state)
            if event is None:
                break
            if isinstance(event, Outcome):
                self._forks.pop(number).end()
                return event
            yield event
            state, since = (state, since + 1) if event.state is None else (event.state, 0)
        self._at_once = 1  # there may be no memory for more than one
        self.stop()
        again = Trials(search(prepared, number, state))
        for trial in again:
            since -= 1
            if since < 0:
                yield trial
        return again.outcome

    def _next(self, prepared: Prepared, number: int, state: Mapping[str, Array] | None) -> Event | None:
        """The next event of a start, None where its fork is dead."""
        while True:
            self._fill(prepared, number, state)
            fork = self._forks[number]
            if fork.events:
                return fork.events.popleft()
            if not fork.running:
                return None
            running = {one.connection: one for one in self._forks.values() if one.running}
            for connection in wait(list(running)):
                running[connection].read()  # type: ignore[index]

    def _fill(self, prepared: Prepared, number: int, state: Mapping[str, Array] | None) -> None:
        """Fork for this start and for those after it, as many as may run."""
        last = min(number + AHEAD * self._at_once, prepared.outer.starts)
        for ahead in range(number, last):
            if sum(fork.running for fork in self._forks.values()) >= self._at_once:
                return
            if ahead not in self._forks:
                given = state if ahead == number else None
                self._forks[ahead] = _Fork.begin(prepared, ahead, given, self._at_once)
