"""Everything that a caller can be told has gone wrong, as RFC 9457 problems.

Problem
|- Malformed 400             |- DatasetTooLarge 413
|- Unauthorized 401          |- UnsupportedMediaType 415
|- CrossOrigin 403           |- Misdirected 421
|- NotFound 404              |- InvalidRequest 422
|- TooSlow 408               |- InvalidDataset 422
|- NotTerminal 409           |- QueueFull 429
|- ResultNotReady 409        |- HeadersTooLarge 431
|- NoModel 409               |- InternalError 500
|- DatasetInUse 409          |- Unavailable 503
|- DatasetExists 409         |- StorageFull 507
|- DatasetDamaged 409         |- Busy 503
|- TooLarge 413
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPMethod, HTTPStatus
from typing import Any, ClassVar

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from redis.exceptions import RedisError, ResponseError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from worker import store
from worker.contract.faults import Fault

MEDIA_TYPE = "application/problem+json"


class ProblemFault(BaseModel):
    """One fault of a request: a JSON pointer into the body (or `/query/NAME`), a code, a sentence."""

    pointer: str
    code: str
    detail: str


class ProblemDocument(BaseModel):
    """An RFC 9457 problem."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str = Field(description="Quote it when you ask about this reply.")
    errors: list[ProblemFault] = Field(description="Empty unless parts of the request can be named.")


class Problem(Exception):  # noqa: N818 - the standard's word
    """A reply from 400 up. Subclasses fix status, code and title; `detail` is a sentence with the remedy."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "problem"
    title: ClassVar[str] = "Problem"

    def __init__(self, detail: str, *, errors: Sequence[Fault] = (), headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})

    def response(self, request_id: str) -> Response:
        """The reply."""
        faults = [{"pointer": f.pointer, "code": f.code, "detail": f.detail} for f in self.errors]
        return problem_response(self.status, self.code, self.title, self.detail, request_id, faults, self.headers)


class Malformed(Problem):
    """What arrived is no HTTP."""

    status, code, title = 400, "bad-request", "Bad Request"


class Unauthorized(Problem):
    """No key, or one that is not known."""

    status, code, title = 401, "unauthorized", "Unauthorized"


class CrossOrigin(Problem):
    """A web page of another origin asks for a change."""

    status, code, title = 403, "cross-origin", "A page of another origin"


class NotFound(Problem):
    """No such thing, or not yours."""

    status, code, title = 404, "not-found", "Not found"


class TooSlow(Problem):
    """The rest of the request does not come."""

    status, code, title = 408, "request-timeout", "The request does not come"


class NotTerminal(Problem):
    """The job has not ended."""

    status, code, title = 409, "job-not-terminal", "The job has not ended"


class ResultNotReady(Problem):
    """The job has not ended, so it has no result yet."""

    status, code, title = 409, "result-not-ready", "The result is not ready"


class NoModel(Problem):
    """The job has ended without a model that could predict rows."""

    status, code, title = 409, "no-model", "There is no model to predict with"


class DatasetInUse(Problem):
    """A job that has not ended needs the dataset."""

    status, code, title = 409, "dataset-in-use", "The dataset is in use"


class DatasetExists(Problem):
    """The same bytes are there already, read in another way."""

    status, code, title = 409, "dataset-exists", "The content is there already, read in another way"


class DatasetDamaged(Problem):
    """What is stored of the dataset is not what was uploaded; uploading the same file again repairs it."""

    status, code, title = 409, "dataset-damaged", "The dataset is damaged"


class DatasetTooLarge(Problem):
    """More than one dataset may take here."""

    status, code, title = 413, "dataset-too-large", "The dataset is too large"


class TooLarge(Problem):
    """More than can be taken inline."""

    status, code, title = 413, "too-large", "Too large"


class UnsupportedMediaType(Problem):
    """A body of a type that is not read here."""

    status, code, title = 415, "unsupported-media-type", "Unsupported media type"


class Misdirected(Problem):
    """The service is asked for under a name that it does not have."""

    status, code, title = 421, "misdirected-request", "Asked for under another name"


class InvalidRequest(Problem):
    """Something in the request is wrong; `errors` says what and where."""

    status, code, title = 422, "invalid-request", "Invalid request"


class InvalidDataset(Problem):
    """The file cannot be read as a table; `errors` says where."""

    status, code, title = 422, "invalid-dataset", "The file cannot be read"


class QueueFull(Problem):
    """Too many jobs wait, or their data are too much."""

    status, code, title = 429, "queue-full", "The queue is full"


class HeadersTooLarge(Problem):
    """The headers of a request are too large."""

    status, code, title = 431, "headers-too-large", "The headers are too large"


class InternalError(Problem):
    """Our fault."""

    status, code, title = 500, "internal-error", "Internal error"


class Unavailable(Problem):
    """A part of the service is away."""

    status, code, title = 503, "unavailable", "Unavailable"


class Busy(Problem):
    """Too much work of one kind is under way and waits; nothing was done."""

    status, code, title = 503, "busy", "Too much is asked at once"


class StorageFull(Problem):
    """There is no room for the dataset."""

    status, code, title = 507, "storage-full", "The storage is full"


def problem_response(
    status: int,
    code: str,
    title: str,
    detail: str,
    request_id: str,
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """One shape for every error."""
    body = {
        "type": f"urn:gradtune:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        "errors": errors,
    }
    return Response(orjson.dumps(body), status, headers, MEDIA_TYPE)


def documented(*kinds: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route, from the problems that it can reply with."""
    return replies(*kinds, Unauthorized, Unavailable, InternalError)


def replies(*kinds: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """How problems are documented, by status."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        schema = {"$ref": "#/components/schemas/ProblemDocument"}
        entry = by_status.setdefault(kind.status, {"description": "", "content": {MEDIA_TYPE: {"schema": schema}}})
        entry["description"] = f"{entry['description']} `{kind.code}`: {(kind.__doc__ or '').strip()}".strip()
    return by_status


def install(app: FastAPI) -> None:
    """Make the framework's own errors problems, too."""

    async def problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response(request.state.request_id)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405 and request.method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": _allowed(request)})
        phrase = HTTPStatus(error.status_code).phrase
        detail = _DETAILS.get(error.status_code, f"{phrase}.")
        code = phrase.lower().replace(" ", "-")
        headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
        return problem_response(error.status_code, code, phrase, detail, request.state.request_id, (), headers)

    async def parameters(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        faults = [
            Fault("/" + "/".join(str(part)[:60] for part in item["loc"]), item["type"], item["msg"] + ".")
            for item in error.errors()[:20]
        ]
        return InvalidRequest("A parameter is wrong.", errors=faults).response(request.state.request_id)

    async def away(request: Request, error: Exception) -> Response:
        assert isinstance(error, RedisError)
        store.note(request.app.state.redis, error)
        detail, seconds = f"{_AWAY} {_REMEDIES.get(request.method, 'Try again shortly.')}", "2"
        if isinstance(error, store.RefusedError):
            detail = "The job store takes no writes at the moment; nothing was changed. Try again shortly."
            if store.explain(error).sentence == store.FULL:
                detail, seconds = _FULL, "30"
        elif store.explain(error).permanent:
            detail, seconds = _MISCONFIGURED, "30"
        elif isinstance(error, ResponseError):
            detail, seconds = "The job store gives an answer that is not understood; the service's log has it.", "30"
        return Unavailable(detail, headers={"Retry-After": seconds}).response(request.state.request_id)

    async def hung_up(_request: Request, _error: Exception) -> Response:
        return Response(status_code=499)  # nobody reads it

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, parameters)
    app.add_exception_handler(RedisError, away)
    app.add_exception_handler(ClientDisconnect, hung_up)


def _allowed(request: Request) -> str:
    """The methods of all routes at this path; the framework names those of the first one alone."""
    routes = request.app.routes
    methods = [m for m in HTTPMethod if any(r.matches({**request.scope, "method": m})[0] is Match.FULL for r in routes)]
    also = ["HEAD", "OPTIONS"] if "GET" in methods else ["OPTIONS"]
    return ", ".join([*methods, *(method for method in also if method not in methods)])


_AWAY = "The job store does not answer at the moment."
_FULL = (
    "The memory of the job store is full; nothing was changed. Delete jobs that have ended, cancel some that wait, or "
    "try again later; `GET /readyz` says what its operators can do."
)
_MISCONFIGURED = "The job store cannot be used as it is set up; `GET /readyz` says what its operators have to change."
_REMEDIES = {
    "POST": (
        "The request may have had its effect all the same: before you send it again, look whether what it creates is "
        "there (`GET /v1/jobs?label.KEY=VALUE` finds a job by a label of its own). Cancelling twice does no harm."
    ),
    "DELETE": "Try again shortly; deleting twice does no harm.",
}
_DETAILS = {
    404: "There is nothing at this path; /openapi.json lists what there is.",
    405: "This path does not take this method; the Allow header lists those that it takes.",
}
