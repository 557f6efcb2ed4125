"""Connections under limits: how large and how slow a request may be, how many there may be, what is kept in reserve.

uvicorn has none of these limits with its fast parser. The protocol here adds them; one look at all connections every
half second replaces timers, which would cost each request more.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, Final

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.descriptors import Descriptors
from service.doors import LINGER, PROBES
from service.problems import HeadersTooLarge, Malformed, Problem, TooSlow, Unavailable
from service.settings import Settings

MOST_HEADERS: Final = 64 * 1024
"""Bytes of a request's line and headers."""
MOST_WAITING: Final = 64
"""Requests that one connection may send ahead."""
LEAST_MOVED: Final = 1024
"""Bytes that a body must bring within `body_seconds`."""
KEPT: Final = 32
"""Connections above the limit, for probes; other requests get a 503 there."""
LOOKS: Final = 0.5
"""Seconds between looks at all connections, at most."""
log = logging.getLogger(__name__)


class Phase(Enum):
    """What a connection waits for."""

    IDLE = auto()  # the next request
    HEADERS = auto()
    BODY = auto()
    REPLY = auto()
    END = auto()  # the client's end, after the last reply


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds for headers and between parts of a body, and connections."""

    header_seconds: float
    body_seconds: float
    connections: int

    @classmethod
    def of(cls, settings: Settings, descriptors: int) -> Limits:
        """As the settings say; some of the file descriptors are kept for everything else."""
        room = descriptors - min(256, descriptors // 4)
        most = min(settings.max_connections, room)
        if most < settings.max_connections:
            log.warning("%d connections at most: the limit of open files is %d", most, descriptors)
        return cls(settings.header_seconds, settings.body_seconds, most)


class Sockets:
    """All connections of an API process."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting: OrderedDict[Connection, None] = OrderedDict()  # those without a request, longest first
        self.descriptors = Descriptors()
        self._patience = min(1.0, limits.header_seconds / 10)
        self._every = min(LOOKS, limits.header_seconds / 4, limits.body_seconds / 4)
        self._next = 0.0

    def admit(self, newcomer: Connection) -> None:
        """Make room: a connection that has waited without a request gives way, else the newcomer."""
        self.waiting[newcomer] = None
        if not self.full(newcomer.connections):
            return
        oldest = next(iter(self.waiting))
        if newcomer.since - oldest.since > self._patience:
            oldest.close()
        elif len(newcomer.connections) > self.limits.connections + KEPT:
            newcomer.close()

    def full(self, connections: set[Any]) -> bool:
        """Whether there is room for probes alone."""
        return len(connections) > self.limits.connections or self.descriptors.exhausted

    def tend(self, connections: Iterable[Any]) -> None:
        """End what takes too long. To be called often."""
        self.descriptors.tend()
        now = time.monotonic()
        if now >= self._next:
            # while this process stood still it heard nothing: that time is not the clients'
            late = max(0.0, now - self._next - self._every) if self._next else 0.0
            self._next = now + self._every
            for connection in list(connections):
                connection.look(now, late)

    def close(self) -> None:
        """Give the reserve back."""
        self.descriptors.close()


class Connection(HttpToolsProtocol):
    """One connection, with limits."""

    def __init__(self, sockets: Sockets, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._sockets = sockets
        self.phase = Phase.HEADERS
        self.since = 0.0  # when the phase began; for a body, when it was last seen to move
        self._size = 0  # bytes since then, of headers or body
        self._part = 0  # bytes of the last part
        self._unsent, self._stalled = 0, 0.0  # bytes that the client does not take, and since when
        self._problem: Problem | None = None

    # What uvicorn and its parser call.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, or end at once."""
        super().connection_made(transport)
        self.since = time.monotonic()
        self._sockets.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._sockets.waiting.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and count."""
        if self.phase is Phase.END:
            return
        if self.phase is Phase.IDLE:
            self._begin(Phase.HEADERS)
        self._part = len(data)
        self._size += self._part
        super().data_received(data)
        if self.phase is Phase.HEADERS and self._size > MOST_HEADERS:
            self._refuse(_headers_too_large())

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self.phase is Phase.REPLY:  # sent ahead
            self._begin(Phase.HEADERS)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Start the application."""
        # the sum is needed only where it can be too large
        if self._size + self._part > MOST_HEADERS and (
            len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MOST_HEADERS
        ):
            self._problem = _headers_too_large()
            raise ValueError(self._problem.detail)  # ends the parser, which then calls send_400_response
        if len(self.pipeline) >= MOST_WAITING:
            self._problem = Malformed(f"At most {MOST_WAITING} requests may be sent ahead.")
            raise ValueError(self._problem.detail)
        self._sockets.waiting.pop(self, None)
        self.app = self._probes_alone if self._sockets.full(self.connections) else self.config.loaded_app
        super().on_headers_complete()
        self._begin(Phase.BODY)

    def on_message_complete(self) -> None:
        """The body is there."""
        super().on_message_complete()
        self._begin(Phase.REPLY)
        if self.cycle.response_complete:
            self._wait()

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for it."""
        super().on_response_complete()
        if not self.pipeline and self.cycle.response_complete and self.phase is not Phase.BODY:
            self._wait()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """What the parser refuses, as a problem."""
        self._refuse(self._problem or Malformed("What arrived is not HTTP/1.1 as RFC 9112 writes it."))

    # Limits.

    def look(self, now: float, late: float) -> None:
        """End what takes too long; `late` seconds of it were this process's own."""
        self.since, self._stalled = self.since + late, self._stalled + late
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self._stalled = unsent, now
        elif unsent and now - self._stalled > self._sockets.limits.body_seconds:
            self.transport.abort()  # it would wait for ever for the client to take the rest
            return
        if self.flow.read_paused or (self.cycle is not None and self.cycle.waiting_for_100_continue):
            self.since = now  # it is not the client who is slow
        waited, limits = now - self.since, self._sockets.limits
        if self.phase is Phase.HEADERS and waited > limits.header_seconds:
            if self._size:
                self._refuse(TooSlow(f"The headers of a request must come within {limits.header_seconds:g} s."))
            else:
                self.close()
        elif self.phase is Phase.BODY and waited > limits.body_seconds:
            if self._size >= LEAST_MOVED:
                self._begin(Phase.BODY)
            else:
                within = f"at least {LEAST_MOVED} bytes within {limits.body_seconds:g} s"
                self._refuse(TooSlow(f"The body of a request must bring {within}; send it again."))
        elif self.phase is Phase.IDLE and waited > limits.header_seconds + self.timeout_keep_alive:
            self.close()
        elif self.phase is Phase.END and waited > LINGER:
            self.transport.abort()

    def close(self) -> None:
        """Close without a word; counted as gone from now on."""
        self._sockets.waiting.pop(self, None)
        self.connections.discard(self)
        self.transport.close()

    def _begin(self, phase: Phase) -> None:
        self.phase, self.since, self._size = phase, time.monotonic(), 0

    def _wait(self) -> None:
        if self.phase is Phase.REPLY:
            self._begin(Phase.IDLE)
        self._sockets.waiting[self] = None

    def _refuse(self, problem: Problem) -> None:
        """Reply, if no other reply is under way, and end: first our side, so that the client can read the reply."""
        self._sockets.waiting.pop(self, None)
        if self.phase is Phase.BODY:
            heard = self.cycle.response_started or bool(self.pipeline)
        else:
            heard = self.cycle is not None and not self.cycle.response_complete
        if heard:
            self.transport.close()
            return
        self._begin(Phase.END)
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self.transport.write(self._raw(problem))
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write_eof()

    def _raw(self, problem: Problem) -> bytes:
        request_id = secrets.token_hex(16)
        response = problem.response(request_id)
        headers = [
            *self.server_state.default_headers,
            *response.raw_headers,
            (b"connection", b"close"),
            (b"x-request-id", request_id.encode()),
        ]
        status = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n".encode()
        return status + b"".join(b"%s: %s\r\n" % header for header in headers) + b"\r\n" + bytes(response.body)

    async def _probes_alone(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application while there are too many connections."""
        if scope["path"] in PROBES:
            await self.config.loaded_app(scope, receive, send)
            return
        request_id = secrets.token_hex(16)
        detail = "The service has as many connections as it can hold; try again."
        response = Unavailable(detail, headers={"Retry-After": "2", "Connection": "close"}).response(request_id)
        response.headers["X-Request-Id"] = request_id
        await response(scope, receive, send)


def _headers_too_large() -> HeadersTooLarge:
    return HeadersTooLarge(f"The line and the headers of a request may have {MOST_HEADERS} bytes; send fewer.")
