"""Jobs: create, read, wait, list, cancel, delete; their results and trajectories."""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import Annotated, Any, Literal, TypeVar

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ValidationError
from redis.exceptions import RedisError

from service.auth import require_key
from service.estimate import validation_view
from service.parameters import ANY_KEY, Route, moment, parameter_fault
from service.problems import (
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
from service.requests import CONTENT_ENCODING, MAX_VALUES, json_body, matches, preferred_wait
from service.views import job_etag, job_summary, job_view, shown_spec
from worker import store
from worker.contract.columns import Selected, select
from worker.contract.criteria import numbers
from worker.contract.data import DatasetData, InlineData, MatricesData
from worker.contract.dataset import Dataset
from worker.contract.faults import MOST, Fault, crowded, schema_faults
from worker.contract.inline import lost_integers
from worker.contract.job import Job, JobPage, JobStatus, Validation
from worker.contract.result import Result
from worker.contract.spec import ALGORITHM, JobSpec, describe, encode_data, faults, fingerprint
from worker.datasets.ingest import MANIFEST
from worker.queue.delivery import delivery
from worker.store import Admission, Deletion, JobRecord, Operation, Status, Submission

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
    record = await _run(request, store.job(job_id))
    if record is None:
        raise NotFound("There is no job with this id; ended jobs are kept for a limited time.")
    return record


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


def _parse(body: bytes) -> JobSpec:
    if fault := crowded(body):
        raise InvalidRequest("The job spec is not valid.", errors=[fault])
    try:
        spec = JobSpec.model_validate_json(body)
    except ValidationError as error:
        raise InvalidRequest("The job spec is not valid.", errors=schema_faults(error, body, JobSpec)) from None
    if isinstance(spec.data, InlineData):
        values = len(spec.data.y) + sum(len(row) for row in spec.data.x)
        if values > MAX_VALUES:
            more = "send fewer rows, or upload the table as a dataset"
            raise TooLarge(f"Inline data may have {MAX_VALUES} numbers, and this table has {values}; {more}.")
        _refuse(list(lost_integers(spec.data, body)))
        _refuse(faults(spec))
    elif isinstance(spec.data, MatricesData):
        if (values := numbers(spec.data)) > MAX_VALUES:
            more = "send sparse matrices by their entries"
            raise TooLarge(f"Matrices and vectors may have {MAX_VALUES} numbers, and these have {values}; {more}.")
        _refuse(faults(spec))
    return spec


def _refuse(found: list[Fault]) -> None:
    if found:
        raise InvalidRequest("The job spec does not fit its data.", errors=found)


async def _selected(request: Request, spec: JobSpec) -> Selected | None:
    """What the spec uses of its dataset, None for inline data. The record of the dataset is all that is read."""
    if not isinstance(spec.data, DatasetData):
        return None
    try:
        record = Dataset.model_validate_json(await request.app.state.datasets.read(spec.data.dataset_id, MANIFEST))
    except NotFound:
        fault = Fault("/data/dataset_id", "unknown_dataset", "There is no dataset with this id; upload it first.")
        raise InvalidRequest("The job spec does not fit its data.", errors=[fault]) from None
    return await asyncio.to_thread(_fitting, spec, record)


def _fitting(spec: JobSpec, record: Dataset) -> Selected:
    assert isinstance(spec.data, DatasetData)
    selected = select(spec.data, record, spec.training)
    if not isinstance(selected, Selected):
        raise InvalidRequest("The job spec does not fit its data.", errors=selected[:MOST])
    _refuse(faults(spec, selected))
    return selected


@router.post(
    "",
    status_code=202,
    summary="Create a tuning job",
    response_model=None,
    responses={
        200: {"model": Validation, "description": "With `validate_only`: what the spec would do."},
        201: {"model": Job, "description": "The job ended within `Prefer: wait=N`."},
        202: {"model": Job, "description": "The job was accepted."},
        **documented(TooLarge, UnsupportedMediaType, InvalidRequest, QueueFull),
    },
    openapi_extra=SPEC_BODY,
)
async def create_job(
    request: Request,
    validate_only: Annotated[bool, Query(description="Check the spec and estimate its cost; create nothing.")] = False,
) -> Response:
    """Queue a job. `Prefer: wait=N` holds the reply back for up to N seconds, until the job has ended."""
    wait = preferred_wait(request)
    spec = _parse(await json_body(request))
    selected = await _selected(request, spec)
    data = b"" if selected else encode_data(spec.problem())
    description = describe(spec, data, selected)
    digest = fingerprint(description)
    if validate_only:
        return _json(await asyncio.to_thread(validation_view, spec, selected, description, digest))
    stored = orjson.dumps(description)
    submission = Submission(
        id="job_" + secrets.token_hex(12),
        spec=stored,
        shown=shown_spec(description, stored),
        data=data,
        fingerprint=digest,
        seconds=spec.limits.seconds,
        labels=spec.labels,
        request_id=request.state.request_id,
        traceparent=request.headers.get("traceparent", "")[:200],
        dataset=spec.data.dataset_id if isinstance(spec.data, DatasetData) else "",
        algorithm=ALGORITHM,
    )
    settings = request.app.state.settings
    admission = store.submit(submission, delivery(submission.id), max_queued=settings.max_queued)
    admitted = await _run(request, admission)
    if admitted is Admission.UNKNOWN_DATASET:
        fault = Fault("/data/dataset_id", "unknown_dataset", "There is no dataset with this id; upload it first.")
        raise InvalidRequest("The job spec does not fit its data.", errors=[fault])
    if not admitted:
        detail = f"{settings.max_queued} jobs wait already; nothing was accepted, try again later."
        raise QueueFull(detail, headers={"Retry-After": "30"})
    path = f"/v1/jobs/{submission.id}"
    try:
        record = await request.app.state.doorbell.wait(
            submission.id, lambda: _record(request, submission.id), lambda job: job.done, wait
        )
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
    record: JobRecord = await request.app.state.doorbell.wait(job_id, lambda: _record(request, job_id), enough, wait)
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
