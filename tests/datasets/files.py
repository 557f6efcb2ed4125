"""Files of every format, and a storage to put them in."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worker.contract.dataset import Format
from worker.datasets import Limits, LocalStorage, RefusedError, Table, add_file, open_table


def npy(array: Any) -> bytes:
    """The array as NPY, pickled objects included."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


class Shelf:
    """A storage in a directory of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.storage = LocalStorage(path / "datasets")

    def table(self, content: bytes, kind: Format, limits: Limits | None = None) -> Table:
        """The table that a file becomes."""
        file = self.path / "file"
        file.write_bytes(content)
        try:
            return open_table(self.storage, add_file(self.storage, file, kind, limits).id)
        finally:
            assert list(self.storage.tmp.iterdir()) == []

    def refusal(self, content: bytes, kind: Format, limits: Limits | None = None) -> RefusedError:
        """Why a file is refused."""
        before = list(self.storage.ids())
        with pytest.raises(RefusedError) as caught:
            self.table(content, kind, limits)
        assert list(self.storage.ids()) == before
        error = caught.value
        assert error.detail.endswith(".")
        assert all(fault.detail.endswith(".") for fault in error.faults)
        return error

    def places(self, content: bytes, kind: Format) -> list[tuple[str, str]]:
        """Pointer and code of what is wrong with a file."""
        return [(fault.pointer, fault.code) for fault in self.refusal(content, kind).faults]
