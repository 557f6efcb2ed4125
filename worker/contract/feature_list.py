"""The features of a job on a dataset in its description: short, also for 100,000 numbered columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.contract.feature_columns import FeatureColumns
from worker.core.names import Numbered, split_number

SHORTEST_RUN = 3  # names; shorter runs are written name by name
MOST_PIECES = 50_000  # items of the list


@dataclass(slots=True)
class _Run:
    """Neighbouring columns with the names `prefix` + number, from `first` to `last`."""

    prefix: str
    first: int
    last: int

    def written(self) -> list[Any]:
        names = [f"{self.prefix}{n}" for n in range(self.first, min(self.last, self.first + SHORTEST_RUN - 1) + 1)]
        return names if len(names) < SHORTEST_RUN else [{"from": names[0], "to": f"{self.prefix}{self.last}"}]


def write_features(columns: FeatureColumns) -> list[Any]:
    """Columns and their features: `"age"`, `{"column": "month", "features": [...]}`, `{"from": "w1", "to": "w9"}`."""
    items: list[Any] = []
    run: _Run | None = None
    for piece in _pieces(columns):
        if isinstance(piece, _Run) and run is not None and (run.prefix, run.last + 1) == (piece.prefix, piece.first):
            run.last = piece.last
            continue
        items += run.written() if run is not None else []
        run = piece if isinstance(piece, _Run) else None
        if not isinstance(piece, _Run):
            items.append(piece)
    return items + (run.written() if run is not None else [])


def _pieces(columns: FeatureColumns) -> Iterator[_Run | Any]:
    for part in columns.parts:
        if isinstance(part, Numbered):
            yield from _runs(part)
            continue
        for column, names in part.items():
            if names != (column,):
                yield {"column": column, "features": list(names)}
            elif (split := split_number(column)) is not None:
                yield _Run(split[0], split[1], split[1])
            else:
                yield column


def _runs(part: Numbered) -> Iterator[_Run]:
    numbers = part.numbers
    if isinstance(numbers, range):
        yield _Run(part.prefix, numbers.start, numbers.stop - 1)
        return
    edges = _edges(part)
    for begin, end in zip([0, *edges], [*edges, len(numbers)], strict=True):
        yield _Run(part.prefix, int(numbers[begin]), int(numbers[end - 1]))


def _edges(part: Numbered) -> list[int]:
    """The positions of the numbers that do not follow the number before them."""
    return [] if isinstance(part.numbers, range) else (np.flatnonzero(np.diff(part.numbers) != 1) + 1).tolist()


def pieces(columns: FeatureColumns) -> int:
    """About how many items the list has at most."""
    return sum(len(_edges(part)) + 1 if isinstance(part, Numbered) else len(part) for part in columns.parts)


def read_features(items: list[Any]) -> FeatureColumns:
    """The features of each column, in the order of the job."""
    return FeatureColumns(_read(item) for item in items)


def _read(item: Any) -> tuple[str, tuple[str, ...]] | Numbered:
    if isinstance(item, str):
        return item, (item,)
    if "column" in item:
        return item["column"], tuple(item["features"])
    first, last = split_number(item["from"]), split_number(item["to"])
    assert first is not None
    assert last is not None
    return Numbered(first[0], range(first[1], last[1] + 1))
