"""What all records of the contract have in common."""

from __future__ import annotations

import functools
from dataclasses import MISSING, asdict, fields
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from worker.core.durations import RowsOrDuration
from worker.core.family import ByKind, NumberOrSettings, kind_of, members


def _failing_fast(schema: CoreSchema, handler: GetCoreSchemaHandler) -> CoreSchema:
    parts: list[Any] = [handler.resolve_ref_schema(schema)]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            if part.get("type") in ("list", "tuple"):  # a field may have this name, too
                part["fail_fast"] = True
            parts += part.values()
        elif isinstance(part, list):
            parts += part
    return schema


class Wire(BaseModel):
    """Strict: no string for a number, no boolean for an integer, no NaN, no unknown field.

    A sequence stops at its first bad item: a million errors take seconds, and only a few are reported.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The schema of the model, whose sequences fail fast."""
        return _failing_fast(handler(source), handler)


def _tagged_union(mark: ByKind, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    """The schema of a family: a union with the discriminator `kind`, also if it has one member only."""
    choices: dict[str, CoreSchema] = {kind_of(member): handler.generate_schema(member) for member in members(source)}
    for choice in choices.values():
        _failing_fast(choice, handler)
    if not mark.named:
        return core_schema.tagged_union_schema(choices, discriminator="kind")
    names = {f"'{kind_of(member)}'": _by_name(member) for member in members(source) if _has_defaults(member)}
    return core_schema.tagged_union_schema(
        choices | names,
        discriminator=_kind_or_name,
        serialization=core_schema.plain_serializer_function_ser_schema(_name_or_settings),
        metadata={"pydantic_js_functions": [functools.partial(_named_json_schema, choices, list(names))]},
    )


def _named_json_schema(
    choices: dict[str, CoreSchema], quoted: list[str], _: CoreSchema, handler: GetJsonSchemaHandler
) -> dict[str, Any]:
    """Either a bare name or an object with its settings."""
    names = {"type": "string", "enum": [name.strip("'") for name in quoted]}
    return {"anyOf": [names, handler(core_schema.tagged_union_schema(choices, discriminator="kind"))]}


def _has_defaults(member: Any) -> bool:
    """Whether a member needs no settings, so that its bare name is enough."""
    return all(field.default is not MISSING or field.default_factory is not MISSING for field in fields(member))


def _by_name(member: Any) -> CoreSchema:
    """The bare name of a member, read as the member with the defaults of its settings."""

    def build(_: str) -> Any:
        return member()

    return core_schema.no_info_after_validator_function(build, core_schema.literal_schema([kind_of(member)]))


def _kind_or_name(value: Any) -> str | None:
    """Which schema reads the value: that of the object with this `kind`, or that of the bare name."""
    if isinstance(value, str):
        return f"'{value}'"
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return kind if isinstance(kind, str) else None


def _name_or_settings(member: Any) -> Any:
    """The bare name of a member with the defaults of its settings, else all of them."""
    named = _has_defaults(type(member)) and member == type(member)()
    return member.kind if named else asdict(member)


def _number_or_settings(_: NumberOrSettings, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    """The schema of a number or an object with settings. Faults concern the form that was sent."""
    number, settings = get_args(source)
    choices: dict[str, CoreSchema] = {
        "[number]": handler.generate_schema(number),
        "[settings]": handler.generate_schema(settings),
    }

    def form(value: Any) -> str:
        return "[settings]" if isinstance(value, dict | settings) else "[number]"

    return core_schema.tagged_union_schema(choices, discriminator=form)


def _rows_or_duration(mark: RowsOrDuration, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
    """The schema of a number of rows or the text of a duration."""

    def written(_: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        text = {"type": "string", "format": "duration", "examples": ["P7D", "PT12H"]}
        return {"anyOf": [handler(rows), text]}

    rows = core_schema.int_schema(ge=mark.min_rows, lt=2**53, strict=True)
    duration = core_schema.no_info_after_validator_function(mark.check, core_schema.str_schema(max_length=100))
    return core_schema.tagged_union_schema(
        {"[rows]": rows, "[duration]": duration},
        discriminator=lambda value: "[duration]" if isinstance(value, str) else "[rows]",
        metadata={"pydantic_js_functions": [written]},
    )


# The core marks its families and knows no pydantic; here the marks learn what they mean on the wire.
RowsOrDuration.__get_pydantic_core_schema__ = _rows_or_duration  # type: ignore[attr-defined]
NumberOrSettings.__get_pydantic_core_schema__ = _number_or_settings  # type: ignore[attr-defined]
ByKind.__get_pydantic_core_schema__ = _tagged_union  # type: ignore[attr-defined]
