"""Batches of Arrow columns as blocks of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from worker.contract.dataset import ColumnType
from worker.contract.faults import suggestion
from worker.datasets.categories import Categories
from worker.datasets.draft import DenseWriter, Draft
from worker.datasets.integers import BEYOND
from worker.datasets.refusal import Limits, RefusedError, invalid
from worker.datasets.summary import Floats

_UNITS = {"s": 86_400.0, "ms": 86_400e3, "us": 86_400e6, "ns": 86_400e9}  # in a day


class BatchWriter:
    """Converts batches of columns to float64 and writes them."""

    def __init__(
        self,
        directory: Path,
        names: Sequence[str],
        types: Sequence[pa.DataType],
        limits: Limits,
        wanted: Mapping[str, ColumnType] | None = None,
    ) -> None:
        self._wanted = wanted_types(wanted or {}, names)
        self._names = tuple(names)
        self._kinds = [self._wanted.get(j, column_type(kind, j, names[j])) for j, kind in enumerate(types)]
        self.categories: Mapping[int, Categories] = {
            j: Categories(names[j]) for j, kind in enumerate(self._kinds) if kind == "category"
        }
        self._dense = DenseWriter(directory, names, limits)
        for j in (j for j, kind in self._wanted.items() if kind == "number"):
            self._dense.rounding(j)
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
        if j in self._wanted:
            values = recast(values, self._wanted[j], j, self._names[j], self._dense.summaries.rows)
        if self._kinds[j] == "number" and (integers := self._whole(j, values)) is not None:
            missing = np.asarray(values.is_null().to_numpy(zero_copy_only=False)) if values.null_count else None
            return self._dense.exact(j, integers, missing)
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

    def _whole(self, j: int, values: pa.Array) -> npt.NDArray[np.integer[Any]] | None:
        with suppress(RefusedError) if j in self._wanted else nullcontext():  # to be rounded
            return whole(values, j, self._names[j])
        return None

    def finish(self, header: bool | None = None) -> Draft:
        """The draft of the table."""
        return self._dense.finish(self._kinds, self.categories, header)


def wanted_types(wanted: Mapping[str, ColumnType], names: Sequence[str]) -> dict[int, ColumnType]:
    """The types that were asked for, by position. Raises RefusedError for a column that is not there."""
    places = {name: j for j, name in enumerate(names)}
    for name in wanted:
        if name not in places:
            near = suggestion(name, list(places)[:2000])
            raise invalid("/query/types", "unknown_column", f"`types` names {name[:60]!r}, which is no column{near}.")
    return {places[name]: kind for name, kind in wanted.items()}


_CASTS: Mapping[ColumnType, pa.DataType] = {"category": pa.string(), "number": pa.float64(), "date": pa.timestamp("us")}


def recast(values: pa.Array, wanted: ColumnType, j: int, name: str, row: int) -> pa.Array:
    """Values as the type that was asked for. Raises RefusedError for those that are none of it."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        values, kind = values.cast(kind.value_type), kind.value_type
    if wanted == "category" and pa.types.is_floating(kind):
        told = f"Column {name!r} holds floating-point numbers; `types` makes categories of integers and texts."
        raise invalid(
            f"/columns/{j}", "unfit_option", f"{told} A job's `data.categorical` takes numbers for categories."
        )
    if column_type(kind, j, name) == wanted:
        return values
    try:
        if wanted == "number" and not pa.types.is_temporal(kind):
            with suppress(pa.ArrowInvalid):
                return pc.cast(values, pa.int64())  # then integers beyond 2^53 are told
        return pc.cast(values, _CASTS[wanted])
    except pa.ArrowException:
        told = f"Column {name!r} is of type {str(kind)[:60]}, and near row {row + 1} a value is no {wanted}"
        raise invalid(f"/columns/{j}", "unfit_option", f"{told}; leave it out of `types`.") from None


def whole(values: pa.Array, j: int, name: str) -> npt.NDArray[np.integer[Any]] | None:
    """Integers that may need all of their 64 bits, 0 for null; None for other types.

    Raises RefusedError for decimals without a fraction that have more bits.
    """
    kind = values.type
    if pa.types.is_decimal(kind) and kind.scale <= 0:
        try:
            values = values.cast(pa.int64())
        except pa.ArrowInvalid:
            told = f"Column {name!r} holds integers of more than 64 bits, which float64 cannot tell apart"
            remedy = f"write them as texts, or send `types={name}:number` to have them rounded"
            raise invalid(f"/columns/{j}", BEYOND, f"{told}; {remedy}.") from None
    elif kind not in (pa.int64(), pa.uint64()):
        return None
    return np.asarray(values.fill_null(0).to_numpy(zero_copy_only=False))


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
