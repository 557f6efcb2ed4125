"""Who may knock: the names under which the service is asked for, and the web pages that may change something.

A browser sends what any page tells it to, also to a service that listens on loopback. It says in `Host` under which
name it found the service (a page that has its own name point at 127.0.0.1 cannot hide it: DNS rebinding), and in
`Sec-Fetch-Site` and `Origin` whether another site's page is behind a request. Programs send neither of the last two.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Collection
from functools import lru_cache
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import CrossOrigin, Misdirected, Problem
from service.requests import DRAINED
from service.settings import Settings

PROBES: Final = frozenset({"/healthz", "/readyz"})
LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""
LINGER: Final = 2.0
"""Seconds for which a refused body is still read, so that the reply arrives: most clients send all, then listen."""
NO_BODY: Final = (None, b"0")
EXPOSED: Final = ("Location", "ETag", "Retry-After", "X-Request-Id", "Preference-Applied", "WWW-Authenticate")
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]/@\s]+?)\.?(?::\d*)?")


def host_name(host: str) -> str:
    """The name in a Host header, in lower case and without port; empty where it is none."""
    found = _HOST.fullmatch(host)
    return found[1].lower() if found else ""


def known_names(settings: Settings) -> frozenset[str] | None:
    """The names under which the service may be asked for; None: any."""
    names = settings.hosts
    if settings.is_loopback:
        own = f"[{settings.host}]" if ":" in settings.host else settings.host
        names = names | {*LOOPBACK, own.lower()}
    elif not names and settings.key_hashes:
        return None
    return None if "*" in names else names


class Doors:
    """Refuses requests under another name (421), and changes that another site's page asks for (403)."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._trusted = frozenset(origin.encode() for origin in settings.origins)
        self._keyed = bool(settings.key_hashes)
        names = known_names(settings)
        self._any_name = names is None

        @lru_cache(maxsize=256)
        def knows(host: bytes) -> bool:
            name = host_name(host.decode("latin-1"))
            parents = (f"*{name[dot:]}" for dot, character in enumerate(name) if character == ".")
            return names is None or name in names or any(parent in names for parent in parents)

        self._knows = knows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        problem = self._refusal(scope, headers)
        if headers.get(b"content-length") not in NO_BODY or b"transfer-encoding" in headers:
            body = _Body(receive, send, expects=b"expect" in headers)
            receive, send = body.receive, body.send
        if problem is None:
            await self.app(scope, receive, send)
        else:
            await problem.response(scope["state"]["request_id"])(scope, receive, send)

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> Problem | None:
        host = headers.get(b"host")
        # programs of the last century send no Host; browsers always do. Probes of a container know its address alone
        if not (self._any_name or host is None or self._knows(host) or (self._keyed and scope["path"] in PROBES)):
            return Misdirected(
                "This service does not answer to the name in the Host header; its operators list the names that it "
                "has in GRADTUNE_ALLOWED_HOSTS."
            )
        if scope["method"] not in SAFE and self._crosses(headers, host):
            return CrossOrigin(
                "A web page of another origin may not change anything here; its operators list the origins that may "
                "in GRADTUNE_CORS_ORIGINS."
            )
        return None

    def _crosses(self, headers: dict[bytes, bytes], host: bytes | None) -> bool:
        """Whether a page of another origin is behind a request; the rules of Go's `net/http.CrossOriginProtection`."""
        origin = headers.get(b"origin")
        site = headers.get(b"sec-fetch-site")
        if (origin is None and site is None) or origin in self._trusted:
            return False
        if site is not None:
            return site not in {b"same-origin", b"none"}
        # older browsers, and plain http. The scheme is not compared: a proxy may have ended the TLS
        assert origin is not None
        return host is None or origin.partition(b"://")[2].lower() != host.lower()


class _Body:
    """A request's body on its way: a reply before its end closes the connection, after it has been read for a while."""

    def __init__(self, receive: Receive, send: Send, *, expects: bool) -> None:
        self._receive, self._send = receive, send
        self._silent = expects  # reading would ask the client for the body
        self._ended = self._closing = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._silent = False
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._ended = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._ended:
            await self._skip(0)  # what is there already
            if not self._ended:
                self._closing = True
                others = [header for header in message["headers"] if header[0].lower() != b"connection"]
                message = {**message, "headers": [*others, (b"connection", b"close")]}
        elif self._closing and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._skip(LINGER)
            message = {"type": "http.response.body"}
        await self._send(message)

    async def _skip(self, seconds: float) -> None:
        """Read and forget, until the body ends, for at most this long."""
        size = 0
        try:
            async with asyncio.timeout(seconds):
                while not (self._ended or self._silent) and size <= DRAINED:
                    size += len((await self.receive()).get("body", b""))
        except TimeoutError:
            pass


class CrossOriginSharing(CORSMiddleware):
    """What pages of the listed origins may do; a preflight is answered here and has an id as every reply has."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
        super().__init__(
            app, allow_origins=origins, allow_methods=methods, allow_headers=("*",), expose_headers=EXPOSED
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Leave, or a problem."""
        request_id = secrets.token_hex(16)
        response = super().preflight_response(request_headers)
        if response.status_code >= 400:
            told = "This origin may not do this here; operators list the origins that may in GRADTUNE_CORS_ORIGINS."
            response = CrossOrigin(told, headers={"Vary": "Origin"}).response(request_id)
        response.headers["X-Request-Id"] = request_id
        return response
