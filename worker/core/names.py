"""Many different names in order, of which numbered ones are kept as numbers: millions of them take no object each."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol, overload, runtime_checkable

import numpy as np
from jaxtyping import Int

from worker.core.records import Array

AT_ONCE = 65_536  # numbers that are objects at the same time while names are gone through
FEW = 16  # parts of one prefix that are looked through one by one
_NUMBERED = re.compile(r"(.*?)(0|[1-9][0-9]{0,11})", re.DOTALL)


def split_number(name: str) -> tuple[str, int] | None:
    """The shortest prefix and the number of a name that ends with a number without leading zeros; None for others."""
    match = _NUMBERED.fullmatch(name)
    return (match[1], int(match[2])) if match else None


@dataclass(slots=True)
class _Index:
    """Where names stand in a list: each plain name, and for each prefix its numbered parts with their first places."""

    plain: dict[str, int] = field(default_factory=dict)
    numbered: dict[str, list[tuple[Numbered, int | Array]]] = field(default_factory=lambda: defaultdict(list))


@runtime_checkable
class Part(Protocol):
    """Some names of a list, all different."""

    def __len__(self) -> int:
        """Number of names."""

    def __iter__(self) -> Iterator[str]:
        """The names in order."""

    def name(self, i: int) -> str:
        """Name number `i`."""

    def without(self, places: Int[Array, " d"]) -> list[Part]:
        """The names at the other places, in the same order."""

    def enter(self, index: _Index, begin: int) -> None:
        """Add the names to an index of a list in which they stand from place `begin` on."""


@dataclass(frozen=True, eq=False)
class Plain:
    """Names that are kept as they are."""

    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def name(self, i: int) -> str:
        """Name number `i`."""
        return self.names[i]

    def without(self, places: Int[Array, " d"]) -> list[Part]:
        """The names at the other places, in the same order."""
        gone = frozenset(places.tolist())
        return [Plain(tuple(name for i, name in enumerate(self.names) if i not in gone))]

    def enter(self, index: _Index, begin: int) -> None:
        """Add each name to an index."""
        index.plain.update(zip(self.names, range(begin, begin + len(self.names)), strict=True))


@dataclass(frozen=True, eq=False)
class Numbered:
    """The names `prefix` + number, in the order of the `numbers`: a range with step 1, or an array without repeats.

    `split_number` of each name gives its prefix and number.
    """

    prefix: str
    numbers: range | Int[Array, " q"]

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[str]:
        for begin in range(0, len(self), AT_ONCE):
            part = self.numbers[begin : begin + AT_ONCE]
            for number in part if isinstance(part, range) else part.tolist():
                yield f"{self.prefix}{number}"

    def name(self, i: int) -> str:
        """Name number `i`."""
        return f"{self.prefix}{self.numbers[i]}"

    def places(self, wanted: Int[Array, " m"]) -> Int[Array, " m"]:
        """Where these numbers stand; -1 for those that are not there."""
        if isinstance(self.numbers, range):
            inside = (wanted >= self.numbers.start) & (wanted < self.numbers.stop)
            return np.where(inside, wanted - self.numbers.start, -1)
        order = self._order
        place = np.minimum(np.searchsorted(self.numbers, wanted, sorter=order), len(self) - 1)
        place = place if order is None else order[place]
        return np.where(self.numbers[place] == wanted, place, -1)

    def has(self, number: int) -> bool:
        """Whether it is among the numbers."""
        return number in self.numbers if isinstance(self.numbers, range) else self.places(np.array([number]))[0] >= 0

    @cached_property
    def _order(self) -> Array | None:
        """The order in which the numbers ascend; None if they do."""
        return None if (np.diff(self.numbers) > 0).all() else np.argsort(self.numbers)

    def enter(self, index: _Index, begin: int) -> None:
        """Add all names to an index as one part."""
        index.numbered[self.prefix].append((self, begin))

    def without(self, places: Int[Array, " d"]) -> list[Part]:
        """The names at the other places, in the same order; a range in pieces."""
        if not isinstance(self.numbers, range):
            return [Numbered(self.prefix, np.delete(self.numbers, places))]
        edges = [-1, *np.sort(places).tolist(), len(self)]
        return [Numbered(self.prefix, self.numbers[a + 1 : b]) for a, b in pairwise(edges)]


class NameList(Sequence[str]):
    """Names, all different, given in parts."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, parts: Iterable[Part]) -> None:
        self.parts = tuple(part for part in parts if len(part))
        self._begins = [0]
        for part in self.parts:
            self._begins.append(self._begins[-1] + len(part))

    @classmethod
    def of(cls, names: Sequence[str]) -> NameList:
        """The list of these names. Callers that have few give a tuple, which is taken as it is."""
        return names if isinstance(names, NameList) else cls((Plain(tuple(names)),))

    def __len__(self) -> int:
        return self._begins[-1]

    @overload
    def __getitem__(self, i: int) -> str: ...

    @overload
    def __getitem__(self, i: slice) -> tuple[str, ...]: ...

    def __getitem__(self, i: int | slice) -> str | tuple[str, ...]:
        if isinstance(i, slice):
            return tuple(self[j] for j in range(*i.indices(len(self))))
        place = int(i) + (len(self) if i < 0 else 0)
        if not 0 <= place < len(self):
            raise IndexError(i)
        which = int(np.searchsorted(self._begins, place, side="right")) - 1
        return self.parts[which].name(place - self._begins[which])

    def __iter__(self) -> Iterator[str]:
        for part in self.parts:
            yield from part

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str) or name in self._index.plain:
            return isinstance(name, str)
        split = split_number(name)
        return split is not None and any(part.has(split[1]) for part, _ in self._index.numbered.get(split[0], ()))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, tuple | NameList):
            return NotImplemented
        return self is other or (len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True)))

    def index(self, name: str, *_: Any) -> int:
        """The place of a name. Raises ValueError if it is not there."""
        place = int(self.places((name,))[0])
        if place < 0:
            raise ValueError(f"{name!r} is not in the list")
        return place

    def places(self, wanted: Sequence[str]) -> Int[Array, " m"]:
        """Where the wanted names stand; -1 for those that are not there."""
        plain, numbered = self._index.plain, self._index.numbered
        found = np.array([plain.get(name, -1) for name in wanted], int)
        asked: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for i in np.flatnonzero(found < 0).tolist() if numbered else ():
            split = split_number(wanted[i])
            if split is not None and split[0] in numbered:
                asked[split[0]].append((i, split[1]))
        for prefix, pairs in asked.items():
            rows, numbers = np.array(pairs).T
            for part, where in numbered[prefix]:
                place = part.places(numbers)
                there = place >= 0
                found[rows[there]] = where[place[there]] if isinstance(where, np.ndarray) else where + place[there]
        return found

    @cached_property
    def _index(self) -> _Index:
        """Where the names stand; many numbered parts of one prefix as one, with all places."""
        index = _Index()
        for part, begin in zip(self.parts, self._begins, strict=False):
            part.enter(index, begin)
        for prefix, several in index.numbered.items():
            if len(several) > FEW:
                numbers = np.concatenate([np.asarray(part.numbers) for part, _ in several])
                places = np.concatenate([np.arange(len(part)) + begin for part, begin in several])
                index.numbered[prefix] = [(Numbered(prefix, numbers), places)]
        return index

    def without(self, dropped: Collection[str]) -> NameList:
        """The other names, in the same order."""
        gone = self.places(tuple(dropped))
        kept: list[Part] = []
        for part, begin in zip(self.parts, self._begins, strict=False):
            places = gone[(gone >= begin) & (gone < begin + len(part))] - begin
            kept += part.without(places) if len(places) else [part]
        return NameList(kept)


def places(known: Sequence[str], wanted: Sequence[str]) -> Int[Array, " m"]:
    """Where the wanted names stand among the known ones; -1 for those that do not."""
    return NameList.of(known).places(wanted)


def without(names: Sequence[str], dropped: Collection[str]) -> Sequence[str]:
    """The names but those that are dropped, in the same order."""
    return NameList.of(names).without(dropped) if dropped else names
