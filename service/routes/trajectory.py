"""What a job tells at length, page by page: its trajectory, and the hyperparameters of its result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ValidationError

from service.auth import require_key
from service.hyperparameters import SORTS, cut, decode_place, encode_place, hyperparameters_of, order
from service.parameters import Route, parameter_fault
from service.problems import Busy, InvalidRequest, NotFound, ResultNotReady, Unavailable, documented
from service.requests import LIGHT, matches
from service.routes.jobs import ended_job, ended_result, known_job, require_id
from service.threads import Threads
from worker import store
from worker.contract.description import hyperparameter_names
from worker.contract.faults import suggestion
from worker.contract.job import HyperparameterPage, StepPage, StepRecord
from worker.contract.name_runs import decode_names
from worker.store import PAGE_BYTES

FIELDS = list(StepRecord.model_fields)
DEFAULTS = {name: None if field.is_required() else field.default for name, field in StepRecord.model_fields.items()}

router = APIRouter(
    prefix="/v1/jobs",
    tags=["jobs"],
    route_class=Route,
    dependencies=[Depends(require_key), Depends(require_id)],
)


@router.get(
    "/{job_id}/steps",
    summary="Read the trajectory",
    response_model=StepPage,
    responses=documented(NotFound, InvalidRequest, Busy),
)
async def read_steps(
    request: Request,
    job_id: str,
    after: Annotated[int, Query(ge=0, le=2**53, description="Leave out records up to this sequence number.")] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000, description="Most records; a page ends at 1 MiB, too.")] = 1000,
    fields: Annotated[
        str | None, Query(max_length=1000, description=f"Which fields, with commas between: {', '.join(FIELDS)}.")
    ] = None,
    points: Annotated[
        int | None,
        Query(
            ge=2,
            le=2000,
            description="Instead of a page: so many records at even distances, the first and the last among them; "
            "fewer, where these would be more than 1 MiB.",
        ),
    ] = None,
    layout: Annotated[Literal["records", "columns"], Query(description="A list of records, or lists of values.")] = (
        "records"
    ),
    names: Annotated[bool, Query(description="Whether the names of the hyperparameters are wanted, too.")] = False,
) -> Response:
    """One record for each outer iteration, in order; `next_after` says where the next page begins."""
    wanted = FIELDS if fields is None else _fields(fields)
    if points is not None and "limit" in request.query_params:
        raise parameter_fault("points", "not_together", "Give either points or limit: points are not read in pages.")
    await known_job(request, job_id)
    bare = "hyperparameters" not in wanted
    part = store.steps_within(job_id, after, points or limit, spread=points is not None, bare=bare)
    found = await store.arun(request.app.state.redis, part)
    reached = after + len(found.steps)
    document: dict[str, Any] = {
        "data": await _shaped(request, found.steps, None if fields is None else wanted, layout),
        "next_after": reached if points is None and reached < found.total else None,
        "names": await _names(request, job_id) if names else None,
    }
    return Response(orjson.dumps(document), media_type="application/json")


def _fields(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in FIELDS:
            detail = f"There is no field {name[:60]!r}{suggestion(name, FIELDS)}; known: {', '.join(FIELDS)}."
            raise parameter_fault("fields", "unknown_field", detail)
    return list(dict.fromkeys(names))


async def _shaped(request: Request, steps: list[bytes], wanted: list[str] | None, layout: str) -> Any:
    """The steps as they are asked for; as they are stored, if nothing is."""
    if wanted is None and layout == "records":
        return [orjson.Fragment(step) for step in steps]
    if sum(map(len, steps)) <= LIGHT:
        return orjson.Fragment(_rewritten(steps, wanted or FIELDS, layout))
    checks: Threads = request.app.state.crew.checks
    return orjson.Fragment(await checks.run(_rewritten, steps, wanted or FIELDS, layout, caller=request))


def _rewritten(steps: list[bytes], wanted: Sequence[str], layout: str) -> bytes:
    records = [DEFAULTS | orjson.loads(step) for step in steps]
    if layout == "columns":
        return orjson.dumps({name: [record[name] for record in records] for name in wanted})
    return orjson.dumps([{name: record[name] for name in wanted} for record in records])


async def _names(request: Request, job_id: str) -> Any:
    """Names of the hyperparameters, as JSON. Raises NotFound, Unavailable, InvalidRequest."""
    checks: Threads = request.app.state.crew.checks
    stored = await store.arun(request.app.state.redis, store.stored_names(job_id))
    if stored is not None:
        written = await checks.run(lambda: orjson.dumps(decode_names(stored)), caller=request)
    else:
        written = await _described_names(request, job_id, checks)
    if len(written) > PAGE_BYTES:
        remedy = f"read `GET /v1/jobs/{job_id}/hyperparameters` page by page, once the job has ended"
        raise parameter_fault("names", "too_many", f"The names have {len(written)} bytes of JSON; {remedy}.")
    return orjson.Fragment(written)


async def _described_names(request: Request, job_id: str, checks: Threads) -> bytes:
    """The same, made of the description: for jobs of earlier versions, and where the names take too many bytes."""
    spec = await store.arun(request.app.state.redis, store.stored_spec(job_id))
    if spec is None:
        raise NotFound("There is no job with this id.")
    try:
        return await checks.run(lambda: orjson.dumps(hyperparameter_names(spec)), caller=request)
    except ValidationError:  # submitted by a newer version, while this process has not been replaced yet
        raise Unavailable("A newer version of the service has to answer this.", headers={"Retry-After": "5"}) from None


_SORT = "One of " + ", ".join(SORTS) + "; with - before it the largest come first, gradients by their magnitude. "


@router.get(
    "/{job_id}/hyperparameters",
    summary="Read the hyperparameters of a result",
    response_model=HyperparameterPage,
    responses={304: {"description": "Unchanged."}, **documented(NotFound, ResultNotReady, InvalidRequest, Busy)},
)
async def read_hyperparameters(
    request: Request,
    job_id: str,
    sort: Annotated[str | None, Query(max_length=200, description=_SORT + "Default: as in steps.")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000, description="Most of them; a page ends at 1 MiB, too.")] = 1000,
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before.")] = None,
) -> Response:
    """Those of the result of a job that has ended, as they stand there."""
    if sort is not None and sort.removeprefix("-") not in SORTS:
        detail = f"There is no order {sort[:60]!r}{suggestion(sort.removeprefix('-'), list(SORTS))}; {_SORT.strip()}"
        raise parameter_fault("sort", "unknown_sort", detail)
    try:
        first = decode_place(cursor, sort) if cursor else 0
    except ValueError:
        detail = "Take the next_cursor of an earlier page of the same order, unchanged."
        raise parameter_fault("cursor", "invalid_cursor", detail) from None
    record = await ended_job(request, job_id)
    headers = {"ETag": f'"{record.id}.{record.version}"'}
    if matches(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    document = await ended_result(request, record)
    content = await request.app.state.crew.checks.run(_page, document, sort, first, limit, caller=request)
    return Response(content, 200, headers, "application/json")


def _page(document: bytes, sort: str | None, first: int, limit: int) -> bytes:
    items = hyperparameters_of(document)
    data = cut(items, order(items, sort)[first:], limit, PAGE_BYTES)
    after = first + len(data)
    following = encode_place(sort, after) if after < len(items) else None
    shown = [orjson.Fragment(item) for item in data]
    return orjson.dumps({"data": shown, "total": len(items), "next_cursor": following})
