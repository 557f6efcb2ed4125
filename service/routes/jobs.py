"""Jobs: create, read, wait, list, cancel, delete; their results and trajectories."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from redis.exceptions import RedisError

from service import fitting, submission
from service.auth import require_key
from service.parameters import ANY_KEY, Route, moment, parameter_fault
from service.problems import (
    Busy,
    DatasetDamaged,
    InvalidRequest,
    NotFound,
    NotTerminal,
    QueueFull,
    ResultNotReady,
    TooLarge,
    Unavailable,
    UnsupportedMediaType,
    documented,
)
from service.requests import CONTENT_ENCODING, json_body, matches, preferred_wait
from service.views import job_etag, job_summary, job_view
from worker import store
from worker.contract.job import Job, JobPage, JobStatus, Validation
from worker.contract.result import Result
from worker.store import Deletion, JobRecord, Operation, Status

T = TypeVar("T")
JOB_ID = re.compile(r"job_[0-9a-f]{24}")


async def require_id(request: Request) -> None:
    """Raise NotFound for what cannot be the id of a job: the store takes ids as parts of its keys."""
    job_id = request.path_params.get("job_id")
    if job_id is not None and not JOB_ID.fullmatch(job_id):
        raise NotFound("There is no job with this id.")


router = APIRouter(
    prefix="/v1/jobs",
    tags=["jobs"],
    route_class=Route,
    dependencies=[Depends(require_key), Depends(require_id)],
)

SPEC_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/JobSpec"}}},
    },
    "parameters": [CONTENT_ENCODING],
}
View = Literal["summary", "full"]
FULL = {  # read by hand: the framework takes a twentieth of the time of the whole reply for a parameter
    "parameters": [
        {
            "name": "view",
            "in": "query",
            "required": False,
            "description": "`full`: with the long lists of the spec, too.",
            "schema": {"type": "string", "enum": ["full"]},
        }
    ]
}
LABELS = {
    "parameters": [
        {
            "name": f"label.{ANY_KEY}",
            "in": "query",
            "required": False,
            "description": "Only jobs whose label of this KEY is this; there may be one for each of several keys.",
            "schema": {"type": "string"},
        }
    ]
}


def _json(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(document), status, headers, "application/json")


async def _run(request: Request, operation: Operation[T]) -> T:
    return await store.arun(request.app.state.redis, operation)


async def _record(request: Request, job_id: str) -> JobRecord:
    return _known(await _run(request, store.job(job_id)))


def _known(record: JobRecord | None) -> JobRecord:
    if record is None:
        raise NotFound("There is no job with this id; ended jobs are kept for a limited time.")
    return record


async def _awaited(request: Request, job_id: str, enough: Callable[[JobRecord], bool], wait: float) -> JobRecord:
    """A job as soon as it is enough, at the latest after `wait` seconds. The body of the request has been read."""
    if wait > 0:
        return _known(await request.app.state.doorbell.wait(job_id, enough, wait, request))
    with store.sharing(store.REQUEST_PATIENCE):
        return await _record(request, job_id)


async def known_job(request: Request, job_id: str) -> JobRecord:
    """A job in whatever state. Raises NotFound."""
    return await _record(request, job_id)


async def ended_job(request: Request, job_id: str) -> JobRecord:
    """A job that has ended. Raises NotFound, ResultNotReady."""
    record = await _record(request, job_id)
    if not record.done:
        detail = f"The job is {record.status}; poll it, or wait with `Prefer: wait=60`."
        raise ResultNotReady(detail, headers={"Retry-After": "1"})
    return record


async def ended_result(request: Request, record: JobRecord) -> bytes:
    """The result of a job that has ended, as it is stored. Raises NotFound."""
    document = await _run(request, store.result(record.id))
    if document is None:
        seen = "see its `error`" if record.error else "it had not evaluated a single point"
        raise NotFound(f"The job is {record.status} and has nothing to return: {seen}.")
    return document


@router.post(
    "",
    status_code=202,
    summary="Create a tuning job",
    response_model=None,
    responses={
        200: {"model": Validation, "description": "With `validate_only`: what the spec would do."},
        201: {"model": Job, "description": "The job ended within `Prefer: wait=N`."},
        202: {"model": Job, "description": "The job was accepted."},
        **documented(DatasetDamaged, TooLarge, UnsupportedMediaType, InvalidRequest, QueueFull, Busy),
    },
    openapi_extra=SPEC_BODY,
)
async def create_job(
    request: Request,
    validate_only: Annotated[bool, Query(description="Check the spec and estimate its cost; create nothing.")] = False,
) -> Response:
    """Queue a job. `Prefer: wait=N` holds the reply back for up to N seconds, until the job has ended."""
    wait = preferred_wait(request)
    body = await json_body(request)
    checked = await submission.checked(request, body)
    if validate_only:
        checks, light = request.app.state.crew.checks, fitting.is_light(checked.spec, body)
        content = fitting.validated(checked) if light else await checks.run(fitting.validated, checked, caller=request)
        return Response(content, media_type="application/json")
    job_id = await submission.submit(request, checked)
    path = f"/v1/jobs/{job_id}"
    try:
        record = await _awaited(request, job_id, lambda job: job.done, wait)
    except RedisError:
        detail = f"The job was created, and the job store does not answer any more; read {path} shortly."
        raise Unavailable(detail, headers={"Location": path, "Retry-After": "2"}) from None
    headers = {"Location": path, "ETag": job_etag(record)}
    if record.done:
        return _json(job_view(record), 201, headers)
    return _json(job_view(record), 202, {**headers, "Retry-After": "1"})


@router.get("", summary="List jobs", response_model=JobPage, responses=documented(InvalidRequest), openapi_extra=LABELS)
async def list_jobs(
    request: Request,
    status: Annotated[JobStatus | None, Query()] = None,
    created_after: Annotated[str | None, Query(max_length=100, description="RFC 3339; then, or later.")] = None,
    created_before: Annotated[str | None, Query(max_length=100, description="RFC 3339; earlier than that.")] = None,
    view: Annotated[View, Query(description="`full`: with the spec of each job.")] = "summary",
    limit: Annotated[int, Query(ge=1, le=200, description="Most jobs; a page ends at 1 MiB, too.")] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before.")] = None,
) -> Response:
    """Newest first. `label.KEY=VALUE` (repeatable) keeps the jobs that have all these labels.

    With a filter a page can be short, even empty, while `next_cursor` says that more follow.
    """
    query = store.jobs(
        limit=limit,
        cursor=cursor,
        status=Status(status) if status else None,
        labels=_labels(request),
        created_from=moment("created_after", created_after),
        created_before=moment("created_before", created_before),
        specs=view == "full",
    )
    try:
        records, following = await _run(request, query)
    except ValueError:
        detail = "Take the next_cursor of an earlier page, unchanged."
        raise parameter_fault("cursor", "invalid_cursor", detail) from None
    show = job_view if view == "full" else job_summary
    return _json({"data": [show(record) for record in records], "next_cursor": following})


def _labels(request: Request) -> dict[str, str]:
    """What `label.KEY=VALUE` asks for."""
    pairs = ((name.partition("label."), value) for name, value in request.query_params.multi_items())
    return {key: value for (before, prefix, key), value in pairs if prefix and not before}


@router.get(
    "/{job_id}",
    summary="Read a job, or wait for it to change",
    response_model=Job,
    responses={
        304: {"description": "Unchanged since the ETag in If-None-Match."},
        **documented(NotFound, InvalidRequest),
    },
    openapi_extra=FULL,
)
async def read_job(request: Request, job_id: str) -> Response:
    """`Prefer: wait=N` with `If-None-Match: <etag>` waits up to N seconds for a change; alone, for the job's end."""
    etag_given = "if-none-match" in request.headers

    def enough(job: JobRecord) -> bool:
        return not matches(request, job_etag(job)) if etag_given else job.done

    wait = preferred_wait(request)
    record = await _awaited(request, job_id, enough, wait)
    headers = {"ETag": job_etag(record)}
    if matches(request, job_etag(record)):
        return Response(status_code=304, headers=headers)
    if not record.done:
        headers["Retry-After"] = "1"
    spec = await _run(request, store.stored_spec(job_id)) if _wants_all(request) else None
    return _json(job_view(record, spec=spec or b""), 200, headers)


def _wants_all(request: Request) -> bool:
    """Whether the long lists of the spec are wanted, too: `view=full`."""
    view = request.query_params.get("view", "")
    if view not in {"", "full"}:
        raise parameter_fault("view", "literal_error", "Input should be 'full'.")
    return bool(view)


@router.get(
    "/{job_id}/result",
    summary="Read the result of a job that has ended",
    response_model=Result,
    responses={304: {"description": "Unchanged."}, **documented(NotFound, ResultNotReady)},
)
async def read_result(request: Request, job_id: str) -> Response:
    """Hyperparameters, model, certificates. A failed or cancelled job keeps the best so far with `partial: true`."""
    record = await ended_job(request, job_id)
    etag = f'"{record.id}.{record.version}"'
    if matches(request, etag):
        return Response(status_code=304, headers={"ETag": etag})
    document = await ended_result(request, record)
    return Response(document, 200, {"ETag": etag}, "application/json")


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    summary="Cancel a job",
    response_model=Job,
    responses={200: {"model": Job, "description": "It had ended already."}, **documented(NotFound)},
)
async def cancel_job(request: Request, job_id: str) -> Response:
    """Takes effect within about a second; the best hyperparameters so far are kept."""
    ended_before = (await _record(request, job_id)).done
    await _run(request, store.cancel(job_id, retention=request.app.state.settings.retention))
    record = await _record(request, job_id)
    return _json(job_view(record), 200 if ended_before else 202, {"ETag": job_etag(record)})


@router.delete(
    "/{job_id}", status_code=204, summary="Delete a job that has ended", responses=documented(NotFound, NotTerminal)
)
async def delete_job(request: Request, job_id: str) -> Response:
    """Remove the job with its data, trajectory and result."""
    deletion = await _run(request, store.delete(job_id))
    if deletion is Deletion.UNKNOWN:
        raise NotFound("There is no job with this id.")
    if deletion is Deletion.LIVE:
        raise NotTerminal("Cancel the job first.")
    return Response(status_code=204)
