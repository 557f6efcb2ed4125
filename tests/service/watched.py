"""The API process of `gradtune api`, with a few routes more: for how long its event loop was held.

A callback comes back every millisecond and looks at the processor time of its thread. Between two of its calls lies at
least one turn of the loop, so a request that holds the loop for a time makes a difference of at least that. Other
threads, other processes and waiting do not count. Whatever the loop is (uvloop here), it is the one that serves.
"""

from __future__ import annotations

import asyncio
import time

from fastapi import FastAPI

import service.app
from service.server import address, bind, serve_api
from service.settings import Settings

EVERY = 0.001  # seconds between two looks
HELD = 0.08  # seconds for which a route holds the loop, to see that it is seen
PATH = "/test/longest-turn"
WAITING = "/test/waiting"  # how many wait for the doorbell


class Watch:
    """Looks at the clock of the loop's thread; begins with the first question."""

    def __init__(self) -> None:
        self._longest, self._last = 0.0, None

    def longest(self) -> float:
        """Most seconds of processor time between two looks since the last question."""
        if self._last is None:
            self._again()
        self._look()
        longest, self._longest = self._longest, 0.0
        return longest

    def _again(self) -> None:
        asyncio.get_running_loop().call_later(EVERY, self._tick)

    def _tick(self) -> None:
        self._look()
        self._again()

    def _look(self) -> None:
        now = time.thread_time()
        if self._last is not None:
            self._longest = max(self._longest, now - self._last)
        self._last: float | None = now


def main() -> None:
    """Serve as `gradtune api` does; the first line of the output is the address."""
    plain = service.app.create_app

    def create(settings: Settings) -> FastAPI:
        app, watch = plain(settings), Watch()

        async def longest() -> float:
            return watch.longest()

        async def hold() -> None:
            until = time.thread_time() + HELD
            while time.thread_time() < until:
                pass

        async def waiting() -> int:
            return sum(map(len, app.state.doorbell._waiters.values()))

        app.add_api_route(PATH, longest)
        app.add_api_route(WAITING, waiting)
        app.add_api_route("/test/hold", hold)
        return app

    service.app.create_app = create
    settings = Settings()
    with bind(settings) as listener:
        print(address(settings, listener), flush=True)
        serve_api(settings, listener)


if __name__ == "__main__":
    main()
