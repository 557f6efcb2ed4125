"""Families of algorithms: the union of their dataclasses is the registry, the field `kind` tells members apart."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, get_args


@dataclass(frozen=True, slots=True)
class ByKind:
    """Marks, as in `Annotated[Penalty, ByKind()]`, a family whose members are told apart by `kind`.

    A plain mark: the contract gives it its meaning on the wire. With `named` a member can be called by its name alone,
    with the defaults of its settings.
    """

    named: bool = False


def members(family: Any) -> tuple[type, ...]:
    """The algorithms of a family: the members of its union, or the one class that it is so far."""
    return get_args(family) or (family,)


def kind_of(member: Any) -> str:
    """The name of an algorithm on the wire: the default of its field `kind`."""
    return str(next(field.default for field in fields(member) if field.name == "kind"))
