"""Compressed replies and compressed request bodies."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import random
import time
import tracemalloc
import zlib
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import pytest
import zstandard
from starlette.types import Message, Receive, Scope, Send

from service.compression import Compression, accepted
from tests.contract.specs import document, table
from tests.service.api import Api, faults

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("gzip", "gzip"),
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1.0, zstd;q=0.5", "gzip"),
        ("GZIP ; Q=0.3", "gzip"),
        ("x-gzip", "gzip"),
        ("*", "zstd"),
        ("*;q=0.5, zstd;q=0", "gzip"),
        ("zstd;q=0, gzip;q=0", None),
        ("gzip;q=0.2, identity", None),
        ("gzip;q=x", None),
        ("identity", None),
        ("br", None),
        ("", None),
    ],
)
def test_what_a_caller_accepts(header: str, encoding: str | None) -> None:
    assert accepted([header.encode()]) == encoding


def test_a_caller_accepts_in_several_headers() -> None:
    assert accepted([]) is None
    assert accepted([b"br", b"gzip"]) == "gzip"


@pytest.mark.parametrize(("encoding", "decompress"), [("gzip", gzip.decompress), ("zstd", zstandard.decompress)])
def test_replies_are_compressed_on_request(api: Api, encoding: str, decompress: Any) -> None:
    plain = api.get("/v1/catalog", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.headers["vary"] == "Accept-Encoding"
    headers, sent = raw(api, "/v1/catalog", encoding)
    assert (headers["content-encoding"], headers["vary"]) == (encoding, "Accept-Encoding")
    assert int(headers["content-length"]) == len(sent) < len(plain.content) / 4
    assert decompress(sent) == plain.content
    head = api.head("/v1/catalog", headers={"Accept-Encoding": encoding})
    assert (head.headers["content-length"], head.headers["content-encoding"]) == (str(len(sent)), encoding)
    small = api.get("/healthz", headers={"Accept-Encoding": encoding})
    assert "content-encoding" not in small.headers


def test_an_unchanged_reply_is_still_a_304(api: Api) -> None:
    path = api.create(document(labels={f"key{n}": "x" * 100 for n in range(20)})).headers["location"]
    reply = api.get(path, headers={"Accept-Encoding": "gzip"})
    assert reply.headers["content-encoding"] == "gzip"
    for encoding in ("gzip", "zstd", "identity"):
        headers = {"Accept-Encoding": encoding, "If-None-Match": reply.headers["etag"]}
        again = api.get(path, headers=headers)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", reply.headers["etag"])
        assert again.headers["vary"] == "Accept-Encoding"


def raw(api: Api, path: str, encoding: str) -> tuple[Mapping[str, str], bytes]:
    """Headers and body of a reply as they are sent."""
    connection = http.client.HTTPConnection(api.base_url.host, api.base_url.port)
    with closing(connection):
        connection.request("GET", path, headers={"Accept-Encoding": encoding})
        reply = connection.getresponse()
        return reply.headers, reply.read()  # type: ignore[return-value]


async def sent(body: bytes, accept: bytes = b"gzip", *, pieces: int = 1, **headers: str) -> list[Message]:
    """What the layer makes of a reply."""
    size = len(body) // pieces

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        for n in range(pieces):
            part = body[n * size : (n + 1) * size]
            await send({"type": "http.response.body", "body": part, "more_body": n < pieces - 1})

    async def receive() -> Message:
        raise AssertionError("nothing is received")

    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    await Compression(app)({"type": "http", "headers": [(b"accept-encoding", accept)]}, receive, send)
    return messages


@pytest.mark.parametrize(
    ("headers", "pieces"),
    [
        ({"content_type": "text/event-stream"}, 1),
        ({"content_type": "text/event-stream; charset=utf-8"}, 5),
        ({"content_type": "application/json"}, 5),
        ({"content_type": "application/vnd.apache.parquet"}, 1),
        ({"content_type": "application/json", "content_encoding": "zstd"}, 1),
        ({}, 1),
    ],
)
def test_what_is_not_compressed(headers: dict[str, str], pieces: int) -> None:
    body = b"data: x\n\n" * 1000
    start, *parts = asyncio.run(sent(body, pieces=pieces, **headers))
    assert b"".join(part["body"] for part in parts) == body
    assert len(parts) == pieces
    assert dict(start["headers"]).get(b"content-encoding") in {None, b"zstd"}


def test_a_strong_etag_becomes_a_weak_one() -> None:
    for accept, etag in ((b"gzip", b'W/"x"'), (b"identity", b'"x"')):
        start, _ = asyncio.run(sent(b"x" * 5000, accept, content_type="application/json", etag='"x"'))
        assert dict(start["headers"])[b"etag"] == etag


def test_large_replies_do_not_hold_the_event_loop() -> None:
    """10 MB of numbers take gzip a quarter of a second."""
    numbers = random.Random(0)
    body = json.dumps([numbers.random() for _ in range(100_000)]).encode() * 5
    seconds: list[float] = []
    replies: list[Message] = []

    async def timed(accept: bytes) -> None:  # returns nothing: `asyncio.run` would write it as a text
        before = time.thread_time()
        messages = await sent(body, accept, content_type="application/json")
        seconds.append(time.thread_time() - before)
        replies.extend(messages)

    undo = [zlib.decompressobj(31).decompress, zstandard.ZstdDecompressor().decompress]
    for accept in (b"gzip", b"zstd"):
        asyncio.run(timed(accept))
    assert max(seconds) < 0.05
    assert [dict(start["headers"])[b"content-encoding"] for start in replies[::2]] == [b"gzip", b"zstd"]
    for decompress, part in zip(undo, replies[1::2], strict=True):
        assert decompress(part["body"]) == body


def compressed(body: bytes, encoding: str) -> bytes:
    return gzip.compress(body, mtime=0) if encoding == "gzip" else zstandard.compress(body)


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "x-gzip", "GZIP"])
def test_a_compressed_spec_is_the_same_spec(api: Api, encoding: str) -> None:
    body = json.dumps(document(data=table(200, 3))).encode()
    short = compressed(body, "zstd" if encoding == "zstd" else "gzip")
    assert len(short) < len(body)
    job = api.post("/v1/jobs", content=short, headers={**JSON, "Content-Encoding": encoding}).json()
    assert job["fingerprint"] == api.post("/v1/jobs", content=body, headers=JSON).json()["fingerprint"]


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("path", ["/v1/jobs", f"/v1/jobs/job_{'0' * 24}/predictions"])
def test_bad_compressed_bodies(api: Api, encoding: str, path: str) -> None:
    def fault(body: bytes) -> tuple[str, str]:
        return faults(api.post(path, content=body, headers={**JSON, "Content-Encoding": encoding}))[0]

    whole = compressed(json.dumps(document(data=table(50, 3))).encode(), encoding)
    assert fault(whole[:-9]) == ("/header/content-encoding", "truncated")
    assert fault(b"") == ("/header/content-encoding", "truncated")
    assert fault(b"{}") in {("/header/content-encoding", "truncated"), ("/header/content-encoding", "broken")}
    assert fault(b"x" + whole[1:]) == ("/header/content-encoding", "broken")
    assert fault(compressed(b"", encoding) * 100_000) == ("/header/content-encoding", "broken")  # of 20 bytes or less


def test_a_window_that_takes_much_memory_is_refused(api: Api) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    body = stream.compress(b"{}") + stream.flush()
    reply = api.post("/v1/jobs", content=body, headers={**JSON, "Content-Encoding": "zstd"})
    assert faults(reply) == [("/header/content-encoding", "broken")]


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_bomb_costs_nothing(api: Api, encoding: str) -> None:
    if encoding == "gzip":
        stream = zlib.compressobj(9, zlib.DEFLATED, 31)
        bomb = b"".join(stream.compress(bytes(2**20)) for _ in range(50)) + stream.flush()
    else:
        bomb = zstandard.compress(bytes(2**28))
    assert len(bomb) < 2**20
    tracemalloc.start()
    reply = api.post("/v1/jobs", content=bomb, headers={**JSON, "Content-Encoding": encoding})
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reply.status_code == 413
    assert "decompressed" in reply.json()["detail"]
    assert most < 40 * 2**20
