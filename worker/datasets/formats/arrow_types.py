"""Arrow types as their writers use them, reduced to those that become columns: numbers, texts, booleans, dates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from worker.datasets.refusal import invalid

CODED: Final = pa.dictionary(pa.int32(), pa.string())
"""What categories of any writer become."""

_TEXTS: Final = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_TAKEN: Final[tuple[Callable[[pa.DataType], bool], ...]] = (
    pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean, pa.types.is_null,
    pa.types.is_timestamp, pa.types.is_date,
)  # fmt: skip
_BYTES: Final = (
    pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary
)  # fmt: skip
_SPANS: Final = (pa.types.is_time, pa.types.is_duration, pa.types.is_interval)


def plain_type(field: pa.Field, j: int) -> pa.DataType:
    """The type that `plain` gives a column. Raises RefusedError for one that is not read, with what to do instead."""
    name = (field.metadata or {}).get(b"ARROW:extension:name", b"")
    if name == b"pandas.period":  # its numbers count from 1970 in a unit that only pandas knows
        raise _refused(field.name, j, "pandas.period", "convert it to dates, by `.dt.to_timestamp()`")
    found = _plain(field.type)
    if found is None:
        raise _refused(field.name, j, str(field.type), _remedy(_innermost(field.type)))
    return found


def _refused(name: str, j: int, kind: str, remedy: str) -> Exception:
    return invalid(f"/columns/{j}", "dtype", f"Column {name[:200]!r} is of type {kind[:60]}; {remedy}.")


def _innermost(kind: pa.DataType) -> pa.DataType:
    """The type of the values under extensions, dictionaries and runs."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.bool_() if kind.extension_name == "arrow.bool8" else _innermost(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _innermost(kind.value_type)
    return kind


def _plain(kind: pa.DataType) -> pa.DataType | None:
    """The type that a column is read as; None: it is not read."""
    inner = _innermost(kind)
    if any(test(inner) for test in _TEXTS):
        coded = pa.types.is_dictionary(kind) or (
            isinstance(kind, pa.BaseExtensionType) and pa.types.is_dictionary(kind.storage_type)
        )
        return CODED if coded else inner if not pa.types.is_string_view(inner) else pa.large_string()
    return inner if any(test(inner) for test in _TAKEN) else None


def _remedy(kind: pa.DataType) -> str:
    if any(test(kind) for test in _BYTES):
        return "decode the bytes to texts, or leave the column out"
    if any(test(kind) for test in _SPANS):
        return "convert it to numbers, for example of seconds, or leave it out"
    if pa.types.is_nested(kind):
        return "write each of its parts as a column of its own, or leave it out"
    return "send numbers, texts or dates"


def plain(values: pa.Array, target: pa.DataType) -> pa.Array:
    """The values of a column as its `plain_type`. Of a dictionary only the texts that occur are kept, and no null."""
    if values.type == target:
        return values if target != CODED else _occurring(values)
    if isinstance(values.type, pa.BaseExtensionType):
        stored = values.storage
        return plain(pc.not_equal(stored, 0) if values.type.extension_name == "arrow.bool8" else stored, target)
    if pa.types.is_run_end_encoded(values.type):
        return plain(pc.run_end_decode(values), target)
    if not pa.types.is_dictionary(values.type):
        return values.cast(target)
    return _occurring(values) if target == CODED else plain(values.dictionary_decode(), target)


def _occurring(values: pa.DictionaryArray) -> pa.DictionaryArray:
    """Categories with int32 codes: writers use codes of any type, and list categories that no row has, or null."""
    places = values.indices.cast(pa.int64()).fill_null(-1).to_numpy()
    used, codes = np.unique(places, return_inverse=True)
    missing = int(len(used) > 0 and used[0] < 0)
    texts = plain(values.dictionary, pa.large_string()).take(pa.array(used[missing:]))
    codes = codes - missing
    null = np.asarray(texts.is_null().to_numpy(zero_copy_only=False), dtype=bool)
    if null.any():
        codes = np.append(np.where(null, -1, np.cumsum(~null) - 1), -1)[codes]
        texts = texts.drop_null()
    indices = pa.array(codes.astype(np.int32), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, texts.cast(pa.string()))
