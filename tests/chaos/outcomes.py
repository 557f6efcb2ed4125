"""What a job must come to: the result and the trajectory of the same spec when nothing disturbed it."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

NOT_NUMBERS = ("job_id", "timing")  # of a result: all the rest must be the same to the last bit


def canonical(document: Any) -> str:
    """One text for each value: floats as their shortest exact decimal, so equal texts are equal bits."""
    return json.dumps(document, sort_keys=True)


def numbers(result: dict[str, Any]) -> str:
    return canonical({name: value for name, value in result.items() if name not in NOT_NUMBERS})


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Reference:
    """The undisturbed run of a template."""

    status: str
    stop_reason: str | None
    result: str
    steps: list[str]
    evaluations: int
    seconds: float
