"""The hyperparameters of a stored result, page by page.

A result can have 100,000 of them, 20 MB of JSON. Their bytes are cut out and passed on; only what is sorted by is read,
a part at a time, since whoever parses JSON lets no other thread run meanwhile.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any

import orjson

PART = 1000  # hyperparameters that are parsed together
SORTS = ("name", "value", "initial", "gradient")
OPEN = b'{"name":'
BEGIN, BETWEEN, END = b'"hyperparameters":[' + OPEN, b"}," + OPEN, b'}],"'


def hyperparameters_of(document: bytes) -> list[bytes]:
    """What each is as JSON after `{"name":` and before `}`, in the order of a step's values."""
    begin = document.find(BEGIN)
    end = document.find(END, begin)
    if begin < 0 or end < 0:  # none, or not as this version writes it
        items = orjson.loads(document)["hyperparameters"]
        named = ({"name": item["name"]} | item for item in items)
        return [orjson.dumps(item)[len(OPEN) : -1] for item in named]
    # None of these marks is inside of a text, where quotes are escaped.
    return document[begin + len(BEGIN) : end].split(BETWEEN)


def order(items: Sequence[bytes], sort: str | None) -> Sequence[int]:
    """Their places by a field, a gradient by its magnitude; descending with `-` before it; ties stay in their order."""
    if sort is None:
        return range(len(items))
    name = sort.removeprefix("-")
    keys: list[Any] = []
    for at in range(0, len(items), PART):
        part = orjson.loads(b"[" + OPEN + BETWEEN.join(items[at : at + PART]) + b"}]")
        keys += [item[name] for item in part]
    if name == "gradient":
        keys = [abs(key) for key in keys]
    return sorted(range(len(items)), key=keys.__getitem__, reverse=sort.startswith("-"))


def cut(items: Sequence[bytes], places: Sequence[int], limit: int, most_bytes: int) -> list[bytes]:
    """Up to `limit` items as JSON, those at the first of the places, of `most_bytes` at most; one always fits."""
    taken: list[bytes] = []
    for place in places[:limit]:
        item = OPEN + items[place] + b"}"
        most_bytes -= len(item)
        if most_bytes < 0 and taken:
            break
        taken.append(item)
    return taken


def encode_place(sort: str | None, first: int) -> str:
    """Make the cursor of the page that begins with item `first`."""
    return base64.urlsafe_b64encode(f"{first}:{sort or ''}".encode()).decode().rstrip("=")


def decode_place(cursor: str, sort: str | None) -> int:
    """The first item of the page. Raises ValueError for a cursor that is not one of this order."""
    text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    found = re.fullmatch(r"([0-9]{1,9}):(.*)", text)
    if found is None or found[2] != (sort or ""):
        raise ValueError("this cursor is not one of this order")
    return int(found[1])
