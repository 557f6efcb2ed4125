"""Patterns of names (`*`, `?`, `[...]`), matched to many names at once in time linear in their characters.

A pattern is a sequence of marks with stars between them. Bit i of a word says that the first i marks have been met (the
Shift-And method, Baeza-Yates and Gonnet 1992), so each character is read once, however many stars there are. Case
matters; the rest is as in Python's `fnmatch`.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from worker.contract.faults import Fault
from worker.core.records import Array

MOST_PATTERNS = 100  # of a request
MOST_MARKS = 60  # of a pattern, less the letters before its first and after its last `*`, `?` or `[`
MOST_CHARACTERS = 20_000_000  # of dense names times patterns; numbered names cost next to nothing
ONE = np.uint64(1)
LOW = 1000  # numbers that share their leading digits


def is_pattern(text: str) -> bool:
    """Whether a text is a pattern, which may match several names."""
    return "*" in text or "?" in text or "[" in text


def pattern_faults(patterns: Sequence[tuple[str, str]], names: Texts) -> Iterator[Fault]:
    """Faults of patterns that take too long to compare with these names. Each pattern has its pointer."""
    if len(patterns) > MOST_PATTERNS:
        detail = (
            f"A job may have {MOST_PATTERNS} patterns here, and this one has {len(patterns)}; name columns, or use "
        )
        yield Fault(patterns[MOST_PATTERNS][0], "too_many_patterns", f"{detail}patterns that match more.")
    elif len(patterns) * names.characters > MOST_CHARACTERS:
        most = MOST_CHARACTERS // names.characters
        detail = (
            f"{len(patterns)} patterns are too many for columns whose names have {names.characters} characters in all"
        )
        yield Fault(patterns[most][0], "too_many_patterns", f"{detail}; use {most}, or shorter names.")
    for pointer, text in patterns[:MOST_PATTERNS]:
        if Pattern(text).is_long:
            detail = f"A pattern may have {MOST_MARKS} characters between its first and its last `*`, `?` or `[`"
            yield Fault(pointer, "long_pattern", f"{detail}; shorten it by `*`.")
            return


@dataclass(frozen=True, slots=True)
class _Mark:
    """One character of a name: in one of the ranges of code points, or in none of them."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False

    @property
    def letter(self) -> str:
        """The only character that meets the mark; empty if there are several."""
        return chr(self.ranges[0][0]) if not self.negated and _is_one(self.ranges) else ""


def _is_one(ranges: tuple[tuple[int, int], ...]) -> bool:
    return len(ranges) == 1 and ranges[0][0] == ranges[0][1]


class Texts:
    """m names as code points of their characters (m x longest), the longest first. `order` holds their positions."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        lengths = np.array([len(text) for text in texts], int)
        longest = int(lengths.max(initial=0))
        self.order = np.argsort(-lengths, kind="stable")
        every = np.array(texts, f"U{max(longest, 1)}").view(np.uint32).reshape(len(texts), max(longest, 1))
        self.codes = every[self.order, :longest]
        reach = np.searchsorted(-lengths[self.order], -np.arange(longest), side="left")
        self.reach: list[int] = reach.tolist()  # names that have more than t characters

    @property
    def characters(self) -> int:
        """Of all names."""
        return sum(self.reach)


class Pattern:
    """A pattern: its marks, and before which of them (or behind the last) any characters may stand."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.marks, self._stars = _read(text)
        letters = [mark.letter for mark in self.marks]
        first = min([*self._stars, *(i for i, letter in enumerate(letters) if not letter), len(letters)])
        last = max([*self._stars, *(i + 1 for i, letter in enumerate(letters) if not letter), first])
        self._prefix, self._suffix = "".join(letters[:first]), "".join(letters[last:])
        self._inner = self.marks[first:last]
        self._inner_stars = {star - first for star in self._stars}

    @property
    def is_long(self) -> bool:
        """Whether the pattern has too many marks for linear time. Only jobs of older versions have such patterns."""
        return len(self._inner) > MOST_MARKS

    def among(self, names: Texts) -> Array:
        """Positions of the names that match, ascending."""
        if len(self.marks) <= MOST_MARKS:
            machine = _Machine(self.marks, self._stars)
            return np.flatnonzero(machine.accepted(machine.after(machine.begin(len(names.texts)), names)))
        return self._among_long(names.texts)

    def _among_long(self, names: Sequence[str]) -> Array:
        """The same for more marks than a word has bits: letters at both ends are compared first."""
        prefix, suffix, least = self._prefix, self._suffix, len(self.marks)
        longer = [i for i, name in enumerate(names) if len(name) >= least]
        some = [i for i in longer if names[i].startswith(prefix) and names[i].endswith(suffix)]
        if self.is_long:
            match = re.compile(fnmatch.translate(self._text)).match
            return np.array([i for i in some if match(names[i])], int)
        inner = [names[i][len(prefix) : len(names[i]) - len(suffix)] for i in some]
        machine = _Machine(self._inner, self._inner_stars)
        met = machine.accepted(machine.after(machine.begin(len(inner)), Texts(inner)))
        among: Array = np.array(some, int)[met]
        return among

    def numbered(self, prefix: str, first: int, count: int) -> Array:
        """Which of the names `prefix` + number match, for `count` numbers from `first` on (a mask).

        Numbers with the same leading digits go on together, and those whose leading digits leave the same marks met.
        """
        if len(self.marks) > MOST_MARKS:  # more than there are characters in such a name
            return np.zeros(count, bool)
        machine = _Machine(self.marks, self._stars)
        start = machine.after(machine.begin(1), Texts([prefix]))
        stop = first + count
        low = machine.accepted(machine.after(np.repeat(start, LOW), _written(0, LOW)))
        if stop <= LOW:
            return low[first:stop]
        leading = _written(1, -(-stop // LOW))
        words = machine.after(np.repeat(start, len(leading.texts)), leading)
        states, which = np.unique(words, return_inverse=True)
        digits = _written(0, LOW, 3)
        ends = [machine.accepted(machine.after(np.repeat(state, LOW), digits)) for state in states]
        return np.concatenate([low, np.array(ends)[which].ravel()])[first:stop]


@lru_cache(8)
def _written(first: int, stop: int, digits: int = 1) -> Texts:
    """The numbers of a range, with zeros in front for fewer digits."""
    return Texts([f"{number:0{digits}}" for number in range(first, stop)])


class _Machine:
    """Reads many names at once, character by character."""

    def __init__(self, marks: Sequence[_Mark], stars: set[int]) -> None:
        self._marks = marks
        self._loops = np.uint64(sum(1 << star for star in stars))
        self._end = np.uint64(len(marks))

    def begin(self, m: int) -> Array:
        """The words of m names of which nothing has been read."""
        return np.ones(m, np.uint64)

    def after(self, words: Array, names: Texts) -> Array:
        """The words (m) after each name has been read, too."""
        if not names.codes.size:
            return words
        table = self._table(int(names.codes.max()))
        ordered = words[names.order]
        for t, m in enumerate(names.reach):
            word = ordered[:m]
            ordered[:m] = (word & self._loops) | ((word & table[names.codes[:m, t]]) << ONE)
        after = np.empty_like(words)
        after[names.order] = ordered
        return after

    def _table(self, largest: int) -> Array:
        """Of each character up to the largest code point: the marks that it meets, a bit each."""
        table = np.zeros(largest + 1, np.uint64)
        for i, mark in enumerate(self._marks):
            bit = np.uint64(1 << i)
            met = np.zeros(largest + 1, bool)
            for low, high in mark.ranges:
                met[low : high + 1] = True
            table[met ^ mark.negated] |= bit
        return table

    def accepted(self, words: Array) -> Array:
        """Whether all marks are met, and nothing is left."""
        met: Array = (words >> self._end & ONE).astype(bool)
        return met


def _read(text: str) -> tuple[list[_Mark], set[int]]:
    """The marks of a pattern, and the positions of the marks that follow a star."""
    marks: list[_Mark] = []
    stars: set[int] = set()
    i = 0
    while i < len(text):
        letter, i = text[i], i + 1
        end = _end_of_set(text, i) if letter == "[" else -1
        if letter == "*":
            stars.add(len(marks))
        elif letter == "?":
            marks.append(_Mark((), negated=True))
        elif end >= 0:
            marks.append(_set(text[i:end]))
            i = end + 1
        else:
            marks.append(_Mark(((ord(letter), ord(letter)),)))
    return marks, stars


def _end_of_set(text: str, i: int) -> int:
    """The position of the `]` that closes a set, or -1. The first character of a set can be `]`."""
    i += text.startswith("!", i)
    return text.find("]", i + text.startswith("]", i))


def _set(text: str) -> _Mark:
    """What stands between brackets: characters and ranges, or after `!` all others."""
    negated = text.startswith("!")
    text = text[negated:]
    ranges: list[tuple[int, int]] = []
    i = 0
    while i < len(text):
        wide = i + 2 < len(text) and text[i + 1] == "-"
        ranges.append((ord(text[i]), ord(text[i + 2 if wide else i])))
        i += 3 if wide else 1
    return _Mark(tuple(pair for pair in ranges if pair[0] <= pair[1]), negated)
