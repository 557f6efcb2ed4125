"""Callers by the hundred in one thread: a connection each, one request, and the status of the reply.

And an API process of its own, so that they share no interpreter with it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.service.api import Api
from worker.embedded import die_with_parent

AT_ONCE = 200  # connections that are being opened


@contextmanager
def own_process(redis_url: str, directory: Path) -> Iterator[Api]:
    """The API process of tests/service/watched.py."""
    settings = {"REDIS_URL": redis_url, "DATA_DIR": str(directory), "PORT": "0", "LOG_LEVEL": "error"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.service.watched"],
        env={**os.environ, **{f"GRADTUNE_{name}": value for name, value in settings.items()}},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent(os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - should the tests themselves be killed
    )
    assert process.stdout is not None
    try:
        with Api(process.stdout.readline().strip()) as api:
            yield api
    finally:
        process.terminate()
        process.stdout.close()
        assert process.wait(30) == 0


def polls(url: str, paths: Sequence[str], wait: int, *, meanwhile: Callable[[], None]) -> Counter[int]:
    """Long polls of all paths at once. `meanwhile` is called in a thread when every request has been sent."""
    return asyncio.run(_polls(url, paths, wait, meanwhile))


async def _polls(url: str, paths: Sequence[str], wait: int, meanwhile: Callable[[], None]) -> Counter[int]:
    opening = asyncio.Semaphore(AT_ONCE)
    to_send, sent = len(paths), asyncio.Event()

    async def poll(path: str) -> int:
        nonlocal to_send
        async with opening:
            reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nPrefer: wait={wait}\r\n\r\n".encode())
        to_send -= 1
        if not to_send:
            sent.set()
        line = await reader.readline()
        writer.close()
        return int(line.split()[1]) if line else 0

    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(poll(path)) for path in paths]
        await sent.wait()
        await asyncio.to_thread(meanwhile)
    return Counter(caller.result() for caller in callers)
