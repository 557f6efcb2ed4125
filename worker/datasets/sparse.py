"""The sparse part of a dataset: a CSR matrix written to three files as its rows come."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from worker.contract.dataset import SparseColumns, SparseLayout, StoredFile
from worker.datasets.draft import write
from worker.datasets.refusal import Limits, invalid, too_large

MOST: Final = 2**31 - 1  # columns, and entries: indices are int32
NAMES: Final = ("data", "indices", "indptr")


class _File:
    def __init__(self, path: Path) -> None:
        self.file = path.open("wb", buffering=0)
        self.digest, self.bytes = hashlib.sha256(), 0

    def write(self, array: npt.NDArray[Any]) -> None:
        write(self.file, array)
        self.digest.update(array.data)
        self.bytes += array.nbytes


class SparseWriter:
    """Takes rows with ascending column indices, of which every row has at most one entry each."""

    def __init__(self, directory: Path, limits: Limits) -> None:
        self._files = {name: _File(directory / name) for name in NAMES}
        self._limits = limits
        self._files["indptr"].write(np.zeros(1, "<i8"))
        self.rows, self.nonzeros, self.columns = 0, 0, 0
        self._low, self._high = np.inf, -np.inf

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.file.close()

    def add(self, data: npt.NDArray[Any], indices: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> None:
        """Append rows of `counts` entries each. Raises RefusedError for values that are no finite numbers."""
        data = np.ascontiguousarray(data, "<f8")
        ends = np.cumsum(counts, dtype=np.int64)
        if len(data):
            self._check(data, indices, ends)
            self._low, self._high = min(self._low, float(data.min())), max(self._high, float(data.max()))
            self.columns = max(self.columns, int(indices.max()) + 1)
            self._limits.check_sparse(self.columns)
        self._files["data"].write(data)
        self._files["indices"].write(np.ascontiguousarray(indices, "<i4"))
        self._files["indptr"].write(np.ascontiguousarray(ends + self.nonzeros, "<i8"))
        self.rows += len(counts)
        self.nonzeros += len(data)
        self._limits.check_room(sum(file.bytes for file in self._files.values()))
        if self.nonzeros > min(MOST, self._limits.values):
            raise too_large(f"A table may have {min(MOST, self._limits.values)} entries, and this one has more.")

    def _check(self, data: npt.NDArray[Any], indices: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> None:
        def refuse(entry: int, code: str, text: str) -> Exception:
            row = self.rows + int(np.searchsorted(ends, entry, side="right"))
            return invalid(f"/rows/{row}", code, f"Row {row + 1}: {text}")

        bad = np.flatnonzero(~np.isfinite(data))
        if len(bad):
            raise refuse(int(bad[0]), "not_finite", "an entry is infinite or missing; leave such entries out.")
        beyond = np.flatnonzero((indices < 0) | (indices >= MOST))
        if len(beyond):
            raise refuse(int(beyond[0]), "index", f"a column is not between the first and number {MOST}.")
        descending = np.flatnonzero(np.diff(indices) <= 0) + 1
        descending = descending[~np.isin(descending, ends)]
        if len(descending):
            raise refuse(int(descending[0]), "order", "the columns of a row must ascend, each at most once.")

    def finish(
        self, prefix: str, first: int, columns: int | None = None
    ) -> tuple[SparseColumns, SparseLayout, dict[str, StoredFile]]:
        """What belongs into the manifest. `columns`: their number, where the file says it."""
        self._limits.check_sparse(columns or 0)
        some = self.nonzeros > 0
        described = SparseColumns(
            columns=self.columns if columns is None else columns,
            prefix=prefix,
            first=first,
            nonzeros=self.nonzeros,
            min=self._low if some else None,
            max=self._high if some else None,
        )
        layout = SparseLayout(data="data", indices="indices", indptr="indptr", index_type="int32")
        files = {n: StoredFile(bytes=f.bytes, sha256=f.digest.hexdigest()) for n, f in self._files.items()}
        return described, layout, files
