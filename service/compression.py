"""Replies compressed as their callers ask: zstd or gzip, from 1 kB on, never on the event loop where that takes long.

Written for this service: the packages there are compress whole bodies on the event loop, which a result of 10 MB would
block for a quarter of a second. See docs/decisions/compressed-replies.md.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable

import zstandard
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.threads import Threads

LEAST = 1000  # bytes of a body that is worth it
AT_ONCE = 16_384  # bytes of a body that takes less time than the way to a thread and back
LEVEL = 1  # of both: of JSON with many numbers, level 6 saves a tenth of the bytes for three times the work
SMALL_WINDOW, SMALL_MEMORY = 12, 5  # of zlib: to get the memory of its usual 15 and 8 takes longer than a small body
TEXTUAL = ("json", "text/", "javascript", "xml")  # in a content type; tables and pictures are compressed already
_compressor = zstandard.ZstdCompressor(level=LEVEL)  # of the event loop; a thread makes its own for each body


def accepted(values: list[bytes]) -> str | None:
    """The best encoding that `Accept-Encoding` allows and is known here: by its weight, zstd before gzip; or None."""
    return _accepted(b",".join(values)) if values else None


@functools.lru_cache(maxsize=64)  # clients send the same few
def _accepted(value: bytes) -> str | None:
    weights: dict[str, float] = {}
    for item in value.decode("latin-1").lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        weights[name] = _weight(parameters)
    other = weights.get("*", 0.0)
    offered = {"zstd": weights.get("zstd", other), "gzip": weights.get("gzip", weights.get("x-gzip", other))}
    best = max(offered, key=lambda name: offered[name])
    return best if offered[best] > 0 and offered[best] >= weights.get("identity", 0.0) else None


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, number = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(number)
            except ValueError:
                return 0.0
    return 1.0


def _zstd(body: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=LEVEL).compress(body)


def _gzip(body: bytes) -> bytes:
    return zlib.compress(body, LEVEL, 16 + zlib.MAX_WBITS)


def _small_gzip(body: bytes) -> bytes:
    stream = zlib.compressobj(LEVEL, zlib.DEFLATED, 16 + SMALL_WINDOW, SMALL_MEMORY)
    return stream.compress(body) + stream.flush()


ENCODERS: dict[str, Callable[[bytes], bytes]] = {"zstd": _zstd, "gzip": _gzip}


class Compression:
    """A layer that compresses replies which come in one piece. Streams, as of events, pass as they are."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._threads = Threads("replies", 2, 0)  # so that large replies leave cores to others; none is refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        encoding = accepted([value for name, value in scope["headers"] if name == b"accept-encoding"])
        start: Message | None = None

        async def send_compressed(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and start is None:
                start = message  # held back until the body is known
                return
            if start is not None:
                held, start = start, None
                message = await _encoded(held, message, encoding, self._threads)
                await send(held)
            await send(message)

        await self.app(scope, receive, send_compressed)


async def _encoded(start: Message, message: Message, encoding: str | None, threads: Threads) -> Message:
    """The body as it is sent; the headers of `start` are made to fit."""
    start["headers"] = [*start["headers"]]  # whoever sent it may keep his
    headers = MutableHeaders(raw=start["headers"])
    body = message.get("body", b"")
    if start["status"] == 304:
        headers.add_vary_header("Accept-Encoding")
        _weaken(headers, encoding)
        return message
    whole = message["type"] == "http.response.body" and not message.get("more_body", False)
    if not whole or len(body) < LEAST or not _compressible(headers):
        return message
    headers.add_vary_header("Accept-Encoding")
    if encoding is not None:
        message = {**message, "body": await _compressed(body, encoding, threads)}
        headers["content-encoding"] = encoding
        headers["content-length"] = str(len(message["body"]))
        _weaken(headers, encoding)
    return message


async def _compressed(body: bytes, encoding: str, threads: Threads) -> bytes:
    if len(body) > AT_ONCE:
        return await threads.carry_on(ENCODERS[encoding], body)
    return _compressor.compress(body) if encoding == "zstd" else _small_gzip(body)


def _weaken(headers: MutableHeaders, encoding: str | None) -> None:
    """A strong ETag would promise the same bytes, compressed or not."""
    if encoding is not None and headers.get("etag", "").startswith('"'):
        headers["etag"] = "W/" + headers["etag"]


def _compressible(headers: MutableHeaders) -> bool:
    kind = headers.get("content-type", "")
    textual = any(part in kind for part in TEXTUAL) and not kind.startswith("text/event-stream")
    return textual and "content-encoding" not in headers and "content-range" not in headers
