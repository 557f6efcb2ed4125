"""Query parameters: unknown ones are refused everywhere, times are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.routing import APIRoute

from service.problems import InvalidRequest
from worker.contract.faults import LONGEST_NAME, MOST, Fault, suggestion

T = TypeVar("T")
READS_ALL = "reads_all_parameters"
ANY_KEY = "KEY"  # ends the declared name of a parameter of which there is one for each key, as `label.KEY`
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parameter_fault(name: str, code: str, detail: str) -> InvalidRequest:
    """The problem of a wrong query parameter."""
    return InvalidRequest("A parameter is wrong.", errors=[Fault(f"/query/{name[:LONGEST_NAME]}", code, detail)])


def reads_all_parameters(endpoint: T) -> T:
    """Mark a function that looks at every query parameter itself, as one that reads a long body before it refuses."""
    setattr(endpoint, READS_ALL, True)
    return endpoint


class Route(APIRoute):
    """A route that refuses query parameters which it does not declare: most are misspelt ones.

    Not a dependency, which would cost every request as much as a tenth of reading a job.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The framework's handler, after a look at the names of the parameters."""
        handle = super().get_route_handler()
        if getattr(self.endpoint, READS_ALL, False):
            return handle
        names = [
            *(field.alias for field in self.dependant.query_params),
            *(item["name"] for item in (self.openapi_extra or {}).get("parameters", ()) if item["in"] == "query"),
        ]

        async def checked(request: Request) -> Response:
            if request.scope["query_string"]:
                _refuse_unknown(request, names)
            return await handle(request)

        return checked


def _refuse_unknown(request: Request, names: list[str]) -> None:
    keyed = tuple(name.removesuffix(ANY_KEY) for name in names if name.endswith("." + ANY_KEY))
    unknown = [name for name in request.query_params if name not in names and not (keyed and name.startswith(keyed))]
    if unknown:
        told = f"known: {', '.join(names)}" if names else "this path takes none"
        raise InvalidRequest("A parameter is wrong.", errors=[_unknown(name, names, told) for name in unknown[:MOST]])


def _unknown(name: str, names: list[str], told: str) -> Fault:
    shown = name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME] + "..."
    detail = f"There is no parameter {shown!r} here{suggestion(name, names)}; {told}."
    return Fault(f"/query/{name[:LONGEST_NAME]}", "unknown_parameter", detail)


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
