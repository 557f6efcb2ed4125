"""Threads for what would hold the event loop: a few for each kind of work, with a bounded line before them.

Work waits on the loop and goes to a thread only when one is free, so that what is given up in the line costs nothing
more. Who has hung up is noticed while his work waits, which is then never begun, or runs, which `go_on` then ends.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from service.problems import Busy

AT_ONCE = 0.05  # seconds after which somebody looks whether the caller is still there: most work is done before
PATIENCE = 10.0  # seconds in the line after which work is refused
AGAIN = "5"  # seconds after which a refused caller may try again

T = TypeVar("T")
_unwanted: ContextVar[threading.Event | None] = ContextVar("unwanted", default=None)


class UnwantedError(Exception):
    """Nobody waits for this work any more."""


def go_on() -> None:
    """To be called by work of some length between its parts. Raises UnwantedError once nobody waits for it."""
    event = _unwanted.get()
    if event is not None and event.is_set():
        raise UnwantedError


async def hung_up(caller: Request) -> None:
    """Return once the caller has gone. His body has to be read before: what is left of it is thrown away."""
    while (await caller.receive())["type"] != "http.disconnect":
        pass


class Threads:
    """At most `threads` pieces of one kind of work run, and at most `line` wait."""

    def __init__(self, name: str, threads: int, line: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._free = asyncio.Semaphore(threads)
        self._line, self._waiting = line, 0
        self._running: set[threading.Event] = set()

    async def run(self, function: Callable[..., T], *arguments: Any, caller: Request | None = None) -> T:
        """Call a function in a thread when its turn comes. Raises Busy, ClientDisconnect, and what it raises.

        `caller` is who waits for it, whose body has been read.
        """
        if self._waiting >= self._line:
            raise _busy()
        work = asyncio.create_task(self._in_turn(function, arguments, PATIENCE))
        self._waiting += 1  # until it runs
        try:
            done, _ = await asyncio.wait([work], timeout=AT_ONCE)
            if not done and caller is not None:
                await _unless_hung_up(caller, work)
            return await work
        finally:
            work.cancel()

    async def carry_on(self, function: Callable[..., T], *arguments: Any) -> T:
        """As `run`, for a part of what has been begun: it is never refused, and waits as long as it takes."""
        self._waiting += 1
        return await self._in_turn(function, arguments, None)

    async def _in_turn(self, function: Callable[..., T], arguments: tuple[Any, ...], patience: float | None) -> T:
        try:
            async with asyncio.timeout(patience):
                await self._free.acquire()
        except TimeoutError:
            raise _busy() from None
        finally:
            self._waiting -= 1
        loop, context, unwanted = asyncio.get_running_loop(), copy_context(), threading.Event()
        context.run(_unwanted.set, unwanted)
        self._running.add(unwanted)

        def ended(_: object) -> None:
            self._running.discard(unwanted)
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._free.release)

        future = self._pool.submit(context.run, function, *arguments)
        future.add_done_callback(ended)
        try:
            return await asyncio.wrap_future(future)
        finally:
            unwanted.set()

    def close(self) -> None:
        """Let what runs end at its next `go_on`; nothing more is begun."""
        for unwanted in tuple(self._running):
            unwanted.set()
        self._pool.shutdown(wait=False, cancel_futures=True)


async def _unless_hung_up(caller: Request, work: asyncio.Task[Any]) -> None:
    leaving = asyncio.create_task(hung_up(caller))
    try:
        await asyncio.wait([work, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
    finally:
        leaving.cancel()


def _busy() -> Busy:
    detail = "As much work of this kind as fits is under way and waits; nothing was done, try again shortly."
    return Busy(detail, headers={"Retry-After": AGAIN})


class Crew:
    """The threads of one API process, apart by what they do: no kind of work waits for another one."""

    def __init__(self) -> None:
        self.checks = Threads("checks", 2, 100)  # specs: parsed, compared with their data, estimated
        self.predictions = Threads("predictions", 2, 32)
        self.files = Threads("files", 4, 500)  # small files of datasets, read
        self.uploads = Threads("uploads", 4, 100)  # files of datasets, written and removed

    def close(self) -> None:
        """At the end of the process."""
        for threads in (self.checks, self.predictions, self.files, self.uploads):
            threads.close()
