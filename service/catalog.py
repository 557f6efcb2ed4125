"""The catalog: read off the unions that are the registry, so that a new algorithm appears here by itself."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from pydantic import create_model

from worker.contract.wire import Wire
from worker.core.family import kind_of, members
from worker.core.hypergradient import Hypergradient
from worker.core.kernels import Kernel, Widths
from worker.core.losses import Score
from worker.core.outer import Outer
from worker.core.penalties import ClassPenalty, Form
from worker.core.selection import Selection
from worker.core.training import Training
from worker.core.weights import ExampleWeights

FAMILIES: dict[str, Any] = {
    "training": Training,
    "penalty": ClassPenalty,
    "form": Form,
    "weights": ExampleWeights,
    "kernel": Kernel,
    "widths": Widths,
    "selection": Selection,
    "loss": Score,
    "hypergradient": Hypergradient,
    "outer": Outer,
}


@functools.cache
def catalog() -> dict[str, list[dict[str, Any]]]:
    """Every algorithm of every family: its kind, help and settings."""
    return {name: [_entry(member) for member in members(family)] for name, family in FAMILIES.items()}


def _entry(member: type) -> dict[str, Any]:
    # as a part of a spec, since a dataclass by itself does not refuse unknown fields
    definitions = create_model("Part", __base__=Wire, part=(member, ...)).model_json_schema()["$defs"]
    require_kinds(definitions)
    schema = definitions.pop(member.__name__)
    if definitions:
        schema["$defs"] = definitions
    return {"kind": kind_of(member), "help": inspect.getdoc(member) or "", "json_schema": schema}


def require_kinds(definitions: dict[str, Any]) -> None:
    """Say in JSON schemas that `kind` is required: it has a default in Python, and tells members apart on the wire."""
    for schema in definitions.values():
        if "const" in schema.get("properties", {}).get("kind", {}):
            schema["required"] = sorted({"kind", *schema.get("required", ())})
