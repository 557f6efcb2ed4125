"""Waits until a server that was launched has loaded its data, and says how far it is."""

import logging
import time
from collections.abc import Callable
from typing import Final, Literal

import redis

LONGEST: Final = 600.0
"""Seconds that a server may take to load its data."""
SAID_EVERY: Final = 3.0
"""Seconds between two lines about how far it is."""

log = logging.getLogger(__name__)


def until_loaded(
    client: redis.Redis, alive: Callable[[], bool], stopped: Callable[[], bool], silence: float
) -> Literal["ready", "ended", "stopped", "late"]:
    """Wait until the server behind `client`, which must not retry, answers.

    Late: it was silent for `silence` seconds, or loaded for `LONGEST`.
    """
    began = said = heard = time.monotonic()
    while (now := time.monotonic()) < min(heard + silence, began + LONGEST):
        if stopped():
            return "stopped"
        if not alive():
            return "ended"
        try:
            if client.ping():
                return "ready"
        except redis.BusyLoadingError:
            heard = now
            if now >= said + SAID_EVERY:
                said = now
                log.info("the embedded server loads its data: %s", progress(client))
            time.sleep(0.05)
        except redis.RedisError:
            time.sleep(0.005)
    return "late"


def progress(client: redis.Redis) -> str:
    """How far a server is that loads its data."""
    try:
        info = client.info("persistence")
    except redis.RedisError:
        return "it does not say how far it is"
    percent, total = float(info.get("loading_loaded_perc", 0.0)), info.get("loading_total_bytes", 0) / 2**20
    return f"{percent:.0f} % of {total:.0f} MiB, about {info.get('loading_eta_seconds', 0)} s to go"
