"""What an operator has to do after the server's disk was full: have the append-only file written anew.

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

PATIENCE = 40.0  # seconds: the server may be frozen or cut off meanwhile


class Runbook:
    """Does it in a thread, since the server may not answer at once."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url, socket_timeout=1.0, retry=Retry(NoBackoff(), 0))
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def after_full_disk(self) -> None:
        self.wait()
        self._thread = threading.Thread(target=self._rewrite, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join(PATIENCE + 5)

    def _rewrite(self) -> None:
        deadline = time.monotonic() + PATIENCE
        asked = False
        while time.monotonic() < deadline:
            with suppress(RedisError):
                state = self._client.info("persistence")
                if state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"]:
                    pass
                elif asked and state["aof_last_bgrewrite_status"] == "ok":
                    return
                elif state["aof_last_write_status"] == "ok":
                    self._client.bgrewriteaof()
                    asked = True
            time.sleep(0.2)
