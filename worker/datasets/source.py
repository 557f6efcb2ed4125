"""Where a reader of a format gets its bytes from."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO


class Source:
    """A complete file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> BinaryIO:
        """A new stream over the content."""
        return self.path.open("rb", buffering=0)

    def size(self) -> int:
        """Bytes of the whole content."""
        return self.path.stat().st_size


def read_exactly(stream: BinaryIO, count: int) -> bytes:
    """`count` bytes, fewer only at the end of the stream."""
    parts, missing = [], count
    while missing and (part := stream.read(missing)):
        parts.append(part)
        missing -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
