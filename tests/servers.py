"""Redis-compatible servers for tests: every one that this machine has."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.embedded import EmbeddedServer, server_binary


def binaries() -> dict[str, str]:
    """The servers to test against: the embedded one, and those on PATH."""
    found = {"embedded": server_binary()}
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path and path not in found.values():
            found[name] = path
    return found


@contextmanager
def server(directory: Path, binary: str | None = None) -> Iterator[EmbeddedServer]:
    """A server of its own for a test, stopped at the end."""
    with EmbeddedServer(directory, binary=binary) as running:
        yield running
