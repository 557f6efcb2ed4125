"""The doorbell: one subscription for the whole process tells waiting requests that a job has changed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import redis.asyncio
from redis.exceptions import RedisError

from worker import store

T = TypeVar("T")
RECONNECT = 0.5  # seconds between attempts to subscribe again
log = logging.getLogger(__name__)


class Doorbell:
    """Wakes those who wait for a job. Waiters register first, read second, wait third, so that no ring is missed."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._waiters: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._closed = False

    async def run(self) -> None:
        """Listen until cancelled; after a lost connection everybody is woken, since rings may have been missed."""
        while True:
            try:
                async with self._client.pubsub() as pubsub:
                    async with asyncio.timeout(store.PROMISED):
                        await pubsub.subscribe(store.CHANGED)
                    while True:
                        message = await pubsub.get_message(timeout=1.0)
                        if message is None:
                            continue
                        if message["type"] == "subscribe":  # also where redis-py has connected again by itself
                            self._ring_all()
                        else:
                            self._ring(message["data"].decode())
            except (RedisError, OSError) as error:
                if isinstance(error, RedisError):  # and no timeout, whose cause the next request finds
                    store.note(self._client, error)
                await asyncio.sleep(RECONNECT)

    def close(self) -> None:
        """Wake everybody and let nobody wait any more: the server is about to stop."""
        self._closed = True
        self._ring_all()

    async def wait(
        self, job_id: str, read: Callable[[], Awaitable[T]], enough: Callable[[T], bool], seconds: float
    ) -> T:
        """Read until what is read is enough or the time is over; returns what was read last."""
        deadline = asyncio.get_running_loop().time() + seconds
        with self._registered(job_id) as rung:
            while True:
                with store.sharing(store.PROMISED):  # each time: a long poll may read hundreds of times
                    current = await read()
                left = deadline - asyncio.get_running_loop().time()
                if self._closed or left <= 0 or enough(current):
                    return current
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(rung.wait(), left)
                rung.clear()

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
        for rung in self._waiters.get(job_id, ()):
            rung.set()

    def _ring_all(self) -> None:
        for job_id in list(self._waiters):
            self._ring(job_id)
