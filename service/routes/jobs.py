"""Jobs: create, read, wait, list, cancel, delete; their results and trajectories."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ValidationError
from redis.exceptions import RedisError

from service import fitting
from service.auth import require_key
from service.caps import in_time
from service.fitting import Checked
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
from service.requests import LIGHT, json_body, matches, preferred_wait
from service.settings import Settings
from service.threads import Threads
from service.views import job_etag, job_view
from worker import store
from worker.contract.data import DatasetData
from worker.contract.faults import Fault
from worker.contract.job import Job, JobPage, JobStatus, StepPage, Validation
from worker.contract.result import Result
from worker.contract.spec import ALGORITHM, hyperparameter_names
from worker.datasets import MANIFEST
from worker.queue.delivery import delivery
from worker.store import Admission, Deletion, JobRecord, Operation, Status, Submission

T = TypeVar("T")
JOB_ID = re.compile(r"job_[0-9a-f]{24}")


async def require_id(request: Request) -> None:
    """Raise NotFound for what cannot be the id of a job: the store takes ids as parts of its keys."""
    job_id = request.path_params.get("job_id")
    if job_id is not None and not JOB_ID.fullmatch(job_id):
        raise NotFound("There is no job with this id.")


router = APIRouter(prefix="/v1/jobs", tags=["jobs"], dependencies=[Depends(require_key), Depends(require_id)])

SPEC_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/JobSpec"}}},
    }
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
    with store.sharing(store.PROMISED):
        return await _record(request, job_id)


async def ended_job(request: Request, job_id: str) -> JobRecord:
    """A job that has ended. Raises NotFound, ResultNotReady."""
    record = await _record(request, job_id)
    if not record.done:
        detail = f"The job is {record.status}; poll it, or wait with `Prefer: wait=60`."
        raise ResultNotReady(detail, headers={"Retry-After": "1"})
    return record


async def _checked(request: Request, body: bytes) -> Checked:
    """What a body asks for. What takes a few milliseconds is done at once, else in a thread. Raises a Problem."""
    checks: Threads = request.app.state.crew.checks
    settings: Settings = request.app.state.settings
    spec = fitting.parsed(body) if len(body) <= LIGHT else await checks.run(fitting.parsed, body, caller=request)
    spec = in_time(spec, settings)
    if not isinstance(spec.data, DatasetData):
        if fitting.is_light(spec, body):
            return fitting.of_own_data(spec, body, settings)
        return await checks.run(fitting.of_own_data, spec, body, settings, caller=request)
    try:
        manifest = await request.app.state.datasets.read(spec.data.dataset_id, MANIFEST, request)
    except NotFound:
        fault = Fault("/data/dataset_id", "unknown_dataset", "There is no dataset with this id; upload it first.")
        raise InvalidRequest("The job spec does not fit its data.", errors=[fault]) from None
    except DatasetDamaged as problem:
        raise DatasetDamaged(problem.detail, errors=[Fault("/data/dataset_id", "damaged", problem.detail)]) from None
    return await checks.run(fitting.of_dataset, spec, manifest, settings, caller=request)


async def _admitted(request: Request, submission: Submission, settings: Settings) -> Admission:
    """Put a job into the queue. Raises QueueFull, and TooLarge for one that would never have room."""
    most, room = settings.max_queued, settings.queued_bytes
    if submission.size > room:
        raise TooLarge(
            f"The spec and its data take {submission.size} bytes, and those of all jobs may take {room} "
            "(GRADTUNE_MAX_QUEUED_MB); upload the table as a dataset."
        )
    admission = store.submit(submission, delivery(submission.id), max_queued=most, max_bytes=room)
    admitted = await _run(request, admission)
    if admitted is Admission.FULL:
        detail = f"{most} jobs wait already (GRADTUNE_MAX_QUEUED); nothing was accepted, try again later."
        raise QueueFull(detail, headers={"Retry-After": "30"})
    if admitted is Admission.CROWDED:
        raise QueueFull(
            f"With this job the data and the specs of the jobs that wait or run would take more than {room} bytes "
            "(GRADTUNE_MAX_QUEUED_MB); nothing was accepted, try again later, or upload the table as a dataset.",
            headers={"Retry-After": "30"},
        )
    return admitted


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
    checked = await _checked(request, body)
    spec = checked.spec
    if validate_only:
        checks, light = request.app.state.crew.checks, fitting.is_light(spec, body)
        content = fitting.validated(checked) if light else await checks.run(fitting.validated, checked, caller=request)
        return Response(content, media_type="application/json")
    submission = Submission(
        id="job_" + secrets.token_hex(12),
        spec=orjson.dumps(checked.description),
        data=checked.data,
        fingerprint=checked.fingerprint,
        seconds=spec.limits.seconds,
        labels=spec.labels,
        request_id=request.state.request_id,
        traceparent=request.headers.get("traceparent", "")[:200],
        dataset=spec.data.dataset_id if isinstance(spec.data, DatasetData) else "",
        algorithm=ALGORITHM,
    )
    admitted = await _admitted(request, submission, request.app.state.settings)
    if admitted is Admission.UNKNOWN_DATASET:
        fault = Fault("/data/dataset_id", "unknown_dataset", "There is no dataset with this id; upload it first.")
        raise InvalidRequest("The job spec does not fit its data.", errors=[fault])
    path = f"/v1/jobs/{submission.id}"
    try:
        record = await _awaited(request, submission.id, lambda job: job.done, wait)
    except RedisError:
        detail = f"The job was created, and the job store does not answer any more; read {path} shortly."
        raise Unavailable(detail, headers={"Location": path, "Retry-After": "2"}) from None
    headers = {"Location": path, "ETag": job_etag(record)}
    if record.done:
        return _json(job_view(record), 201, headers)
    return _json(job_view(record), 202, {**headers, "Retry-After": "1"})


@router.get("", summary="List jobs", response_model=JobPage, responses=documented(InvalidRequest))
async def list_jobs(
    request: Request,
    status: Annotated[JobStatus | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before.")] = None,
) -> Response:
    """Newest first. `label.KEY=VALUE` (repeatable) keeps the jobs that have all these labels.

    With a filter a page can be short, even empty, while `next_cursor` says that more follow.
    """
    labels = {}
    for name, value in request.query_params.multi_items():
        if name.startswith("label."):
            labels[name.removeprefix("label.")] = value
        elif name not in {"status", "limit", "cursor"}:
            fault = Fault(f"/query/{name[:60]}", "unknown_parameter", "Known: status, limit, cursor, label.KEY.")
            raise InvalidRequest("A parameter is wrong.", errors=[fault])
    query = store.jobs(limit=limit, cursor=cursor, status=Status(status) if status else None, labels=labels)
    try:
        records, following = await _run(request, query)
    except ValueError:
        fault = Fault("/query/cursor", "invalid_cursor", "Take the next_cursor of an earlier page, unchanged.")
        raise InvalidRequest("A parameter is wrong.", errors=[fault]) from None
    return _json({"data": [job_view(record) for record in records], "next_cursor": following})


@router.get(
    "/{job_id}",
    summary="Read a job, or wait for it to change",
    response_model=Job,
    responses={
        304: {"description": "Unchanged since the ETag in If-None-Match."},
        **documented(NotFound, InvalidRequest),
    },
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
    return _json(job_view(record), 200, headers)


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
    document = await _run(request, store.result(job_id))
    if document is None:
        seen = "see its `error`" if record.error else "it had not evaluated a single point"
        raise NotFound(f"The job is {record.status} and has nothing to return: {seen}.")
    return Response(document, 200, {"ETag": etag}, "application/json")


@router.get(
    "/{job_id}/steps",
    summary="Read the trajectory",
    response_model=StepPage,
    responses=documented(NotFound, InvalidRequest),
)
async def read_steps(
    request: Request,
    job_id: str,
    after: Annotated[int, Query(ge=0, le=2**53, description="Leave out records up to this sequence number.")] = 0,
) -> Response:
    """One record for each outer iteration, in order."""
    record = await _record(request, job_id)
    steps = await _run(request, store.steps(job_id, after))
    try:
        heavy, checks = len(record.spec) > LIGHT, request.app.state.crew.checks
        named = hyperparameter_names
        names = await checks.run(named, record.spec, caller=request) if heavy else named(record.spec)
    except ValidationError:  # submitted by a newer version, while this process has not been replaced yet
        raise Unavailable("A newer version of the service has to answer this.", headers={"Retry-After": "5"}) from None
    return _json({"data": [orjson.Fragment(step) for step in steps], "names": names})


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
