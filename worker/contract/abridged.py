"""A spec as replies show it: a hash stands for each long list, such as the fold of each row."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

MOST_SHOWN_BYTES = 10_000  # of the JSON of a list or of an object with more than `MOST_OWN_MEMBERS`
MOST_OWN_MEMBERS = 100  # no object of the contract itself has more members


def abridge(value: Any) -> Any:
    """The value with `{"items", "sha256"}` in place of long lists. The hash is that of the list as compact JSON."""
    if isinstance(value, list | tuple) or (isinstance(value, dict) and len(value) > MOST_OWN_MEMBERS):
        written = orjson.dumps(value)
        if len(written) > MOST_SHOWN_BYTES:
            return {"items": len(value), "sha256": hashlib.sha256(written).hexdigest()}
        return value
    if isinstance(value, dict):
        return {name: abridge(member) for name, member in value.items()}
    return value
