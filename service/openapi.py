"""The OpenAPI document as it is committed: `python -m service.openapi > openapi.json`."""

from __future__ import annotations

import json

from service.app import create_app
from service.settings import Settings


def document() -> str:
    """The document as text, the same on every machine."""
    return json.dumps(create_app(Settings()).openapi(), indent=2) + "\n"


if __name__ == "__main__":
    print(document(), end="")
