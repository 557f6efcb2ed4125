"""Who may use the service: whoever has one of the keys, or everybody when there are none."""

from __future__ import annotations

import hmac

from fastapi import Request

from service.keys import digest
from service.problems import Unauthorized


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
