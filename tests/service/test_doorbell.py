"""The doorbell: nobody waits on for a change that was missed, or for a service that stops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import redis
import redis.asyncio

from service.events import Doorbell
from worker import store
from worker.embedded import EmbeddedServer

LONG = 60.0  # seconds that a caller asks to wait


def waiting(directory: Path, happens: Callable[[Doorbell, redis.asyncio.Redis], Awaitable[None]]) -> tuple[str, float]:
    """What a caller gets who waits for a job to end, and after how many seconds."""

    async def whole(url: str) -> tuple[str, float]:
        async with store.aconnect(url) as client:
            bell = Doorbell(client)
            listening = asyncio.create_task(bell.run())

            async def read() -> str:
                return str(await client.get("state") or b"", "ascii")

            caller = asyncio.create_task(bell.wait("j", read, lambda state: state == "ended", LONG))
            while not (await client.pubsub_numsub(store.CHANGED))[0][1]:  # noqa: ASYNC110 - only the server knows
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)  # the caller has read, and waits
            began = time.monotonic()
            await happens(bell, client)
            try:
                return await caller, time.monotonic() - began
            finally:
                listening.cancel()

    with EmbeddedServer(directory) as server:
        return asyncio.run(whole(server.url))


def test_a_ring_that_was_missed_is_made_up_for(tmp_path: Path) -> None:
    async def happens(_: Doorbell, client: redis.asyncio.Redis) -> None:
        await client.client_kill_filter(_type="pubsub")
        await client.set("state", "ended")  # and rings while nobody listens
        await client.publish(store.CHANGED, "j")

    state, took = waiting(tmp_path, happens)
    assert (state, took < LONG / 2) == ("ended", True)


def test_who_waits_is_let_go_when_the_service_stops(tmp_path: Path) -> None:
    async def happens(bell: Doorbell, _: redis.asyncio.Redis) -> None:
        bell.close()

    state, took = waiting(tmp_path, happens)
    assert (state, took < LONG / 2) == ("", True)
