"""A spec as replies show it: long lists, such as the fold of each row, by what identifies them."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

LONG = 10_000  # bytes of JSON from which on a list, or an object of as many members as a caller likes, is not repeated
FIELDS = 100  # members that no object of the contract itself has


def abridge(value: Any) -> Any:
    """The value with `{"items", "sha256"}` in place of long lists; the hash is that of the list as compact JSON."""
    if isinstance(value, list | tuple) or (isinstance(value, dict) and len(value) > FIELDS):
        written = orjson.dumps(value)
        if len(written) > LONG:
            return {"items": len(value), "sha256": hashlib.sha256(written).hexdigest()}
        return value
    if isinstance(value, dict):
        return {name: abridge(member) for name, member in value.items()}
    return value
