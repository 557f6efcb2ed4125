"""A client of the HTTP API as a careful caller would write it: several addresses, timeouts, retries of what is safe."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TIMEOUT = 3.0  # seconds for a reply, on top of what the request asks to wait


class Unreachable(Exception):  # noqa: N818 - what it says
    """No reply: the request may or may not have had its effect."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes
    etag: str | None
    sent: float
    received: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class Api:
    """The addresses under which the service is reached. Shared by all threads."""

    addresses: list[tuple[str, int]]
    key: str | None = None
    closed: threading.Event = field(default_factory=threading.Event)  # set: nobody is to wait for anything any more
    replies: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def once(
        self, which: int, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None,
        wait: int = 0,
    ) -> Reply:  # fmt: skip
        """One request to one address. Raises: `Unreachable`."""
        host, port = self.addresses[which % len(self.addresses)]
        all_headers = {"Content-Type": "application/json", "Connection": "close", **(headers or {})}
        if self.key:
            all_headers["Authorization"] = f"Bearer {self.key}"
        if wait:
            all_headers["Prefer"] = f"wait={wait}"
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT + wait)
        sent = time.monotonic()
        try:
            connection.request(method, path, body, all_headers)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._count(method, "no reply")
            raise Unreachable(str(error)) from None
        finally:
            connection.close()
        self._count(method, str(response.status))
        return Reply(response.status, text, response.headers.get("ETag"), sent, time.monotonic())

    def read(
        self, which: int, path: str, until: float, headers: Mapping[str, str] | None = None, wait: int = 0
    ) -> Reply:
        """GET until there is a reply below 500, from one address after the other. Raises: `Unreachable` at `until`."""
        pause = 0.05
        while True:
            try:
                reply = self.once(which, "GET", path, headers=headers, wait=wait)
                if reply.status < 500 and reply.status != 429:
                    return reply
            except Unreachable:
                pass
            if time.monotonic() > until or self.closed.is_set():
                raise Unreachable(f"GET {path}: no usable reply in time")
            time.sleep(pause)
            pause = min(2 * pause, 0.5)
            which += 1

    def _count(self, method: str, what: str) -> None:
        with self._lock:
            self.replies[f"{method} {what}"] += 1
