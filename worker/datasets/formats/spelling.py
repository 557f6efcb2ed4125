"""How the texts of a CSV column are spelled: numbers, dates, texts, and what people write for them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from worker.contract.dataset import ReadingOptions, WarningExample
from worker.datasets.integers import EXAMPLES, is_lost

_MARKS: Final = "NA NaN nan -NaN -nan null NULL N/A n/a <NA> #N/A #NA - ? -1.#IND -1.#QNAN 1.#IND 1.#QNAN"
MISSING: Final = frozenset({*_MARKS.split(" "), "#N/A N/A"})
"""Texts that stand for a missing value unless the upload says which ones do; the empty text always does."""
SHOWN: Final = 60  # characters of a value that are repeated
Codes = npt.NDArray[np.int8]
Places = npt.NDArray[np.integer[Any]]
First = Callable[[Places], Iterable[tuple[int, int]]]
"""Of texts by their positions: their first rows, each with the position of its text."""


class Spelling(IntEnum):
    """What one text is. The order is that in which it is found out."""

    TEXT = 0
    INTEGER = 1
    NUMBER = 2
    PADDED = 3  # digits with leading zeros
    LOST = 4  # an integer that float64 changes
    DAY = 5  # ISO 8601, and the next four
    MOMENT = 6
    ZONED = 7
    FINE = 8  # a moment with more than microseconds
    ZONED_FINE = 9
    THOUSANDS = 10
    COMMA = 11
    PERCENT = 12
    CURRENCY = 13
    OTHER_DATE = 14
    MISSING = 15


PLAIN = (Spelling.INTEGER, Spelling.NUMBER, Spelling.PADDED, Spelling.LOST)
FORMATTED = (Spelling.THOUSANDS, Spelling.COMMA, Spelling.PERCENT, Spelling.CURRENCY)
DATES = (Spelling.DAY, Spelling.MOMENT, Spelling.ZONED, Spelling.FINE, Spelling.ZONED_FINE)
_TIME = r"[ T]\d{2}(:?\d{2}(:?\d{2}(\.\d{1,9})?)?)?"
_ZONE = r"(Z|[+-]\d{2}(:?\d{2})?)"
_DAY = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
_FINE = r"[ T]\d{2}:?\d{2}:?\d{2}\.\d{7,9}"


@dataclass(frozen=True)
class Spellings:
    """The spellings of numbers under the options of an upload."""

    decimal: str = "."
    thousands: str | None = None
    missing: frozenset[str] = MISSING
    stated: bool = False  # whether the upload says what is missing

    @classmethod
    def of(cls, options: ReadingOptions) -> Spellings:
        """Those that the options ask for."""
        missing = MISSING if options.missing is None else frozenset(options.missing)
        return cls(options.decimal or ".", options.thousands, missing, options.missing is not None)

    @cached_property
    def grouped(self) -> str | None:
        """Numbers with the mark between thousands that was asked for."""
        if self.thousands is None:
            return None
        mark, point = re.escape(self.thousands), re.escape(self.decimal)
        return rf"^[+-]?\d{{1,3}}({mark}\d{{3}})+({point}\d*)?$"

    @cached_property
    def patterns(self) -> tuple[tuple[Spelling, str], ...]:
        """A pattern for each spelling that one can tell, tried in this order."""
        point = re.escape(self.decimal)
        number = rf"[+-]?((\d+{point}?\d*|{point}\d+)([eE][+-]?\d+)?|(?i:inf|infinity|nan))"
        ours = [(Spelling.INTEGER, r"^[+-]?\d+$"), (Spelling.NUMBER, f"^{number}$")]
        if self.grouped is not None:
            ours.append((Spelling.NUMBER, self.grouped))
        amount = r"[+-]?\d[\d.,' ]*"
        return (
            *ours,
            (Spelling.DAY, f"^{_DAY}$"),
            (Spelling.FINE, f"^{_DAY}{_FINE}$"),
            (Spelling.ZONED_FINE, f"^{_DAY}{_FINE}{_ZONE}$"),
            (Spelling.MOMENT, f"^{_DAY}{_TIME}$"),
            (Spelling.ZONED, f"^{_DAY}{_TIME}{_ZONE}$"),
            (Spelling.THOUSANDS, r"^[+-]?\d{1,3}((,\d{3}){2,}|(\.\d{3}){2,}|('\d{3})+|( \d{3})+|(_\d{3})+)([.,]\d*)?$"),
            (Spelling.THOUSANDS, r"^[+-]?\d{1,3}((,\d{3})+\.\d*|(\.\d{3})+,\d*)$"),
            (Spelling.COMMA, r"^[+-]?\d*[,.]\d+$"),
            (Spelling.PERCENT, rf"^{amount}%$"),
            (Spelling.CURRENCY, rf"^([+-]?[$€£¥] ?{amount}|{amount} ?[$€£¥])$"),
            (
                Spelling.OTHER_DATE,
                (
                    r"^(\d{1,2}[/.-]\d{1,2}[/.-](\d{4}|\d{2})|\d{4}[/.]\d{1,2}[/.]\d{1,2}"
                    r"|\d{1,2}[- ][A-Za-z]{3,9}[- ,]+\d{2,4})([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[AaPp][Mm])?)?$"
                ),
            ),
        )

    def classify(self, texts: pa.Array) -> Codes:
        """The spelling of each of some trimmed texts."""
        codes = np.full(len(texts), Spelling.TEXT, np.int8)
        codes[_true(pc.is_in(texts, pa.array(["", *self.missing], pa.string())))] = Spelling.MISSING
        likely = _true(pc.match_substring_regex(texts, r"^([+-]?[\d.,$€£¥]|[+-]?[iInN])"))
        rest = np.flatnonzero(likely & (codes == Spelling.TEXT))
        for spelling, pattern in self.patterns:
            if not len(rest):
                break
            matches = _true(pc.match_substring_regex(texts.take(pa.array(rest)), pattern))
            codes[rest[matches]] = spelling
            rest = rest[~matches]
        self._refine(texts, codes)
        return codes

    def _refine(self, texts: pa.Array, codes: Codes) -> None:
        """Which integers have leading zeros, or are lost as float64."""
        integers = np.flatnonzero(codes == Spelling.INTEGER)
        if not len(integers):
            return
        taken = texts.take(pa.array(integers))
        codes[integers[_true(pc.match_substring_regex(taken, r"^0\d"))]] = Spelling.PADDED
        long = np.flatnonzero(np.asarray(pc.binary_length(taken)) >= 16)
        for place in long.tolist():
            if is_lost(taken[place].as_py()):
                codes[integers[place]] = Spelling.LOST


def _true(values: pa.Array) -> npt.NDArray[np.bool_]:
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=bool)


class Evidence:
    """What has been seen of a column: values of each spelling, missing texts, and the first examples of each."""

    def __init__(self, spellings: Spellings) -> None:
        self._spellings = spellings
        self.counts: Counter[Spelling] = Counter()
        self.tokens: Counter[str] = Counter()
        self._examples: dict[Spelling, list[WarningExample]] = {}
        self.signed = False

    def add(self, values: pa.Array, row: int) -> None:
        """Take in the next values (texts; null is empty), of which `row` is the first."""
        coded = pc.dictionary_encode(values)
        present = np.flatnonzero(np.asarray(coded.indices.is_valid().to_numpy(zero_copy_only=False)))
        places = np.asarray(coded.indices.drop_null().to_numpy(zero_copy_only=False))

        def first(which: Places) -> Iterator[tuple[int, int]]:
            found = np.flatnonzero(np.isin(places, which))[:EXAMPLES]
            return zip((row + present[found]).tolist(), places[found].tolist(), strict=True)

        self.weigh(coded.dictionary, np.bincount(places, minlength=len(coded.dictionary)), first)

    def weigh(self, texts: pa.Array, counts: Places, first: First) -> None:
        """Take in different texts with how often they occur; `first` gives the first rows of some of them."""
        trimmed = pc.utf8_trim_whitespace(texts)
        codes = self._spellings.classify(trimmed)
        for code in np.unique(codes).tolist():
            spelling, which = Spelling(code), np.flatnonzero(codes == code)
            self.counts[spelling] += int(counts[which].sum())
            if spelling is Spelling.MISSING:
                tokens = [trimmed[place].as_py() for place in which.tolist()]
                for token, count in zip(tokens, counts[which].tolist(), strict=True):
                    self.tokens[token] += count
                which = which[np.array([token != "" for token in tokens], bool)]
            if spelling in (Spelling.INTEGER, Spelling.LOST) and not self.signed:
                self.signed = bool(pc.any(pc.match_substring_regex(trimmed.take(pa.array(which)), "^[+-]")).as_py())
            shown = self._examples.setdefault(spelling, [])
            if len(which) and len(shown) < EXAMPLES:  # later values are in later rows
                self._illustrate(shown, trimmed, first(which))

    def _illustrate(self, shown: list[WarningExample], texts: pa.Array, rows: Iterable[tuple[int, int]]) -> None:
        shown += [WarningExample(row=row, value=texts[place].as_py()[:SHOWN]) for row, place in rows]
        shown.sort(key=lambda one: one.row)
        del shown[EXAMPLES:]

    def number_of(self, spellings: Collection[Spelling]) -> int:
        """How many values are spelled in one of these ways."""
        return sum(self.counts[spelling] for spelling in spellings)

    @property
    def told_tokens(self) -> list[str]:
        """The texts for missing values that the upload did not name."""
        return [token for token, count in self.tokens.items() if token and count and not self._spellings.stated]

    @property
    def marked(self) -> bool:
        """Whether the upload says how numbers are written."""
        return self._spellings.decimal != "." or self._spellings.thousands is not None

    @property
    def plain_only(self) -> bool:
        """Whether every value is a number."""
        return self.number_of(PLAIN) == self.present

    @property
    def present(self) -> int:
        """Values that are not missing."""
        return self.counts.total() - self.counts[Spelling.MISSING]

    def examples(self, spellings: Collection[Spelling]) -> list[WarningExample]:
        """The first values that are spelled in one of these ways."""
        found = [one for spelling in spellings for one in self._examples.get(spelling, [])]
        return sorted(found, key=lambda one: one.row)[:EXAMPLES]
