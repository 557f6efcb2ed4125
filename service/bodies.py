"""Request bodies that are streamed to disk: decoded, counted, hashed and never held in memory."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import zstandard
from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.problems import DatasetTooLarge, InvalidRequest, UnsupportedMediaType
from service.threads import Threads
from worker.contract.faults import Fault
from worker.datasets.sniff import ANY, MEDIA_TYPES

PIECE = 2**20  # bytes written together
NIBBLE = 256  # bytes of compressed input decoded at a time, where the decoder cannot be told when to stop
WINDOW = 2**27  # bytes of history that a zstd stream may ask for
SMALL_WINDOW = 2**23  # of a small body; what `zstd -19` asks for
MEMBERS = 1000  # parts of a small compressed body
BROKEN, TRUNCATED = "The body is not compressed as it says.", "The compressed body ends before its end."
SYSTEMS_WORDS = frozenset({"", "application/csv", "application/vnd.ms-excel", "application/zip"})
"""Types that browsers take from their system for other files: Windows with Excel says `vnd.ms-excel` of CSV."""


def header_fault(name: str, code: str, detail: str) -> InvalidRequest:
    """The problem of a wrong header."""
    return InvalidRequest("A header is wrong.", errors=[Fault(f"/header/{name}", code, detail)])


def stated_digest(request: Request) -> bytes | None:
    """The SHA-256 of the body as it is sent, as `Content-Digest` (RFC 9530) states it; other algorithms are ignored."""
    for member in ",".join(request.headers.getlist("content-digest")).split(","):
        name, _, value = member.strip().partition("=")
        if name.strip().lower() != "sha-256":
            continue
        found = re.fullmatch(r":([A-Za-z0-9+/=]+):", value.strip())
        try:
            digest = base64.b64decode(found[1] if found else "", validate=True)
        except binascii.Error:
            digest = b""
        if len(digest) != 32:
            raise header_fault("content-digest", "invalid_digest", "Write it as `sha-256=:BASE64 OF 32 BYTES:`.")
        return digest
    return None


class Decoder(Protocol):
    """Undoes a Content-Encoding."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Pieces of bounded size."""
        ...

    def complete(self) -> bool:
        """Whether the stream ended where it should."""
        ...


class Identity:
    """No encoding."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The data."""
        yield data

    def complete(self) -> bool:
        """Nothing can be missing."""
        return True


def _fewer(left: int | None) -> int | None:
    """One member less. Raises zlib.error."""
    if left is not None and left <= 1:
        raise zlib.error("too many members")
    return None if left is None else left - 1


class Gzip:
    """RFC 1952, one member after the other, at most `members`."""

    def __init__(self, members: int | None = None) -> None:
        self._member = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._begun, self._left = False, members

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decompress. Raises zlib.error."""
        while data:
            if self._member.eof:
                self._left = _fewer(self._left)
                self._member = zlib.decompressobj(16 + zlib.MAX_WBITS)
            self._begun = True
            while True:  # also when the input is used up, the decoder may hold more
                piece = self._member.decompress(data, PIECE)
                yield piece
                data = self._member.unconsumed_tail
                if not data and len(piece) < PIECE:
                    break
            data = self._member.unused_data

    def complete(self) -> bool:
        """Whether the last member is complete."""
        return self._begun and self._member.eof


class Zstd:
    """RFC 8878, one frame after the other, at most `members`."""

    def __init__(self, members: int | None = None, window: int = WINDOW) -> None:
        self._make = zstandard.ZstdDecompressor(max_window_size=window).decompressobj
        self._frame = self._make()
        self._begun, self._left = False, members

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decompress. Raises zstandard.ZstdError, zlib.error."""
        view, pieces, size = memoryview(data), list[bytes](), 0
        while view:
            if self._frame.eof:
                self._left = _fewer(self._left)
                self._frame = self._make()
            self._begun = True
            taken = view[:NIBBLE]
            pieces.append(self._frame.decompress(taken))
            size += len(pieces[-1])
            view = view[len(taken) - len(self._frame.unused_data) :]
            if size >= PIECE:
                yield b"".join(pieces)
                pieces, size = [], 0
        yield b"".join(pieces)

    def complete(self) -> bool:
        """Whether the last frame is complete."""
        return self._begun and self._frame.eof


ENCODINGS: dict[str, Callable[[], Decoder]] = {
    "identity": Identity, "": Identity, "gzip": Gzip, "x-gzip": Gzip, "zstd": Zstd
}  # fmt: skip


def decoder(encoding: str) -> Decoder:
    """The decoder of a Content-Encoding."""
    make = ENCODINGS.get(encoding.strip().lower())
    if make is None:
        taken = {"Accept-Encoding": "gzip, zstd, identity"}
        raise UnsupportedMediaType("Send the body as it is, or with `Content-Encoding: gzip` or `zstd`.", headers=taken)
    return make()


def decoded(body: bytes, encoding: str, limit: int) -> bytes | None:
    """A small body without its Content-Encoding, gzip or zstd; None for one of more than `limit` bytes.

    Raises a Problem, also for a stream of many empty parts or one that asks for much memory. Not for the event loop.
    """
    undo: Decoder = Zstd(MEMBERS, SMALL_WINDOW) if encoding == "zstd" else Gzip(MEMBERS)
    whole = bytearray()
    try:
        for piece in undo.feed(body):
            whole += piece
            if len(whole) > limit:
                return None
    except (zlib.error, zstandard.ZstdError):
        raise header_fault("content-encoding", "broken", BROKEN) from None
    if not undo.complete():
        raise header_fault("content-encoding", "truncated", TRUNCATED)
    return bytes(whole)


class Sink:
    """Writes content to a file and hashes it. Not for the event loop: files block."""

    def __init__(self, path: Path, encoding: str, limit: int, *, wire: bool) -> None:
        self._decoder, self._limit = decoder(encoding), limit
        self._file = path.open("wb", buffering=0)
        self._content = hashlib.sha256()
        self._plain = isinstance(self._decoder, Identity)
        self._wire = hashlib.sha256() if wire and not self._plain else None
        self.size, self.head = 0, b""

    def feed_all(self, parts: Sequence[bytes]) -> None:
        """Take in parts of the body; as `feed`."""
        for part in parts:
            self.feed(part)

    def feed(self, data: bytes) -> None:
        """Take in a part of the body. Raises a Problem, OSError."""
        if self._wire is not None:
            self._wire.update(data)
        try:
            for piece in self._decoder.feed(data):
                self._write(piece)
        except (zlib.error, zstandard.ZstdError):
            raise header_fault("content-encoding", "broken", BROKEN) from None

    def _write(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size > self._limit:
            detail = f"A dataset may have {self._limit} bytes (decompressed), and this one has more."
            raise DatasetTooLarge(detail, headers={"Connection": "close"})
        if len(self.head) < 65_536:
            self.head += piece[: 65_536 - len(self.head)]
        self._content.update(piece)
        view = memoryview(piece)
        while view:
            view = view[self._file.write(view) :]

    def finish(self) -> None:
        """Close the file. Raises a Problem for a body that ended too early."""
        self._file.close()
        if not self._decoder.complete():
            raise header_fault("content-encoding", "truncated", TRUNCATED)

    def close(self) -> None:
        """Close the file, whatever has come."""
        self._file.close()

    @property
    def sha256(self) -> str:
        """Of the content."""
        return self._content.hexdigest()

    @property
    def wire_digest(self) -> bytes:
        """Of the body as it was sent."""
        return (self._wire or self._content).digest()


async def pour(
    parts: AsyncIterator[bytes], sink: Sink, threads: Threads, progress: Callable[[], Any], *, piece: int = PIECE
) -> None:
    """Write a body: one piece goes to the disk while the next arrives. `progress` is called after each."""
    waiting: list[bytes] = []
    size = 0
    writing: asyncio.Future[None] | None = None
    try:
        async for part in parts:
            waiting.append(part)
            size += len(part)
            if size >= piece:
                if writing is not None:
                    await writing
                    await progress()
                writing = asyncio.ensure_future(threads.carry_on(sink.feed_all, waiting))
                waiting, size = [], 0
        if writing is not None:
            await writing
        writing = asyncio.ensure_future(threads.carry_on(sink.feed_all, waiting))
        await writing
        await progress()
    finally:
        if writing is not None:
            await asyncio.wait([writing])


def believed(media_type: str) -> str:
    """The type that the part of a form says, or the one that has the content tell: browsers know only its name."""
    kind = media_type.partition(";")[0].strip().lower()
    if kind in MEDIA_TYPES:
        return media_type
    vague = kind in SYSTEMS_WORDS or kind.startswith(("text/", "application/x-"))
    return ANY if vague else media_type


class Form:
    """The one file of a multipart/form-data body, as browsers send it."""

    def __init__(self, request: Request) -> None:
        _, options = parse_options_header(request.headers.get("content-type", ""))
        boundary = options.get(b"boundary")
        if not boundary:
            raise header_fault("content-type", "boundary", "multipart/form-data needs a boundary.")
        self._parts: list[bytes] = []
        self._field, self._value, self.files, self._ended = b"", b"", 0, False
        self._headers: dict[bytes, bytes] = {}
        self.media_type: str | None = None
        callbacks: Any = {
            "on_part_begin": self._begin,
            "on_header_field": self._name,
            "on_header_value": self._text,
            "on_header_end": self._header,
            "on_headers_finished": self._headers_done,
            "on_part_data": self._data,
            "on_end": self._end,
        }
        self._parser = MultipartParser(boundary, callbacks)
        self._wanted = self._named = self._unchosen = False

    async def content(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The content of the file. Raises InvalidRequest for what is no such form."""
        async for chunk in body:
            try:
                self._parser.write(chunk)
            except MultipartParseError:
                raise self._fault("The body is no multipart/form-data of this boundary.") from None
            parts, self._parts = self._parts, []
            for part in parts:
                yield part
        if not self._ended:
            raise self._fault("The form ends before its end.")
        if not self.files and self._unchosen:
            raise self._fault("No file was chosen in the form; choose one, and send it again.")
        if not self.files:
            raise self._fault("The form has no file, only texts; send the file itself, with its name.")

    def _fault(self, detail: str) -> InvalidRequest:
        return InvalidRequest("The form is wrong.", errors=[Fault("", "form", detail)])

    def _begin(self) -> None:
        self._headers, self._field, self._value = {}, b"", b""

    def _name(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _text(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field, self._value = b"", b""

    def _headers_done(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._wanted = b"filename" in options
        self._named = bool(options.get(b"filename"))
        if self._named:
            self._file()
        self._unchosen = self._unchosen or (self._wanted and not self._named)

    def _file(self) -> None:
        self.files += 1
        if self.files > 1:
            raise self._fault("The form has several files; send one.")
        self.media_type = believed(self._headers.get(b"content-type", b"").decode("latin-1"))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._wanted and not self._named:  # without a name and a byte it is a field in which no file was chosen
            self._named = True
            self._file()
        if self._wanted:
            self._parts.append(data[start:end])

    def _end(self) -> None:
        self._ended = True
