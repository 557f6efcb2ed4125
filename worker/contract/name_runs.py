"""The names of the hyperparameters as they are stored: numbered names are short, also 100,000 of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

SHORTEST_RUN = 3  # names
MOST_BYTES = 64 * 1024  # of the names of one job
_LAST_NUMBER = re.compile(r"(.*?)(0|[1-9][0-9]{0,11})([^0-9]*)", re.DOTALL)


def encode_names(names: Iterable[str]) -> bytes:
    """The names in order as JSON; empty if that takes more than `MOST_BYTES`.

    `["penalty[x", 0, 99, "]"]` stands for `penalty[x0]`, `penalty[x1]`, ..., `penalty[x99]`.
    """
    items: list[Any] = []
    least = 2  # bytes that the items take at least
    for item in _items(names):
        least += 1 + (len(item) if isinstance(item, str) else 0)
        if least > MOST_BYTES:
            return b""
        items.append(item)
    encoded = orjson.dumps(items)
    return encoded if len(encoded) <= MOST_BYTES else b""


def decode_names(encoded: bytes) -> list[str]:
    """The names of which `encode_names` made these bytes."""
    names: list[str] = []
    for item in orjson.loads(encoded):
        if isinstance(item, str):
            names.append(item)
        else:
            prefix, first, last, suffix = item
            names += [f"{prefix}{number}{suffix}" for number in range(first, last + 1)]
    return names


def _items(names: Iterable[str]) -> Iterator[Any]:
    """Names and runs of names."""
    prefix, first, last, suffix = "", 0, -1, ""  # the run that the names before belong to; empty: none
    following = None  # the name that would continue the run
    for name in names:
        if name == following:
            last += 1
        else:
            yield from _written(prefix, first, last, suffix)
            first, last, following = 0, -1, None
            match = _LAST_NUMBER.fullmatch(name)
            if match is None:
                yield name
                continue
            prefix, suffix = match[1], match[3]
            first = last = int(match[2])
        following = f"{prefix}{last + 1}{suffix}"
    yield from _written(prefix, first, last, suffix)


def _written(prefix: str, first: int, last: int, suffix: str) -> list[Any]:
    """A run as one item, or as its names if they are few."""
    if last - first + 1 >= SHORTEST_RUN:
        return [[prefix, first, last, suffix]]
    return [f"{prefix}{number}{suffix}" for number in range(first, last + 1)]
