"""Callers by the hundred in one thread: a connection each, one request, and the status of the reply."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

AT_ONCE = 200  # connections that are being opened


def polls(url: str, paths: Sequence[str], wait: int, *, meanwhile: Callable[[], None]) -> Counter[int]:
    """Long polls of all paths at once. `meanwhile` is called in a thread when every request has been sent."""
    return asyncio.run(_polls(url, paths, wait, meanwhile))


async def _polls(url: str, paths: Sequence[str], wait: int, meanwhile: Callable[[], None]) -> Counter[int]:
    opening = asyncio.Semaphore(AT_ONCE)
    sent = asyncio.Barrier(len(paths) + 1)

    async def poll(path: str) -> int:
        async with opening:
            reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: here\r\nPrefer: wait={wait}\r\n\r\n".encode())
        await sent.wait()
        line = await reader.readline()
        writer.close()
        return int(line.split()[1]) if line else 0

    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(poll(path)) for path in paths]
        await sent.wait()
        await asyncio.to_thread(meanwhile)
    return Counter(caller.result() for caller in callers)
