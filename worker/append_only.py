"""The append-only file of a Redis-compatible server: where its parts lie, and up to where a part can be read.

Pure functions over files: nothing is changed here. Format: the RESP arrays that clients send, one after the other
(https://valkey.io/topics/protocol), lines of annotations that begin with `#`, and since Redis 7 several files that a
manifest lists. What the server reads although it is not strictly the format (`*+1`, a payload that does not end in
CR LF) is read here, too, but at the end of a file: there it is the trace of a torn write.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

FOLDER: Final = "appendonlydir"
SINGLE: Final = "appendonly.aof"
MANIFEST: Final = "appendonly.aof.manifest"
_PART: Final = re.compile(r"appendonly\.aof(?:\.(\d+)\.(base|incr)\.(?:rdb|aof))?")
_SNAPSHOT: Final = (b"REDIS", b"VALKEY")
LONGEST_LINE: Final = 1024
"""Bytes of the longest line that is no payload; the server's own buffer."""
_LONGEST: Final = 512 * 2**20
"""Bytes of the longest payload that a server takes (`proto-max-bulk-len`)."""
_SKIPPED: Final = 1 << 14
"""Bytes; a longer payload is jumped over and not read."""
_WINDOW: Final = 1 << 20
_USUAL: Final = {b"$%d\r\n" % length: length for length in range(1000)}
"""Lines before payloads, for speed."""
_HEAD: Final = re.compile(rb"\*[1-9][0-9]{0,8}\r\n\$[1-9][0-9]{0,8}\r\n")
_WORD: Final = re.compile(rb"\r\n[*$][0-9]{1,9}\r\n")
_NUMBER: Final = re.compile(rb"\s*[+]?([0-9]{1,18})")

Arities = Mapping[bytes, int]
"""Command in lower case -> its number of words with itself, at least so many where negative (as `COMMAND` says)."""


class _Unreadable(Exception):  # noqa: N818 - an inner signal
    """No whole command stands here."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What one file holds: offsets in bytes from its beginning."""

    size: int
    commands: int
    """Whole commands before the damage."""
    whole: int
    """Where the last command ends that can be kept; a transaction counts with its EXEC only."""
    damage: int | None
    """Where the first command begins that cannot be read; None: the file is whole."""
    following: int = 0
    """Whole commands after the damage."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file, as the manifest lists it."""

    path: Path
    sequence: int
    kind: Literal["base", "incr"]

    @property
    def line(self) -> str:
        """Its line in the manifest."""
        return f"file {self.path.name} seq {self.sequence} type {self.kind[0]}\n"


@dataclass(frozen=True, slots=True)
class Layout:
    """The parts in the order in which the server loads them, and what is wrong with their list."""

    manifest: Path | None
    parts: tuple[Part, ...]
    fault: str | None = None
    """A clause about the manifest; the parts are then those that it should list, if `certain`."""
    certain: bool = True

    @property
    def empty(self) -> bool:
        """Whether nothing has been written after the base."""
        return all(part.path.stat().st_size == 0 for part in self.parts if part.kind == "incr")


def layout(directory: Path) -> Layout:
    """Find the parts in a server's data directory; none: the server has not written yet."""
    folder = directory / FOLDER
    manifest = folder / MANIFEST
    try:
        text = manifest.read_bytes()
    except FileNotFoundError:
        if not _there(folder):
            single = directory / SINGLE
            return Layout(None, (Part(single, 1, "base"),) if single.exists() else ())
        return _guess(folder, "is missing")
    listed = _listed(folder, text)
    if listed is None:
        return _guess(folder, "cannot be read")
    last = max((part.sequence for part in listed if part.kind == "incr"), default=0)
    for part in _there(folder):
        if part.kind == "incr" and part.sequence > last and part.path.stat().st_size:
            return _guess(folder, f"does not list {part.path.name}, which holds commands")
    return Layout(manifest, listed)


def _listed(folder: Path, text: bytes) -> tuple[Part, ...] | None:
    """The parts that a manifest lists; None: it is damaged. Lines are `file NAME seq NUMBER type b|i|h ...`."""
    parts: list[Part] = []
    for line in text.decode("ascii", "replace").splitlines():
        if line.startswith("#"):
            continue
        words = line.split()
        fields = dict(zip(words[::2], words[1::2], strict=False))
        name, sequence, kind = fields.get("file", ""), fields.get("seq", ""), fields.get("type", "")
        if kind not in {"b", "i", "h"} or not sequence.isdigit() or not _PART.fullmatch(name):
            return None
        if kind != "h":  # a part of before the last rewrite, about to be deleted
            parts.append(Part(folder / name, int(sequence), "base" if kind == "b" else "incr"))
    if not text.endswith(b"\n") or not parts:
        return None
    return tuple(sorted(parts, key=_order))


def _there(folder: Path) -> tuple[Part, ...]:
    """The parts that lie in the folder, listed or not."""
    if not folder.is_dir():
        return ()
    found = [(path, _PART.fullmatch(path.name)) for path in folder.iterdir()]
    parts = [Part(path, int(m[1] or 1), "incr" if m[2] == "incr" else "base") for path, m in found if m]
    return tuple(sorted(parts, key=_order))


def _order(part: Part) -> tuple[str, int]:
    return part.kind, part.sequence


def _guess(folder: Path, fault: str) -> Layout:
    """What the manifest should list; certain with one base and increments without a gap."""
    parts = _there(folder)
    bases = sum(part.kind == "base" for part in parts)
    numbers = [part.sequence for part in parts if part.kind == "incr"]
    certain = bases == 1 and numbers == list(range(numbers[0], numbers[-1] + 1) if numbers else ())
    return Layout(folder / MANIFEST, parts, fault, certain)


def is_snapshot(path: Path) -> bool:
    """Whether the file begins with a snapshot (RDB), after which commands may follow."""
    with path.open("rb") as file:
        return file.read(6).startswith(_SNAPSHOT)


def looks_sound(directory: Path) -> bool:
    """Look at the manifest and at the ends of the parts only, in less than a millisecond.

    It sees what the server would pass over in silence: a part that is not listed (it would start with nothing), an
    empty snapshot, a last payload whose end is zeros. For everything else the server itself refuses to start.
    """
    try:
        found = layout(directory)
        return found.fault is None and all(_ends_well(part) for part in found.parts)
    except OSError:  # a part is missing, or cannot be read
        return False


def _ends_well(part: Part) -> bool:
    with part.path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if part.kind == "base":
            file.seek(0)
            if file.read(6).startswith(_SNAPSHOT):
                return True  # it has a checksum, which the server looks at
            if part.path.suffix == ".rdb":
                return False
        file.seek(max(size - 2, 0))
        return file.read(2) in {b"\r\n", b""}


def scan(path: Path, start: int = 0, arities: Arities | None = None) -> Scan:
    """Read the commands of a file from `start` on, in bounded memory. Raises: `OSError`.

    A command is whole if the server can read it and, where `arities` are given, knows it.
    """
    with path.open("rb", buffering=_WINDOW) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(start)
        at = whole = before = start
        commands, inside, last = 0, False, 0
        while at < size:
            try:
                end, name, length = _command(file, at, size, arities)
            except _Unreadable:
                if at > start and _is_wrong(file, at, last):
                    at, whole = before, min(before, whole)
                return Scan(size, commands, whole, at, _following(file, at + 1, size, arities))
            commands += name is not None
            if name in {b"multi", b"exec"}:
                inside = name == b"multi"
            before, at, last = at, end, length
            if not inside:
                whole = at
        return Scan(size, commands, whole, None if whole == size else whole)


def _is_wrong(file: IO[bytes], end: int, last: int) -> bool:
    """Whether a command with damage behind it is damaged itself: by a count or a length, or since bytes are missing.

    Words that no command claims stand behind it, or its last payload (of `last` bytes) has swallowed what looks like
    words. A sound command whose payload has such a text is wrongly accused, and kept with what is cut off.
    """
    file.seek(end)
    behind = file.read(1)
    if last < 0 or behind == b"$":
        return True
    if behind in b"*\0":  # no rest of a word
        return False
    last = min(last, _WINDOW)
    file.seek(end - 2 - last)
    return _WORD.search(file.read(last + 2)) is not None


def _command(file: IO[bytes], at: int, size: int, arities: Arities | None) -> tuple[int, bytes | None, int]:
    """Read what begins at `at`, where the file stands. Raises: `_Unreadable`.

    Returns: its end; the command's name, None for an annotation; the length of its last payload, -1 if some payload
    does not end in CR LF.
    """
    readline, read = file.readline, file.read
    line = readline(LONGEST_LINE)
    at += len(line)
    if line[:1] == b"#":
        if line[-2:] != b"\r\n":
            raise _Unreadable
        return at, None, 0
    words = _number(line, b"*")
    payload = name = b""
    exact, length = True, 0
    for number in range(words):
        line = readline(LONGEST_LINE)
        length = _USUAL.get(line, -1)
        if length < 0:
            length = _number(line, b"$")
        at += len(line) + length + 2
        if length < _SKIPPED:
            payload = read(length + 2)
        else:
            if at > size or length > _LONGEST:
                raise _Unreadable
            file.seek(length, os.SEEK_CUR)
            payload = read(2)
        if payload[-2:] != b"\r\n":
            exact = False
        if number == 0:
            name = payload[:-2].lower()
    if at > size or (at == size and payload[-2:] != b"\r\n") or words < 1 or not _known(name, words, arities):
        raise _Unreadable
    return at, name, length if exact else -1


def _number(line: bytes, mark: bytes) -> int:
    text = line[1:-2]
    if line[:1] != mark or line[-1:] != b"\n":
        raise _Unreadable
    if text.isdigit() and len(text) < 18:
        return int(text)
    match = _NUMBER.match(line, 1)
    if match is None:
        raise _Unreadable
    return int(match[1])


def _known(name: bytes, words: int, arities: Arities | None) -> bool:
    if arities is None:
        return 0 < len(name) <= 64 and name.isascii()
    arity = arities.get(name)
    return arity is not None and (words == arity if arity > 0 else words >= -arity)


def _following(file: IO[bytes], at: int, size: int, arities: Arities | None) -> int:
    """Count the whole commands after damage, wherever one can be found again."""
    count = 0
    while (head := _next_head(file, at)) is not None:
        at = head
        file.seek(at)
        try:
            while at < size:
                at, name, last = _command(file, at, size, arities)
                count += name is not None and last >= 0
        except _Unreadable:
            at += 1
    return count


def _next_head(file: IO[bytes], at: int) -> int | None:
    """Where the next thing is that looks like the beginning of a command."""
    file.seek(at)
    kept, length = b"", LONGEST_LINE  # small at first: there may be many that only look like one, one behind the other
    while window := file.read(length):
        text = kept + window
        if match := _HEAD.search(text):
            return at + match.start()
        kept = text[-32:]  # a beginning may lie across two windows
        at += len(text) - len(kept)
        length = min(2 * length, _WINDOW)
    return None
