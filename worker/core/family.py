"""Families of algorithms: the union of their dataclasses is the registry, the field `kind` identifies a member."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, get_args


@dataclass(frozen=True, slots=True)
class ByKind:
    """Marks a family whose members are identified by `kind`, as in `Annotated[Penalty, ByKind()]`.

    The contract gives the mark its meaning on the wire. With `named` a member can be given by its name alone, with its
    default settings.
    """

    named: bool = False


@dataclass(frozen=True, slots=True)
class NumberOrSettings:
    """Marks a union of a number and a class of settings, as in `Annotated[float | Relative, NumberOrSettings()]`."""


def members(family: Any) -> tuple[type, ...]:
    """The algorithms of a family: the members of its union, or its only class."""
    return get_args(family) or (family,)


def kind_of(member: Any) -> str:
    """The name of an algorithm on the wire: the default of its field `kind`."""
    return str(next(field.default for field in fields(member) if field.name == "kind"))
