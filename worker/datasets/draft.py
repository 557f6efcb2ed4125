"""What a reader makes of a file: the canonical form, but for what only the whole upload tells."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import Field

from worker.contract.dataset import (
    Column,
    ColumnType,
    DatasetWarning,
    DenseLayout,
    Layout,
    SparseColumns,
    StoredFile,
)
from worker.contract.wire import Wire
from worker.datasets.categories import Categories
from worker.datasets.integers import Bools, LateCategories, beyond_warning, lost, ranked
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
    warnings: list[DatasetWarning] = Field(default_factory=list)
    layout: Layout


class DenseWriter:
    """Writes blocks of rows to the one dense file (C order), summarizing, hashing and counting them."""

    def __init__(self, directory: Path, names: Sequence[str], limits: Limits) -> None:
        self._directory, self._limits = directory, limits
        self.summaries = Summaries(names)
        self._file = (directory / DENSE).open("w+b", buffering=0)
        self._digest = hashlib.sha256()
        self._shown: list[Floats] = []
        self._late: dict[int, LateCategories] = {}
        self._rounded: dict[int, LateCategories] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def rounding(self, j: int) -> None:
        """Column `j` takes integers beyond 2^53 as rounded numbers."""
        self._rounded[j] = LateCategories(self.summaries.names[j], 0)

    def exact(self, j: int, values: npt.NDArray[Any], missing: Bools | None = None) -> npt.NDArray[Any]:
        """The next values of column `j` as they are written: of integers that float64 cannot hold, codes of categories.

        Call it once for each block, before `add`. `missing`: which of the integers stand for nothing.
        """
        late, row = self._late.get(j), self.summaries.rows
        if values.dtype.kind in "iu":
            found = lost(values) if late is None else None
            if found is not None and (found if missing is None else found & ~missing).any():
                if (rounded := self._rounded.get(j)) is not None:
                    rounded.note(values, missing, row)
                else:
                    late = self._late[j] = LateCategories(self.summaries.names[j], row)
            if late is not None:
                return late.codes(values, missing, row)
        return values if missing is None else np.where(missing, np.nan, values)

    def add(self, block: npt.NDArray[Any]) -> None:
        """Append rows, n x d. Raises RefusedError for infinite values and too many rows."""
        if block.dtype.kind in "iu" and (self._late or lost(block) is not None):
            block = np.column_stack([self.exact(j, block[:, j]) for j in range(block.shape[1])])
        block = np.ascontiguousarray(block, dtype="<f8")
        self._limits.check(self.summaries.rows + len(block), block.shape[1])
        left = SHOWN - self.summaries.rows
        if left > 0:
            self._shown.append(block[:left, :SHOWN].copy())
        self.summaries.add(block)
        write(self._file, block)
        self._digest.update(block.data)

    def finish(
        self,
        types: Sequence[ColumnType],
        categories: Mapping[int, Categories],
        header: bool | None = None,
        warnings: Sequence[DatasetWarning] = (),
    ) -> Draft:
        """The draft of a table without a sparse part; codes become positions in the sorted categories."""
        rows, width = self.summaries.rows, len(self.summaries.names)
        if rows == 0:
            raise invalid("/rows", "empty", "There are no rows.")
        recoded = self._recoded(categories)
        if recoded:
            self._digest = hashlib.sha256()
            rewrite(self._file.fileno(), rows, width, recoded, self._digest)
        categories = {**categories, **{j: late.categories for j, late in self._late.items()}}
        texts = [categories[j].sorted() if j in categories else None for j in range(width)]
        columns = self.summaries.columns(["category" if j in categories else types[j] for j in range(width)], texts)
        shown = np.concatenate(self._shown)
        for j, made in recoded.items():
            if j < shown.shape[1]:
                shown[:, j] = made(shown[:, j], 0)
        preview(self._directory, columns, texts, shown)
        stored = StoredFile(bytes=8 * rows * width, sha256=self._digest.hexdigest())
        layout = Layout(dense=DenseLayout(file=DENSE, offset=0, order="C"), sparse=None, files={DENSE: stored})
        told = [*warnings, *self._warnings()]
        return Draft(rows=rows, columns=columns, header=header, warnings=told, layout=layout)

    def _recoded(self, categories: Mapping[int, Categories]) -> dict[int, Recoding]:
        """The columns that have to be written again."""
        ranks = {j: rank for j, texts in categories.items() if (rank := texts.ranks()) is not None}
        recoded: dict[int, Recoding] = {j: _by_rank(rank) for j, rank in ranks.items()}
        for j, late in self._late.items():
            late.take_earlier(self._column(j, late.begin))
            recoded[j] = late.final()
        return recoded

    def _column(self, j: int, rows: int) -> Iterator[Floats]:
        """The first rows of a column as they were written."""
        width = len(self.summaries.names)
        yield from (block[:, j] for _, block in _blocks(self._file.fileno(), rows, width))

    def _warnings(self) -> Iterator[DatasetWarning]:
        for columns, kept in ((self._late, True), (self._rounded, False)):
            for _, late in sorted(columns.items()):
                if late.count:
                    yield beyond_warning(late.name, late.count, late.examples, kept=kept)


Recoding = Callable[[Floats, int], Floats]
"""From the values of a column as they were written, and the number of their first row, to the final ones."""


def _by_rank(ranks: Floats) -> Recoding:
    return lambda codes, _: ranked(codes, ranks)


def write(file: Any, block: npt.NDArray[Any]) -> None:
    """Write all of an array to an unbuffered file."""
    view = block.reshape(-1).view(np.uint8).data
    while len(view):
        view = view[file.write(view) :]


def rewrite(descriptor: int, rows: int, width: int, recoded: Mapping[int, Recoding], digest: Any) -> None:
    """Write columns of the file again, block by block, without mapping it."""
    for start, block in _blocks(descriptor, rows, width):
        for j, made in recoded.items():
            block[:, j] = made(block[:, j], start)
        os.pwrite(descriptor, block.data, 8 * start * width)
        digest.update(block.data)


def _blocks(descriptor: int, rows: int, width: int) -> Iterator[tuple[int, Floats]]:
    """The first rows of the file in blocks, each with the number of its first row."""
    step = max(2**19 // width, 1)
    for start in range(0, rows, step):
        count = min(step, rows - start)
        yield (
            start,
            np.frombuffer(os.pread(descriptor, 8 * count * width, 8 * start * width)).reshape(count, width).copy(),
        )


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
