"""What a reader makes of a file: the canonical form, but for what only the whole upload tells."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import orjson

from worker.contract.dataset import Column, ColumnType, DenseLayout, Layout, SparseColumns, StoredFile
from worker.contract.wire import Wire
from worker.datasets.categories import Categories
from worker.datasets.refusal import Limits, invalid
from worker.datasets.summary import Floats, Summaries

CONTENT: Final = "content"
"""Name of the uploaded file, where it is kept because it is the canonical form already."""
DENSE: Final = "dense"
PREVIEW: Final = "preview.json"
SHOWN: Final = 100
"""Rows and columns of the preview, at most."""


class Draft(Wire):
    """The canonical form of a file. The layout does not list a kept `content` among its files yet."""

    rows: int
    columns: list[Column]
    sparse: SparseColumns | None = None
    header: bool | None = None
    layout: Layout


class DenseWriter:
    """Writes blocks of rows to the one dense file (C order), summarizing, hashing and counting them."""

    def __init__(self, directory: Path, names: Sequence[str], limits: Limits) -> None:
        self._directory, self._limits = directory, limits
        self.summaries = Summaries(names)
        self._file = (directory / DENSE).open("w+b", buffering=0)
        self._digest = hashlib.sha256()
        self._shown: list[Floats] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, block: Floats) -> None:
        """Append rows, n x d. Raises RefusedError for infinite values and too many rows."""
        block = np.ascontiguousarray(block, dtype="<f8")
        self._limits.check(self.summaries.rows + len(block), block.shape[1])
        left = SHOWN - self.summaries.rows
        if left > 0:
            self._shown.append(block[:left, :SHOWN].copy())
        self.summaries.add(block)
        write(self._file, block)
        self._digest.update(block.data)

    def finish(
        self, types: Sequence[ColumnType], categories: Mapping[int, Categories], header: bool | None = None
    ) -> Draft:
        """The draft of a table without a sparse part; codes become positions in the sorted categories."""
        rows, width = self.summaries.rows, len(self.summaries.names)
        if rows == 0:
            raise invalid("/rows", "empty", "There are no rows.")
        ranks = {j: rank for j, texts in categories.items() if (rank := texts.ranks()) is not None}
        if ranks:
            self._digest = hashlib.sha256()
            rewrite(self._file.fileno(), rows, width, ranks, self._digest)
        texts = [categories[j].sorted() if j in categories else None for j in range(width)]
        columns = self.summaries.columns(types, texts)
        shown = np.concatenate(self._shown)
        for j, rank in ranks.items():
            if j < shown.shape[1]:
                shown[:, j] = _ranked(shown[:, j], rank)
        preview(self._directory, columns, texts, shown)
        stored = StoredFile(bytes=8 * rows * width, sha256=self._digest.hexdigest())
        layout = Layout(dense=DenseLayout(file=DENSE, offset=0, order="C"), sparse=None, files={DENSE: stored})
        return Draft(rows=rows, columns=columns, header=header, layout=layout)


def write(file: Any, block: npt.NDArray[Any]) -> None:
    """Write all of an array to an unbuffered file."""
    view = block.reshape(-1).view(np.uint8).data
    while len(view):
        view = view[file.write(view) :]


def rewrite(descriptor: int, rows: int, width: int, ranks: Mapping[int, Floats], digest: Any) -> None:
    """Replace the codes of columns of the file by their ranks, block by block, without mapping it."""
    step = max(2**19 // width, 1)
    for start in range(0, rows, step):
        count = min(step, rows - start)
        block = np.frombuffer(os.pread(descriptor, 8 * count * width, 8 * start * width)).reshape(count, width).copy()
        for j, rank in ranks.items():
            block[:, j] = _ranked(block[:, j], rank)
        os.pwrite(descriptor, block.data, 8 * start * width)
        digest.update(block.data)


def _ranked(codes: Floats, ranks: Floats) -> Floats:
    missing = np.isnan(codes)
    return np.where(missing, np.nan, ranks[np.where(missing, 0, codes).astype(np.int64)])


def preview(directory: Path, columns: Sequence[Column], texts: Sequence[list[str] | None], shown: Floats) -> None:
    """Write the first rows as they read to a person: texts, dates, null for what is missing."""
    columns, texts = columns[:SHOWN], texts[:SHOWN]
    rows = [
        [_shown(value, column, text) for value, column, text in zip(row, columns, texts, strict=True)]
        for row in shown.tolist()
    ]
    document = {"columns": [column.name for column in columns], "rows": rows}
    (directory / PREVIEW).write_bytes(orjson.dumps(document))


def _shown(value: float, column: Column, texts: list[str] | None) -> float | str | None:
    if math.isnan(value):
        return None
    if texts is not None:
        return texts[int(value)]
    if column.type != "date":
        return value
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=value)
    except OverflowError:
        return value
    return moment.date().isoformat() if value == int(value) else moment.isoformat().replace("+00:00", "Z")
