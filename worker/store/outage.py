"""One line in the log when the store cannot be used, and one when it can be used again, for the whole process."""

import logging
import time
from typing import Final

import redis
from redis.exceptions import RedisError

from worker.store.trouble import explain

LOG_PERIOD: Final = 60.0
"""Seconds after which the same trouble is logged again."""

log = logging.getLogger(__name__)


class Outage:
    """The trouble that was logged last."""

    sentence: str | None = None
    at = 0.0
    over = True


LAST: Final = Outage()


def note(client: redis.Redis | redis.asyncio.Redis, error: RedisError) -> None:
    """Log what is wrong, unless that was logged last."""
    sentence, permanent = explain(error)
    now = time.monotonic()
    if sentence == LAST.sentence and now < LAST.at + LOG_PERIOD:
        LAST.at = now
        return
    LAST.sentence, LAST.at, LAST.over = sentence, now, False
    ending = "" if permanent else " It is asked again."
    log.warning("the job store at %s cannot be used now: %s%s (%s)", address(client), sentence, ending, error)


def answered() -> None:
    """Log that the store answers again, if it did not."""
    if not LAST.over:
        LAST.over = True
        log.warning("the job store answers again")


def address(client: redis.Redis | redis.asyncio.Redis) -> str:
    """The address of the server of a client, without the user and the password."""
    options = client.connection_pool.connection_kwargs
    place = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    return f"{place}, database {options.get('db') or 0}"
