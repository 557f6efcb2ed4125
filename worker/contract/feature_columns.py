"""The columns of a job on a dataset and the features that each becomes. Numbered columns take no object each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

import numpy as np

from worker.contract.patterns import Pattern, Texts
from worker.core.names import NameList, Numbered, Plain
from worker.core.records import Array

Group = tuple[str, tuple[str, ...]]


class FeatureColumns(Mapping[str, tuple[str, ...]]):
    """The features of each column, in the order of the job. Numbered columns are each a feature of the same name."""

    def __init__(self, groups: Iterable[Group | Numbered]) -> None:
        self.parts: list[dict[str, tuple[str, ...]] | Numbered] = []
        for group in groups:
            if isinstance(group, Numbered):
                self.parts.append(group)
                continue
            if not self.parts or isinstance(self.parts[-1], Numbered):
                self.parts.append({})
            part, (column, names) = self.parts[-1], group
            assert isinstance(part, dict)
            part[column] = part.get(column, ()) + names

    @cached_property
    def features(self) -> NameList:
        """Names of all features."""
        return NameList(
            part if isinstance(part, Numbered) else Plain(tuple(name for made in part.values() for name in made))
            for part in self.parts
        )

    @cached_property
    def names(self) -> NameList:
        """Names of the columns."""
        return NameList(part if isinstance(part, Numbered) else Plain(tuple(part)) for part in self.parts)

    @cached_property
    def dense(self) -> dict[str, tuple[str, ...]]:
        """The columns that are not numbered."""
        return {name: made for part in self.parts if isinstance(part, dict) for name, made in part.items()}

    @cached_property
    def texts(self) -> Texts:
        """The names of the columns that are not numbered."""
        return Texts(list(self.dense))

    def matching(self, text: str) -> list[tuple[str, ...] | Numbered]:
        """The features of the columns whose names match a pattern, in their order."""
        pattern = Pattern(text)
        found: list[tuple[str, ...] | Numbered] = []
        names, met = self.texts.texts, set(pattern.among(self.texts).tolist())
        begin = 0
        for part in self.parts:
            if isinstance(part, Numbered):
                found.append(Numbered(part.prefix, _numbers(part)[_matches(pattern, part)]))
                continue
            columns = [names[i] for i in range(begin, begin + len(part)) if i in met]
            found.append(tuple(name for column in columns for name in part[column]))
            begin += len(part)
        return [part for part in found if len(part)]

    def __getitem__(self, name: str) -> tuple[str, ...]:
        if name in self.dense:
            return self.dense[name]
        if name in self.names:
            return (name,)
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _numbers(part: Numbered) -> Array:
    return np.asarray(part.numbers)


def _matches(pattern: Pattern, part: Numbered) -> Array:
    """A mask of the names that match."""
    numbers = _numbers(part)
    low, high = int(numbers.min()), int(numbers.max())
    met: Array = pattern.numbered(part.prefix, low, high - low + 1)[numbers - low]
    return met
