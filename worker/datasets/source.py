"""Where a reader of a format gets its bytes from: a file, complete or still being written by somebody else."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import BinaryIO, cast


class Source:
    """A complete file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> BinaryIO:
        """A new stream over the content, unbuffered."""
        return self.path.open("rb", buffering=0)

    def size(self) -> int:
        """Bytes of the whole content."""
        return self.path.stat().st_size


class GrowingSource(Source):
    """A file that is being written: its streams, and the question for its size, wait for what has yet to come."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._changed = threading.Condition()
        self._size, self._complete = 0, False

    def grown(self, size: int, *, complete: bool) -> None:
        """Tell that `size` bytes are there now, and whether this is all."""
        with self._changed:
            self._size, self._complete = size, complete
            self._changed.notify_all()

    def available(self, end: int) -> int:
        """Bytes that are there, once there are at least `end` or there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._complete or self._size >= end)
            return self._size

    def open(self) -> BinaryIO:
        """A new stream over the content, unbuffered."""
        return cast("BinaryIO", _GrowingFile(self))

    def size(self) -> int:
        """Bytes of the whole content."""
        with self._changed:
            self._changed.wait_for(lambda: self._complete)
            return self._size


class _GrowingFile(io.RawIOBase):
    def __init__(self, source: GrowingSource) -> None:
        super().__init__()
        self._source, self._position = source, 0
        source.available(1)  # then the file exists
        self._file = source.path.open("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: lambda: 0, io.SEEK_CUR: self.tell, io.SEEK_END: self._source.size}[whence]()
        self._position = self._file.seek(base + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """The next bytes, all that were asked for but at the end; without the copy that the base class makes."""
        if size < 0:
            return self.readall()
        count = min(self._source.available(self._position + size), self._position + size) - self._position
        data = self._file.read(count) if count > 0 else b""
        self._position += len(data)
        return data

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = self._position + len(buffer)
        count = min(self._source.available(wanted), wanted) - self._position
        read = self._file.readinto(memoryview(buffer)[:count]) if count > 0 else 0
        self._position += read
        return read

    def close(self) -> None:
        self._file.close()
        super().close()


def read_exactly(stream: BinaryIO, count: int) -> bytes:
    """`count` bytes, fewer only at the end of the stream."""
    parts, missing = [], count
    while missing and (part := stream.read(missing)):
        parts.append(part)
        missing -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
