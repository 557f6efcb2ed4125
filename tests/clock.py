"""A clock of the job server that tests can set: in the store's scripts, or below the whole server by libfaketime.

The scripts read one clock (`worker.store.prelude.NOW`). A test that wants to set it puts other text there, in its own
process and in those that it starts, so the program itself has no such door. What the server times by itself (expiry of
keys, its blocked clients, its uptime) is not moved by that; with libfaketime it is.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.store import prelude

KEY = "test:clock"  # seconds by which the scripts' clock is ahead
LIBRARIES = ("lib/*/faketime/libfaketimeMT.so.1", "lib*/faketime/libfaketimeMT.so.1")  # below /usr


def settable(script: str) -> str:
    """The script with a clock that is ahead by what the key says."""
    assert prelude.NOW in script
    return script.replace(prelude.NOW, f"{prelude.NOW}now = now + tonumber(redis.call('GET', '{KEY}') or 0)\n")


def make_settable(put: Callable[[object, str, str], None] = setattr) -> None:
    """Put such a clock into every script of the store, in this process."""
    found = 0
    for name, module in list(sys.modules.items()):
        if name.startswith("worker.store") and module is not prelude:
            for attribute, value in list(vars(module).items()):
                if isinstance(value, str) and prelude.NOW in value and KEY not in value:
                    put(module, attribute, settable(value))
                    found += 1
    assert found, "no script was found"


def step(client: redis.Redis, seconds: float) -> None:
    """Move the scripts' clock."""
    client.incrbyfloat(KEY, seconds)


class ScriptClock:
    """The scripts' clock of a server that others use; `CHAOS_CLOCK` in their environment makes it settable there."""

    environment: Mapping[str, str] = {}

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url, socket_timeout=1.0, retry=Retry(NoBackoff(), 0))

    def step(self, seconds: float) -> None:
        """Raises: `RedisError` where the server does not answer."""
        step(self._client, seconds)


def library() -> str | None:
    """Where libfaketime is; `GRADTUNE_TEST_FAKETIME` names another place."""
    named = os.environ.get("GRADTUNE_TEST_FAKETIME")
    found = [str(path) for pattern in LIBRARIES for path in Path("/usr").glob(pattern)]
    return named or next(iter(found), None)


class ServerClock:  # below all scripts, so that these need not be changed
    """The clock of a whole server, which is started with `environment`; a file says by how much it is ahead."""

    def __init__(self, file: Path, preload: str) -> None:
        self._file, self._ahead = file, 0.0
        self.environment = {
            "LD_PRELOAD": preload,
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.step(0.0)

    def step(self, seconds: float) -> None:
        self._ahead += seconds
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{self._ahead:+.3f}\n")
        fresh.replace(self._file)  # never read half-written


def server_clock(file: Path, binary: str) -> ServerClock | None:
    """A clock for this server; None where there is no libfaketime, or the server does not start with it."""
    preload = library()
    if preload is None:
        return None
    clock = ServerClock(file, preload)
    with tempfile.TemporaryDirectory(prefix="gradtune-clock-") as directory:
        socket = Path(directory) / "s"
        words = [binary, "--port", "0", "--unixsocket", str(socket), "--dir", directory, "--save", ""]
        process = subprocess.Popen(
            words, env={**os.environ, **clock.environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + 5.0
            while not socket.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            return clock if socket.exists() and process.poll() is None else None
        finally:
            process.kill()
            process.wait()
