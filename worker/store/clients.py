"""Clients of the Redis-compatible server."""

from typing import Any, Final

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

_BASE: Final = 0.01
_CAP: Final = 2.0
_WAIT: Final = 5.0


def connect(url: str, *, patience: float = 60.0) -> redis.Redis:
    """Make a client that goes on trying for about `patience` seconds while the server is away.

    Accepts `redis://`, `rediss://` and `unix://`. Makes no connection yet.
    """
    retry = Retry(ExponentialBackoff(cap=_CAP, base=_BASE), _retries(patience))
    return redis.Redis.from_url(url, retry=retry, **_OPTIONS)


def aconnect(url: str, *, patience: float = 2.0, connections: int = 50) -> redis.asyncio.Redis:
    """Make an asynchronous client; as `connect`. With `connections` in use, a command waits for a free one."""
    retry = AsyncRetry(ExponentialBackoff(cap=_CAP, base=_BASE), _retries(patience))
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url, max_connections=connections, timeout=_WAIT, retry=retry, **_OPTIONS
    )
    return redis.asyncio.Redis.from_pool(pool)


_OPTIONS: Final[dict[str, Any]] = {
    # No handshake: RESP2 without client information saves round trips.
    "protocol": 2,
    "driver_info": None,
    "socket_timeout": _WAIT,
    "socket_connect_timeout": _WAIT,
}


def _retries(patience: float) -> int:
    """Count the retries whose pauses (doubling, capped) fill `patience` seconds."""
    count, total = 0, 0.0
    while total < patience:
        count += 1
        total += min(_CAP, _BASE * 2.0**count)
    return count
