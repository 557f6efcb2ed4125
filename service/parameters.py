"""Query parameters: unknown ones are refused everywhere, times are read."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import Request

from service.problems import InvalidRequest
from worker.contract.faults import MOST, NAME, Fault, suggestion

ANY_KEY = "KEY"  # ends the declared name of a parameter of which there is one for each key, as `label.KEY`
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parameter_fault(name: str, code: str, detail: str) -> InvalidRequest:
    """The problem of a wrong query parameter."""
    return InvalidRequest("A parameter is wrong.", errors=[Fault(f"/query/{name[:NAME]}", code, detail)])


async def known_parameters(request: Request) -> None:
    """Raise InvalidRequest for query parameters that the route does not declare: most are misspelt ones."""
    if not request.query_params:
        return
    names = declared(request.scope["route"])
    keyed = tuple(name.removesuffix(ANY_KEY) for name in names if name.endswith("." + ANY_KEY))
    unknown = [name for name in request.query_params if name not in names and not (keyed and name.startswith(keyed))]
    if unknown:
        told = f"known: {', '.join(names)}" if names else "this path takes none"
        raise InvalidRequest("A parameter is wrong.", errors=[_unknown(name, names, told) for name in unknown[:MOST]])


def _unknown(name: str, names: list[str], told: str) -> Fault:
    shown = name if len(name) <= NAME else name[:NAME] + "..."
    detail = f"There is no parameter {shown!r} here{suggestion(name, names)}; {told}."
    return Fault(f"/query/{name[:NAME]}", "unknown_parameter", detail)


def declared(route: Any) -> list[str]:
    """Names of the query parameters of a route: those of its function, and those that are only documented."""
    written = (getattr(route, "openapi_extra", None) or {}).get("parameters", [])
    return [
        *(field.alias for field in route.dependant.query_params),
        *(parameter["name"] for parameter in written if parameter["in"] == "query"),
    ]


def moment(name: str, text: str | None) -> int | None:
    """A time in RFC 3339 as microseconds since 1970, rounded up. Raises InvalidRequest."""
    if text is None:
        return None
    written = MOMENT.fullmatch(text)
    try:
        read = datetime.fromisoformat(text.upper()) if written else None  # without what is below a microsecond
    except ValueError:
        read = None
    if written is None or read is None:
        remedy = "write it in RFC 3339 with its time zone, as 2024-03-01T12:00:00Z; a + in a URL is written %2B"
        raise parameter_fault(name, "invalid_time", f"This is no time: {remedy}.")
    below = (written[1] or "")[7:].strip("0")
    return (read - EPOCH) // timedelta(microseconds=1) + bool(below)
