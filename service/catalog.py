"""The catalog: read off the unions that are the registry, so that a new algorithm appears here by itself."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from pydantic import TypeAdapter

from worker.contract import wire  # noqa: F401 - gives the families their meaning on the wire
from worker.core.family import kind_of, members
from worker.core.hypergradient import Hypergradient
from worker.core.outer import Outer
from worker.core.penalties import Penalty
from worker.core.selection import Selection
from worker.core.training import Training

FAMILIES: dict[str, Any] = {
    "training": Training,
    "penalty": Penalty,
    "selection": Selection,
    "hypergradient": Hypergradient,
    "outer": Outer,
}


@functools.cache
def catalog() -> dict[str, list[dict[str, Any]]]:
    """Every algorithm of every family: its kind, help and settings."""
    return {name: [_entry(member) for member in members(family)] for name, family in FAMILIES.items()}


def _entry(member: type) -> dict[str, Any]:
    schema = TypeAdapter(member).json_schema()
    schema["required"] = sorted({"kind", *schema.get("required", ())})
    return {"kind": kind_of(member), "help": inspect.getdoc(member) or "", "json_schema": schema}
