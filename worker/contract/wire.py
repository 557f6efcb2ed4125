"""What all records of the contract have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from worker.core.family import ByKind, kind_of, members


class Wire(BaseModel):
    """Strict: no string for a number, no boolean for an integer, no NaN, no unknown field."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _tagged_union(_mark: ByKind, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    """A family as a union discriminated by `kind`, also when it has one member."""
    choices = {kind_of(member): handler.generate_schema(member) for member in members(source)}
    return core_schema.tagged_union_schema(choices, discriminator="kind")


# The core marks its families and knows no pydantic; here the mark learns what it means on the wire.
ByKind.__get_pydantic_core_schema__ = _tagged_union  # type: ignore[attr-defined]
