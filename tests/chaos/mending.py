"""Looks on while the service has the server's append-only file written anew, as it does after the disk was full.

A server whose append-only file was rewritten since its start has opened the present part without O_APPEND. When the
disk is full, it cuts off what it wrote in part and goes on behind the cut: a hole of zeros, at which the next start of
the server ends with `Bad file format` (seen with Valkey 9.1 and Redis 7.0). Another rewrite replaces the file.
"""

import threading
import time
from contextlib import suppress

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from worker.store import keys

PATIENCE = 60.0  # seconds: the server, or who would ask it, may be frozen, dead or cut off meanwhile


class Mending:
    """Waits in a thread of its own, since the server may not answer at once; changes nothing."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url, socket_timeout=1.0, retry=Retry(NoBackoff(), 0))
        self._thread: threading.Thread | None = None
        self.troubles: list[str] = []

    @property
    def busy(self) -> bool:
        """Whether the server could not start again if it ended now."""
        return self._thread is not None and self._thread.is_alive()

    def after_full_disk(self) -> None:
        """Begin to look; whoever breaks things must not wait for it, since it may need something mended first."""
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join(PATIENCE + 5)

    def _look(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with suppress(RedisError):
                if rewritten(self._client):
                    return
            time.sleep(0.2)
        self.troubles.append(f"{PATIENCE:g} s after the disk was full nobody has had the file written anew")


def rewritten(client: redis.Redis) -> bool:
    """Whether the append-only file is a new one since writes were refused."""
    state = client.info()
    refused = state.get("errorstat_MISCONF", {}).get("count", 0)
    return (
        state["aof_last_write_status"] == state["aof_last_bgrewrite_status"] == "ok"
        and not (state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"])
        and (refused == 0 or client.get(keys.REWRITTEN) == f"{state['run_id']} {refused}".encode())
    )
