"""Clients of the Redis-compatible server."""

from typing import Any, Final

import redis
import redis.asyncio
from redis.connection import Connection, parse_url

from worker.store.patience import BOUNDED, AsyncPatience, Patience

REQUEST_PATIENCE: Final = 2.0
"""Seconds for which an HTTP request waits for the store, all in all."""
_WAIT: Final = 5.0


def connect(url: str, *, patience: float = 60.0) -> redis.Redis:
    """Make a client whose operations may take `patience` seconds, and are tried again until then if the server is away.

    Accepts `redis://`, `rediss://` and `unix://`. Makes no connection yet.
    """
    kind = parse_url(url).get("connection_class", Connection)  # type: ignore[no-untyped-call]
    return redis.Redis.from_url(url, retry=Patience(patience), connection_class=BOUNDED[kind], **_OPTIONS)


def briefly(client: redis.Redis, seconds: float) -> redis.Redis:
    """Make a client of the same server that gives up after `seconds`, for operations that are repeated soon anyway."""
    pool = client.connection_pool
    options = {**pool.connection_kwargs, "retry": Patience(seconds), "socket_timeout": seconds}
    return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=pool.connection_class, **options))


def aconnect(url: str, *, patience: float = REQUEST_PATIENCE, connections: int = 50) -> redis.asyncio.Redis:
    """Make an asynchronous client; as `connect`. With `connections` in use, a command waits for a free one.

    One that does not wait longer than a single try may take leaves the limit to `arun`: redis-py's own costs a task
    for each write.
    """
    options = {**_OPTIONS, "socket_timeout": None if patience <= _WAIT else _WAIT}
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url, max_connections=connections, timeout=_WAIT, retry=AsyncPatience(patience), **options
    )
    return redis.asyncio.Redis.from_pool(pool)


_OPTIONS: Final[dict[str, Any]] = {
    # No handshake: RESP2 without client information saves round trips.
    "protocol": 2,
    "driver_info": None,
    "socket_timeout": _WAIT,
    "socket_connect_timeout": _WAIT,
}
