"""Integers that float64 cannot tell apart: found in columns of 64 bits, and kept exactly, as categories."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from worker.contract.dataset import DatasetWarning, WarningExample
from worker.datasets.categories import Categories
from worker.datasets.summary import Floats

EXACT: Final = 2**53
"""The largest magnitude up to which float64 holds every integer."""
BEYOND: Final = "integers-beyond-double"
EXAMPLES: Final = 3
_WRITTEN = re.compile(r"[+-]?\d+")
Bools = npt.NDArray[np.bool_]


def is_lost(text: str) -> bool:
    """Whether a text is an integer that float64 would change."""
    text = text.strip()
    if len(text) < 16 or not text.isascii() or _WRITTEN.fullmatch(text) is None:
        return False
    digits = text.lstrip("+-").lstrip("0")
    return len(digits) > 308 or (len(digits) > 15 and int(float(digits)) != int(digits))


def lost(integers: npt.NDArray[np.integer[Any]]) -> Bools | None:
    """Which integers float64 would change; None: none of them, as seen at the range alone."""
    if integers.dtype.itemsize < 8 or not integers.size:
        return None
    if int(integers.max()) <= EXACT and int(integers.min()) >= -EXACT:
        return None
    bits = integers.astype(np.uint64)
    magnitude = np.where(integers < 0, ~bits + np.uint64(1), bits)
    lowest = magnitude & (~magnitude + np.uint64(1))
    found: Bools = (magnitude // np.maximum(lowest, np.uint64(1))) > np.uint64(EXACT)
    return found


def beyond_warning(name: str, count: int, examples: list[WarningExample], *, kept: bool) -> DatasetWarning:
    """What is told of such a column. `kept`: exactly, as categories."""
    what = f"Column {name!r} holds integers beyond 2^53 that float64 cannot tell apart"
    if kept:
        text = f"{what}: its values are kept exactly, as categories. For rounded numbers send `types={name}:number`"
        text += ", or floating-point values where the format takes no options."
    else:
        text = f"{what}: they are rounded. To keep them exactly, as categories, send `types={name}:category`."
    return DatasetWarning(column=name, code=BEYOND, text=text, count=count, examples=examples)


class LateCategories:
    """A column of integers from the row on in which the first one does not survive float64: codes of their texts.

    The rows before have been written as numbers; `take_earlier` and `final` make codes of them, too.
    """

    def __init__(self, name: str, begin: int) -> None:
        self.name, self.begin, self.count = name, begin, 0
        remedy = "send floating-point values, or `types=COLUMN:number` with CSV, Parquet or Arrow, to have them rounded"
        self.categories = Categories(name, "integers, some of them beyond 2^53", remedy)
        self.examples: list[WarningExample] = []
        self._values, self._codes = np.empty(0), np.empty(0)

    def codes(self, integers: npt.NDArray[np.integer[Any]], missing: Bools | None, row: int) -> Floats:
        """Codes of the next rows, of which `row` is the first."""
        self.note(integers, missing, row)
        distinct, positions = np.unique(integers, return_inverse=True)
        if missing is not None:
            distinct, positions = np.unique(integers[~missing]), np.full(len(integers), -1)
            positions[~missing] = np.searchsorted(distinct, integers[~missing])
        return self.categories.codes([str(value) for value in distinct.tolist()], positions)

    def note(self, integers: npt.NDArray[np.integer[Any]], missing: Bools | None, row: int) -> None:
        """Count the integers that do not survive."""
        found = lost(integers)
        if found is None:
            return
        places = np.flatnonzero(found if missing is None else found & ~missing)
        self.count += len(places)
        for place in places[: EXAMPLES - len(self.examples)].tolist():
            self.examples.append(WarningExample(row=row + place, value=str(integers[place])))

    def take_earlier(self, earlier: Iterator[Floats]) -> None:
        """Take in the values of the rows before `begin`, as they were written."""
        values = np.empty(0)
        for part in earlier:
            values = np.union1d(values, part[~np.isnan(part)])
            self.categories.check(len(values))
        texts = [str(int(value)) for value in values.tolist()]
        self._values, self._codes = values, self.categories.codes(texts, np.arange(len(texts)))

    def final(self) -> Callable[[Floats, int], Floats]:
        """From what is written, and the number of its first row, to the codes by sorted texts."""
        ranks = self.categories.ranks()

        def made(written: Floats, row: int) -> Floats:
            codes = written.copy()
            early = ~np.isnan(written) & (np.arange(row, row + len(written)) < self.begin)
            codes[early] = self._codes[np.searchsorted(self._values, written[early])]
            return codes if ranks is None else ranked(codes, ranks)

        return made


def ranked(codes: Floats, ranks: Floats) -> Floats:
    """The final code of each code, NaN for NaN."""
    missing = np.isnan(codes)
    return np.where(missing, np.nan, ranks[np.where(missing, 0, codes).astype(np.int64)])
