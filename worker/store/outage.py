"""One line in the log when the store cannot be used, whoever notices it first, and one when it can again."""

import logging
import time
from typing import Final

import redis
from redis.exceptions import RedisError

from worker.store.trouble import explain

AGAIN: Final = 60.0
"""Seconds after which a trouble that has come back is logged again."""

log = logging.getLogger(__name__)


class Outage:
    """What was said last."""

    sentence: str | None = None
    at = 0.0
    over = True


LAST: Final = Outage()


def note(client: redis.Redis | redis.asyncio.Redis, error: RedisError) -> None:
    """Log what is wrong, unless that was the last word."""
    sentence, permanent = explain(error)
    now = time.monotonic()
    if sentence == LAST.sentence and now < LAST.at + AGAIN:
        LAST.at = now
        return
    LAST.sentence, LAST.at, LAST.over = sentence, now, False
    ending = "" if permanent else " It is asked again."
    log.warning("the job store at %s cannot be used now: %s%s (%s)", address(client), sentence, ending, error)


def answered() -> None:
    """The store has answered."""
    if not LAST.over:
        LAST.over = True
        log.warning("the job store answers again")


def address(client: redis.Redis | redis.asyncio.Redis) -> str:
    """Where the server of a client is, without the user and the password."""
    options = client.connection_pool.connection_kwargs
    place = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    return f"{place}, database {options.get('db') or 0}"
