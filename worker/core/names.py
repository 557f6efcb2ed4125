"""Many different names in order, of which numbered ones are kept as numbers: millions of them take no object each."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, overload

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

    def without(self, places: Int[Array, " d"]) -> list[Numbered]:
        """The other names, in the same order; a range in pieces."""
        if not isinstance(self.numbers, range):
            return [Numbered(self.prefix, np.delete(self.numbers, places))]
        edges = [-1, *np.sort(places).tolist(), len(self)]
        return [Numbered(self.prefix, self.numbers[a + 1 : b]) for a, b in pairwise(edges)]


class NameList(Sequence[str]):
    """Names, all different, given in parts: tuples of names, and numbered ones."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, parts: Iterable[tuple[str, ...] | Numbered]) -> None:
        self.parts = tuple(part for part in parts if len(part))
        self._begins = [0]
        for part in self.parts:
            self._begins.append(self._begins[-1] + len(part))

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
        part, place = self.parts[which], place - self._begins[which]
        return part[place] if isinstance(part, tuple) else part.name(place)

    def __iter__(self) -> Iterator[str]:
        for part in self.parts:
            yield from part

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str) or name in self._plain:
            return isinstance(name, str)
        split = split_number(name)
        return split is not None and any(part.has(split[1]) for part, _ in self._numbered.get(split[0], ()))

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
        found = np.array([self._plain.get(name, -1) for name in wanted], int)
        asked: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for i in np.flatnonzero(found < 0).tolist():
            split = split_number(wanted[i])
            if split is not None and split[0] in self._numbered:
                asked[split[0]].append((i, split[1]))
        for prefix, pairs in asked.items():
            rows, numbers = np.array(pairs).T
            for part, where in self._numbered[prefix]:
                place = part.places(numbers)
                there = place >= 0
                found[rows[there]] = where[place[there]] if isinstance(where, np.ndarray) else where + place[there]
        return found

    @cached_property
    def _plain(self) -> dict[str, int]:
        pairs = zip(self.parts, self._begins, strict=False)
        return {name: begin + i for part, begin in pairs if isinstance(part, tuple) for i, name in enumerate(part)}

    @cached_property
    def _numbered(self) -> dict[str, list[tuple[Numbered, int | Array]]]:
        """The numbered parts of each prefix with the place of their first name; many parts as one, with all places."""
        parts: dict[str, list[tuple[Numbered, int | Array]]] = defaultdict(list)
        for part, begin in zip(self.parts, self._begins, strict=False):
            if isinstance(part, Numbered):
                parts[part.prefix].append((part, begin))
        for prefix, several in parts.items():
            if len(several) > FEW:
                numbers = np.concatenate([np.asarray(part.numbers) for part, _ in several])
                places = np.concatenate([np.arange(len(part)) + begin for part, begin in several])
                parts[prefix] = [(Numbered(prefix, numbers), places)]
        return dict(parts)

    def without(self, dropped: Collection[str]) -> NameList:
        """The other names, in the same order."""
        gone = self.places(tuple(dropped))
        kept: list[tuple[str, ...] | Numbered] = []
        for part, begin in zip(self.parts, self._begins, strict=False):
            places = gone[(gone >= begin) & (gone < begin + len(part))] - begin
            if isinstance(part, Numbered):
                kept += part.without(places) if len(places) else [part]
            else:
                kept.append(tuple(name for name in part if name not in dropped))
        return NameList(kept)


def places(known: Sequence[str], wanted: Sequence[str]) -> Int[Array, " m"]:
    """Where the wanted names stand among the known ones; -1 for those that do not."""
    if isinstance(known, NameList):
        return known.places(wanted)
    of_name = {name: i for i, name in enumerate(known)}
    return np.array([of_name.get(name, -1) for name in wanted], int)


def without(names: Sequence[str], dropped: Collection[str]) -> Sequence[str]:
    """The names but those that are dropped, in the same order."""
    if not dropped:
        return names
    gone = frozenset(dropped)
    return names.without(gone) if isinstance(names, NameList) else tuple(name for name in names if name not in gone)
