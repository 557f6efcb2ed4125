"""API keys: random 256-bit strings of which only SHA-256 hashes are stored."""

from __future__ import annotations

import hashlib
import secrets

PREFIX = "gt_"


def create_key() -> tuple[str, str]:
    """A new key and its hash. A fast hash is enough: the key itself cannot be guessed."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, digest(key)


def digest(key: str) -> str:
    """The hash under which a key is stored."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
