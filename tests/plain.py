"""Plain tuning: a request in which no like hyperparameters have a hyper-prior."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from service.catalog import FAMILIES
from worker.core.family import kind_of, members

PARTS = ("penalty", "widths")  # of training and of kernels
ALIKE = {
    kind_of(member)
    for part in PARTS
    for member in members(FAMILIES[part])
    if "spread" in {field.name for field in fields(member)}
}


def plain(request: dict[str, Any]) -> dict[str, Any]:
    """The same with `spread` null wherever it applies and is not given."""
    training = request.get("training")
    return {**request, "training": _plain(training)} if isinstance(training, dict) else request


def _plain(part: Any) -> Any:
    if isinstance(part, list):
        return [_plain(one) for one in part]
    if not isinstance(part, dict):
        return part
    return {name: _without(value) if name in PARTS else _plain(value) for name, value in part.items()}


def _without(part: Any) -> Any:
    """A penalty or widths, of the name alone or with settings."""
    if isinstance(part, str) and part in ALIKE:
        return {"kind": part, "spread": None}
    if isinstance(part, dict) and part.get("kind") in ALIKE:
        return {"spread": None, **part}
    return part
