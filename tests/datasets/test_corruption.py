"""Damaged files: every prefix of a small file of each kind, and random flips of bytes. And a damaged disk."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.datasets.files import Shelf, samples
from worker.datasets import Limits, RefusedError, Source, Table, read

SAMPLES = samples()
TEXTS = {"csv", "libsvm"}


def sound(table: Table) -> None:
    """What workers rely on, whatever the file was."""
    dataset = table.dataset
    assert table.dense.shape == (dataset.rows, len(dataset.columns))
    assert not np.isinf(table.dense).any()
    for j, column in enumerate(dataset.columns):
        assert column.missing == np.isnan(table.dense[:, j]).sum()
        if column.categories is not None:
            codes = table.dense[~np.isnan(table.dense[:, j]), j]
            assert ((codes >= 0) & (codes < len(column.categories)) & (codes % 1 == 0)).all()
    if table.sparse is not None:
        assert table.sparse.shape == (dataset.rows, dataset.width - len(dataset.columns))
        table.sparse.check_format(full_check=True)
        assert table.sparse.has_canonical_format
        assert np.isfinite(table.sparse.data).all()


@pytest.mark.parametrize("name", [name for name in SAMPLES if name not in TEXTS])
def test_no_prefix_of_a_binary_file_is_a_file(shelf: Shelf, name: str):
    kind, content = SAMPLES[name]
    sound(shelf.table(content, kind))
    end = max(0, len(content) - 100)  # where directories and footers are
    for size in (*range(0, end, 3), *range(end, len(content))):
        assert shelf.refused(content[:size], kind)


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_prefix_of_a_text_is_refused_or_read_as_far_as_it_goes(shelf: Shelf, name: str):
    kind, content = SAMPLES[name]
    read = 0
    for size in range(len(content) + 1):
        try:
            table = shelf.table(content[:size], kind)
        except RefusedError:
            continue
        sound(table)
        read += 1
        lines = content[:size].decode().splitlines()
        rows = len(lines) if kind == "libsvm" else len(list(csv.reader(io.StringIO("\n".join(lines))))) - 1
        assert table.dataset.rows == rows
    assert 0 < read < len(content)


@pytest.mark.parametrize("name", SAMPLES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_are_refused_or_harmless(shelf: Shelf, name: str, data: st.DataObject):
    kind, content = SAMPLES[name]
    places = st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(1, 255)), min_size=1, max_size=3)
    with contextlib.suppress(RefusedError):
        sound(shelf.table(flipped(content, data.draw(places)), kind))


def flipped(content: bytes, places: list[tuple[int, int]]) -> bytes:
    damaged = bytearray(content)
    for place, change in places:
        damaged[place] ^= change
    return bytes(damaged)


def test_any_bit_of_a_zip_directory_flips(shelf: Shelf):
    """Names, sizes and offsets, some of which lead out of the file then."""
    kind, content = SAMPLES["npz"]
    for place in range(content.index(b"PK\x01\x02"), len(content)):
        for bit in range(8):
            with contextlib.suppress(RefusedError):
                sound(shelf.table(flipped(content, [(place, 1 << bit)]), kind))


class FailingSource(Source):
    """A file on a disk that fails at one of the reads."""

    def __init__(self, path: Path, fails: int) -> None:
        super().__init__(path)
        self.fails = fails

    def open(self) -> BinaryIO:
        return cast("BinaryIO", _FailingFile(self, super().open()))


class _FailingFile(io.RawIOBase):
    def __init__(self, source: FailingSource, file: BinaryIO) -> None:
        super().__init__()
        self._source, self._file = source, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        self._source.fails -= 1
        if self._source.fails == 0:
            raise OSError(errno.EIO, "the disk fails")
        return self._file.read(size)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


@pytest.mark.parametrize("name", SAMPLES)
def test_a_failing_disk_is_not_taken_for_a_damaged_file(shelf: Shelf, name: str):
    kind, content = SAMPLES[name]
    shelf.scratch.mkdir()
    path = shelf.scratch / "content"
    last = False
    for reads in range(1, 1000):
        path.write_bytes(content)
        source = FailingSource(path, reads)
        try:
            read(source, shelf.scratch, kind, Limits())
        except OSError as error:
            if error.errno != errno.EIO:
                raise
        else:
            last = source.fails > 0  # all was read before the disk would have failed
            break
    assert last
    assert reads > 1
