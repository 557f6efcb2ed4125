"""Batches of Arrow columns as blocks of rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from worker.contract.dataset import ColumnType
from worker.datasets.categories import Categories
from worker.datasets.draft import DenseWriter, Draft
from worker.datasets.refusal import Limits, invalid
from worker.datasets.summary import Floats

_UNITS = {"s": 86_400.0, "ms": 86_400e3, "us": 86_400e6, "ns": 86_400e9}  # in a day


class BatchWriter:
    """Converts batches of columns to float64 and writes them."""

    def __init__(self, directory: Path, names: Sequence[str], types: Sequence[pa.DataType], limits: Limits) -> None:
        self._kinds = [column_type(kind, j, names[j]) for j, kind in enumerate(types)]
        self.categories: Mapping[int, Categories] = {
            j: Categories(names[j]) for j, kind in enumerate(self._kinds) if kind == "category"
        }
        self._dense = DenseWriter(directory, names, limits)
        self._step = max(2**20 // len(names), 512)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._dense.__exit__()

    def add(self, columns: Sequence[pa.Array]) -> None:
        """Append the rows of a batch."""
        for start in range(0, len(columns[0]), self._step):
            parts = [column.slice(start, self._step) for column in columns]
            block = np.empty((len(parts[0]), len(parts)))
            for j, part in enumerate(parts):
                block[:, j] = self._values(j, part)
            self._dense.add(block)

    def _values(self, j: int, values: pa.Array) -> npt.NDArray[np.generic]:
        if self._kinds[j] == "number":
            return numbers(values)
        if self._kinds[j] == "date":
            return days(values)
        if pa.types.is_boolean(values.type):
            values = values.cast(pa.string())
        coded = values if pa.types.is_dictionary(values.type) else pc.dictionary_encode(values)
        texts, positions = coded.dictionary.cast(pa.string()), coded.indices
        if texts.null_count:  # a dictionary may hold null as one of its entries
            positions = pc.if_else(pc.is_null(pc.take(texts, positions)), None, positions)
            texts = pc.fill_null(texts, "")
        places = positions.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return self.categories[j].codes(texts.to_pylist(), places)

    def finish(self, header: bool | None = None) -> Draft:
        """The draft of the table."""
        return self._dense.finish(self._kinds, self.categories, header)


def numbers(values: pa.Array) -> npt.NDArray[np.generic]:
    """Float64 values, NaN for null."""
    if pa.types.is_decimal(values.type) or values.type == pa.float16():
        values = values.cast(pa.float64())
    if values.null_count and not pa.types.is_floating(values.type):
        values = values.cast(pa.float64(), safe=False)
    return np.asarray(values.to_numpy(zero_copy_only=False))


def days(values: pa.Array) -> Floats:
    """Days since 1970-01-01 UTC, NaN for null."""
    kind = values.type
    if pa.types.is_date32(kind):
        unit, whole = 1.0, values.view(pa.int32()).cast(pa.int64())
    else:
        unit, whole = (_UNITS["ms"] if pa.types.is_date64(kind) else _UNITS[kind.unit]), values.view(pa.int64())
    missing = np.asarray(whole.is_null().to_numpy(zero_copy_only=False), dtype=bool)
    counts = whole.fill_null(0).to_numpy(zero_copy_only=False)
    return np.where(missing, np.nan, counts / unit)


def column_type(kind: pa.DataType, j: int, name: str) -> ColumnType:
    """What an Arrow type becomes. Raises RefusedError for nested values, bytes, durations."""
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return "number"
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "date"
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind):
        return "category"
    raise invalid(
        f"/columns/{j}", "dtype", f"Column {name!r} is of type {str(kind)[:60]}; send numbers, texts or dates."
    )


def decimal_comma(texts: Categories) -> bool:
    """Whether every text of a column is a number, some of them written with a comma."""
    found = texts.sorted()[:10_000]
    written = re.compile(r"\s*[+-]?[\d.]*\d(,\d+)?\s*")
    return any("," in text for text in found) and all(written.fullmatch(text) for text in found)
