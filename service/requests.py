"""Reading requests: bodies within their limits, and the headers with which a caller states a preference."""

from __future__ import annotations

import re

from fastapi import Request

from service.bodies import decoded, decoder
from service.problems import InvalidRequest, TooLarge, UnsupportedMediaType
from service.threads import Threads
from worker.contract.faults import Fault

MAX_BODY = 4 * 1024 * 1024  # bytes of a JSON body, as it is sent and decompressed
DRAINED = 32 * 1024 * 1024  # bytes of a body that are read although it is refused: most clients send all, then listen
LIGHT = 16 * 1024  # bytes of JSON that are read on the event loop, some milliseconds; a thread costs a tenth of one
MAX_VALUES = 100_000  # numbers in inline data
MAX_WAIT = 60.0  # seconds of one long poll
CONTENT_ENCODING = {
    "name": "Content-Encoding",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "enum": ["identity", "gzip", "zstd"]},
}


async def json_body(request: Request) -> bytes:
    """The body, decompressed, refused when it is too large or of another type."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        detail = "Send the body as JSON with `Content-Type: application/json`."
        raise UnsupportedMediaType(detail, headers={"Accept": "application/json"})
    encoding = request.headers.get("content-encoding", "").strip().lower()
    plain = encoding in {"", "identity"}
    if not plain:
        decoder(encoding)  # raises for one that is not known
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > DRAINED:
        raise _too_large()
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MAX_BODY:
            body += chunk
        elif size > DRAINED:
            raise _too_large()
        else:
            body.clear()
    if size > MAX_BODY:
        raise _too_large()
    if plain:
        return bytes(body)
    checks: Threads = request.app.state.crew.checks
    content = await checks.run(decoded, bytes(body), encoding, MAX_BODY, caller=request)
    if content is None:
        raise TooLarge(f"A JSON body may have {MAX_BODY} bytes, decompressed; send a smaller table.")
    return content


def _too_large() -> TooLarge:
    # a part of the body may not have been read: the connection cannot be used again
    return TooLarge(f"A JSON body may have {MAX_BODY} bytes; send a smaller table.", headers={"Connection": "close"})


def preferred_wait(request: Request) -> float:
    """Seconds that the caller is ready to wait: `Prefer: wait=N` (RFC 7240), 0 without it, at most 60."""
    for value in request.headers.getlist("prefer"):
        for preference in re.split(r"[,;]", value):
            name, _, number = preference.partition("=")
            if name.strip().lower() == "wait":
                return _seconds(number.strip().strip('"'))
    return 0.0


def _seconds(number: str) -> float:
    if not re.fullmatch(r"\d{1,9}", number):
        fault = Fault("/header/prefer", "invalid_wait", "wait takes a whole number of seconds, at most 60.")
        raise InvalidRequest("The Prefer header is wrong.", errors=[fault])
    return min(float(number), MAX_WAIT)


def matches(request: Request, etag: str) -> bool:
    """Whether `If-None-Match` names this representation; weak comparison (RFC 9110)."""
    given = request.headers.get("if-none-match", "")
    tags = {tag.strip().removeprefix("W/") for tag in given.split(",") if tag.strip()}
    return "*" in tags or etag.removeprefix("W/") in tags
