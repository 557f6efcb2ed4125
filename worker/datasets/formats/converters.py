"""The columns of a CSV file on their way to float64: parsed by pyarrow where that is exact, from their texts elsewhere.

A converter raises `DoubtError` for values that are not what it was made for; `doubtful` says at the end of the file
whether its column has to be looked at as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from worker.contract.dataset import ColumnType
from worker.datasets.categories import Categories
from worker.datasets.formats.columns import days, numbers
from worker.datasets.formats.spelling import Evidence, Places, Spellings
from worker.datasets.integers import EXACT
from worker.datasets.summary import Floats, Summaries

CACHED = 2**16  # bytes that stay in the processor's cache
LONGEST = 64  # bytes of the field that lies across the end of a part


class DoubtError(Exception):
    """A value does not fit what the beginning of the file suggested."""


class Converter(Protocol):
    """What reads one column."""

    arrow: pa.DataType
    """The type that pyarrow's parser is asked for."""
    kind: ColumnType

    def values(self, texts: pa.Array) -> npt.NDArray[Any]:
        """The float64 values of the next rows. Raises DoubtError."""
        ...

    def doubtful(self, summaries: Summaries, j: int) -> bool:
        """Whether column `j` has to be looked at as a whole before it is believed."""
        ...


class _Numbers:
    """What is doubtful about numbers: missing ones that were not empty, and those beyond 2^53."""

    kind: ColumnType = "number"

    def __init__(self) -> None:
        self.nulls = 0

    def doubtful(self, summaries: Summaries, j: int) -> bool:
        """Whether something was written for a missing value, or digits may be lost."""
        written = summaries.rows - int(summaries.count[j]) > self.nulls
        return bool(written or summaries.low[j] <= -EXACT or summaries.high[j] >= EXACT)


class Floats64(_Numbers):
    """Numbers that the parser reads itself."""

    arrow = pa.float64()

    def values(self, texts: pa.Array) -> npt.NDArray[Any]:
        """The numbers."""
        self.nulls += texts.null_count
        return numbers(texts)


class Integers(Floats64):
    """Whole numbers that the parser reads itself; see `Padding` for their leading zeros."""

    arrow = pa.int64()


class TextNumbers(_Numbers):
    """Numbers from texts, with marks, blanks and texts for missing values, as the options allow."""

    arrow = pa.string()

    def __init__(self, spellings: Spellings) -> None:
        super().__init__()
        self._spellings = spellings

    def values(self, texts: pa.Array) -> npt.NDArray[Any]:
        """The numbers. Raises DoubtError."""
        self.nulls += texts.null_count
        return self._written(present(texts, self._spellings))

    def _written(self, texts: pa.Array) -> Floats:
        """Numbers with marks between thousands, or a decimal comma."""
        grouped, mark, point = self._spellings.grouped, self._spellings.thousands, self._spellings.decimal
        if grouped is not None and mark is not None:
            plain = pc.replace_substring(texts, mark, "")
            texts = pc.if_else(pc.match_substring_regex(texts, grouped), plain, texts)
        if point != ".":
            if pc.any(pc.match_substring(texts, ".")).as_py():
                raise DoubtError
            texts = pc.replace_substring(texts, point, ".")
        try:
            return np.asarray(numbers(pc.cast(texts, pa.float64())), np.float64)
        except pa.ArrowInvalid:
            raise DoubtError from None


class Moments:
    """Dates that the parser reads itself."""

    kind: ColumnType = "date"

    def __init__(self, zone: str | None) -> None:
        self.arrow = pa.timestamp("us", zone)

    def values(self, texts: pa.Array) -> npt.NDArray[Any]:
        """Days since 1970-01-01."""
        return days(texts)

    def doubtful(self, summaries: Summaries, j: int) -> bool:
        """The parser takes nothing else."""
        del summaries, j
        return False


class TextDates:
    """Dates in ISO 8601 from texts, whatever of it they use; without a time zone they are in UTC."""

    arrow = pa.string()
    kind: ColumnType = "date"

    def __init__(self, spellings: Spellings) -> None:
        self._spellings = spellings

    def values(self, texts: pa.Array) -> npt.NDArray[Any]:
        """Days since 1970-01-01. Raises DoubtError."""
        texts = pc.replace_substring_regex(present(texts, self._spellings), r"(\.\d{6})\d+", r"\1")
        zoned = pc.match_substring_regex(texts, r"\d[ T].*(Z|[+-]\d{2}(:?\d{2})?)$")
        try:
            local = pc.cast(pc.if_else(zoned, None, texts), pa.timestamp("us"))
            moved = pc.cast(pc.if_else(zoned, texts, None), pa.timestamp("us", "UTC"))
        except pa.ArrowInvalid:
            raise DoubtError from None
        return days(pc.coalesce(local, moved.cast(pa.timestamp("us"))))

    def doubtful(self, summaries: Summaries, j: int) -> bool:
        """Something made them texts, which has to be told."""
        del summaries, j
        return True


class Texts:
    """Texts as codes, with how often each of them occurs, and where first."""

    arrow = pa.string()
    kind: ColumnType = "category"

    def __init__(self, name: str, spellings: Spellings) -> None:
        self.categories = Categories(name)
        self._spellings, self._rows, self._known = spellings, 0, 0
        self._counts, self._first = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._missing = Evidence(spellings)

    def values(self, texts: pa.Array) -> npt.NDArray[Any]:
        """Codes, NaN for missing ones."""
        coded = pc.dictionary_encode(texts)
        known = coded.dictionary.to_pylist()
        places = np.asarray(coded.indices.fill_null(-1).to_numpy()).astype(np.int64)
        gone = np.flatnonzero(present(coded.dictionary, self._spellings).is_null())
        if len(gone):
            self._missing.add(pc.if_else(pa.array(np.isin(places, gone)), texts, None), self._rows)
            new = np.full(len(known) + 1, -1)
            kept = np.delete(np.arange(len(known)), gone)
            new[kept] = np.arange(len(kept))
            known, places = [known[place] for place in kept.tolist()], new[places]
        entries = self.categories.codes(known, np.arange(len(known)))
        self._count(entries.astype(np.int64), places)
        self._rows += len(texts)
        return np.append(entries, np.nan)[places]

    def _count(self, entries: npt.NDArray[np.int64], places: npt.NDArray[np.int64]) -> None:
        """How often each text occurs, and in which row first. `entries`: the codes of those of this block."""
        old, new = self._known, len(self.categories)
        if new > len(self._counts):
            more = np.zeros(max(new, 2 * len(self._counts)) - len(self._counts), np.int64)
            self._counts, self._first = np.append(self._counts, more), np.append(self._first, more)
        rows = np.flatnonzero(places >= 0)
        self._counts[entries] += np.bincount(places[rows], minlength=len(entries))
        first = np.zeros(len(entries), np.int64)
        first[places[rows][::-1]] = self._rows + rows[::-1]
        late = entries >= old
        self._first[entries[late]] = first[late]
        self._known = new

    def doubtful(self, summaries: Summaries, j: int) -> bool:
        """It knows all of its texts, see `evidence`."""
        del summaries, j
        return False

    def evidence(self) -> Evidence:
        """How all of its values are spelled."""
        texts = pa.array(list(self.categories), pa.string())

        def first(which: Places) -> Iterable[tuple[int, int]]:
            best = which[np.argsort(self._first[which], kind="stable")[:3]]
            return zip(self._first[best].tolist(), best.tolist(), strict=True)

        self._missing.weigh(texts, self._counts[: self._known], first)
        return self._missing


def present(texts: pa.Array, spellings: Spellings) -> pa.Array:
    """Trimmed texts, null for those that stand for a missing value."""
    texts = pc.utf8_trim_whitespace(texts)
    return pc.if_else(pc.is_in(texts, pa.array(["", *spellings.missing], pa.string())), None, texts)


class Padding:
    """Watches bytes of a CSV file for whole numbers with leading zeros, which a parser of integers does not tell."""

    def __init__(self, delimiter: str) -> None:
        self.found = False
        self._codes = sorted(set(f'{delimiter}\n\t" '.encode()))
        ends = re.escape(f'{delimiter}\n\r"').encode()
        self._whole = re.compile(rb"[" + ends + rb"][ \t]*0[0-9]+(?=[ \t]*(?:[" + ends + rb"]|\Z))")
        self._last = b"\n"

    def watch(self, part: bytes) -> None:
        """Look at the next bytes."""
        if self.found:
            return
        seam = self._last + part[:LONGEST]
        self.found = self._whole.search(seam) is not None or (
            self._likely(part) and self._whole.search(part) is not None
        )
        self._last = part[-LONGEST:] if len(part) >= LONGEST else (self._last + part)[-LONGEST:]

    def _likely(self, part: bytes) -> bool:
        """Whether there is a zero between a mark and a digit: quick, and rarely so."""
        letters = np.frombuffer(part, np.uint8)
        for start in range(0, len(letters), CACHED):
            piece = letters[start : start + CACHED + 2]
            zero = piece[1:-1] == ord("0")
            zero &= (piece[2:] - np.uint8(ord("0"))) < 10
            before = piece[:-2] == self._codes[0]
            for code in self._codes[1:]:
                before |= piece[:-2] == code
            zero &= before
            if zero.any():
                return True
        return False


def without_minus(spellings: Spellings) -> Spellings:
    """Where `-` is one of two signs."""
    return replace(spellings, missing=spellings.missing - {"-"})
