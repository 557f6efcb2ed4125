"""API keys: random 256-bit strings of which only SHA-256 hashes are stored."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from fastapi import Request

from service.problems import Unauthorized

PREFIX = "gt_"


def create_key() -> tuple[str, str]:
    """A new key and its hash. A fast hash is enough: the key itself cannot be guessed."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, digest(key)


def digest(key: str) -> str:
    """The hash under which a key is stored."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


async def require_key(request: Request) -> None:
    """Raise Unauthorized unless the request carries a known key, or no keys are configured."""
    known: frozenset[str] = request.app.state.settings.key_hashes
    if not known:
        return
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    given = digest(key.strip())
    # every stored hash is compared, in constant time, so that timing tells nothing
    matches = [hmac.compare_digest(given, stored) for stored in known]
    if scheme.lower() != "bearer" or not any(matches):
        detail = "Send `Authorization: Bearer <key>` with a key that this service knows."
        raise Unauthorized(detail, headers={"WWW-Authenticate": "Bearer"})
