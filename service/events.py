"""The doorbell: one subscription for the whole process tells waiting requests that a job has changed.

Those who wait read their jobs together: one connection reads a few jobs at a time, each once for all who ask in the
meantime. So however many wait, they take no connection from other requests, and none of them fails for want of one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice

import redis.asyncio
from fastapi import Request
from redis.exceptions import RedisError
from starlette.requests import ClientDisconnect

from service.threads import hung_up
from worker import store
from worker.store import JobRecord

RECONNECT = 0.5  # seconds between attempts to subscribe again
TOGETHER = 32  # who are woken, or served by one reading: so many replies are made in one turn of the event loop
LATE = 0.1  # seconds by which a loop that is not busy never misses a time limit
log = logging.getLogger(__name__)


class _Reading:
    """One look at the jobs of a few who wait, after the reading before it. If that fails, this one does, too."""

    def __init__(self, client: redis.asyncio.Redis, before: _Reading | None) -> None:
        self._client = client
        self._before = before if before is not None and not before.records.done() else None
        self._jobs: dict[str, None] = {}
        self._askers = 0
        self._begun = False
        self.records: asyncio.Task[dict[str, JobRecord | None]] = asyncio.create_task(self._read())

    @property
    def takes_more(self) -> bool:
        """Whether what is asked now is still read."""
        return not self._begun and self._askers < TOGETHER

    async def job(self, job_id: str) -> JobRecord | None:
        """A job as it is then; None when there is none (any more). Raises RedisError."""
        self._jobs[job_id] = None
        self._askers += 1
        return (await asyncio.shield(self.records))[job_id]

    async def _read(self) -> dict[str, JobRecord | None]:
        if self._before is not None:
            await asyncio.shield(self._before.records)
        self._before, self._begun = None, True
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            try:
                with store.sharing(store.REQUEST_PATIENCE):
                    return await store.arun(self._client, store.several(list(self._jobs)))
            except store.NoAnswerError:
                if clock() - began < store.REQUEST_PATIENCE + LATE:
                    raise
                # the event loop was late itself, and may not have looked at the answer


class Doorbell:
    """Wakes those who wait for a job. Waiters register first, read second, wait third, so that no ring is missed."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._waiters: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._reading: _Reading | None = None
        self._closed = False

    async def run(self) -> None:
        """Listen until cancelled; after a lost connection everybody is woken, since rings may have been missed.

        The client library connects again by itself; that it has subscribed again is all that it says.
        """
        while True:
            try:
                async with self._client.pubsub() as pubsub:
                    async with asyncio.timeout(store.REQUEST_PATIENCE):
                        await pubsub.subscribe(store.CHANGED)
                    while True:
                        message = await pubsub.get_message(timeout=1.0)
                        if message is not None and message["type"] == "subscribe":
                            self._ring_all()
                        elif message is not None:
                            self._ring(message["data"].decode())
            except (RedisError, OSError) as error:
                if isinstance(error, RedisError):  # and no timeout, whose cause the next request finds
                    store.note(self._client, error)
                await asyncio.sleep(RECONNECT)

    def close(self) -> None:
        """Wake everybody and let nobody wait any more: the server is about to stop."""
        self._closed = True
        for rung in [rung for rungs in self._waiters.values() for rung in rungs]:
            rung.set()

    async def wait(
        self, job_id: str, enough: Callable[[JobRecord], bool], seconds: float, caller: Request
    ) -> JobRecord | None:
        """Read a job until it is enough, or gone, or the time is over; returns what was read last.

        The body of the `caller` has been read. Raises RedisError, ClientDisconnect.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        with self._registered(job_id) as rung, _watched(caller, rung) as leaving:
            while True:
                current = await self._read(job_id)
                left = deadline - asyncio.get_running_loop().time()
                if self._closed or left <= 0 or current is None or enough(current):
                    return current
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await rung.wait()
                if leaving.done():
                    raise ClientDisconnect
                rung.clear()

    async def _read(self, job_id: str) -> JobRecord | None:
        if self._reading is None or not self._reading.takes_more:
            self._reading = _Reading(self._client, self._reading)
        return await self._reading.job(job_id)

    @contextlib.contextmanager
    def _registered(self, job_id: str) -> Iterator[asyncio.Event]:
        rung = asyncio.Event()
        self._waiters[job_id].add(rung)
        try:
            yield rung
        finally:
            self._waiters[job_id].discard(rung)
            if not self._waiters[job_id]:
                del self._waiters[job_id]

    def _ring(self, job_id: str) -> None:
        self._wake(iter(tuple(self._waiters.get(job_id, ()))))

    def _ring_all(self) -> None:
        self._wake(iter([rung for rungs in self._waiters.values() for rung in rungs]))

    def _wake(self, rungs: Iterator[asyncio.Event]) -> None:
        """A few in each turn of the event loop: thousands in one would hold up everything else."""
        few = list(islice(rungs, TOGETHER))
        for rung in few:
            rung.set()
        if few:
            asyncio.get_running_loop().call_soon(self._wake, rungs)


@contextlib.contextmanager
def _watched(caller: Request, rung: asyncio.Event) -> Iterator[asyncio.Task[None]]:
    """A task that ends, and wakes who waits, when the caller hangs up."""
    leaving = asyncio.create_task(hung_up(caller))
    leaving.add_done_callback(lambda _: rung.set())
    try:
        yield leaving
    finally:
        leaving.cancel()
