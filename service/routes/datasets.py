"""Datasets: upload, list, read, preview, delete."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response

from service.auth import require_key
from service.datasets import Datasets
from service.parameters import Route, reads_all_parameters
from service.problems import (
    Busy,
    DatasetDamaged,
    DatasetExists,
    DatasetInUse,
    DatasetTooLarge,
    InvalidDataset,
    InvalidRequest,
    NotFound,
    Problem,
    StorageFull,
    UnsupportedMediaType,
    documented,
)
from service.requests import DRAINED, LIGHT
from worker import store
from worker.contract.dataset import DATASET_ID, DatasetPage, DatasetView, Preview
from worker.contract.faults import Fault
from worker.datasets import MANIFEST
from worker.datasets.draft import PREVIEW
from worker.datasets.sniff import ANY, MEDIA_TYPES
from worker.store import DatasetEntry, Removal


async def _require_id(request: Request) -> None:
    """Raise NotFound for what cannot be the id of a dataset: the storage takes ids as parts of its paths."""
    dataset_id = request.path_params.get("dataset_id")
    if dataset_id is not None and not re.fullmatch(DATASET_ID, dataset_id):
        raise NotFound("There is no dataset with this id.")


router = APIRouter(
    prefix="/v1/datasets",
    tags=["datasets"],
    route_class=Route,
    dependencies=[Depends(require_key), Depends(_require_id)],
)


def _option(name: str, description: str, **schema: Any) -> dict[str, Any]:
    described = {"name": name, "in": "query", "required": False, "description": description}
    return {**described, "schema": {"type": "string", **schema}}


READING = [
    _option(
        "missing",
        "CSV: the texts that stand for a missing value besides the empty one, as in `?,-`. Default: the usual ones, "
        "with a warning.",
    ),
    _option("decimal", "CSV: the decimal mark.", enum=[".", ","]),
    _option("thousands", "CSV: the mark between thousands, as in `1,234,567`."),
    _option("encoding", "CSV: the character encoding, as in `windows-1252`. Default: UTF-8."),
    _option("delimiter", "CSV: the delimiter, one character, or `tab`. Default: found by itself."),
    _option("header", "CSV: whether the first row holds names.", enum=["true", "false"]),
    _option("types", "CSV, Parquet, Arrow: types of single columns, as in `zip:category,age:number,day:date`."),
]
_FILE = {"schema": {"type": "string", "format": "binary"}}
_FORM = {"schema": {"type": "object", "properties": {"file": _FILE["schema"]}, "required": ["file"]}}
FILE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {**dict.fromkeys([*MEDIA_TYPES, ANY], _FILE), "multipart/form-data": _FORM},
    },
    "parameters": [
        {
            "name": "Content-Digest",
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": "`sha-256=:BASE64:` of the body as it is sent (RFC 9530); verified.",
        },
        {
            "name": "Content-Encoding",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "enum": ["identity", "gzip", "zstd"]},
        },
        *READING,
    ],
}


def _datasets(request: Request) -> Datasets:
    datasets: Datasets = request.app.state.datasets
    return datasets


def _reply(content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(content, status, headers, "application/json")


def _links(dataset_id: str) -> dict[str, str]:
    path = f"/v1/datasets/{dataset_id}"
    return {"self": path, "preview": f"{path}/preview"}


def _viewed(manifest: dict[str, Any]) -> bytes:
    """A dataset without what only workers need."""
    hidden = {"layout", "header"}
    shown = {name: value for name, value in manifest.items() if name not in hidden}
    view = {"options": None, "warnings": [], **shown, "links": _links(manifest["id"])}  # as of older versions, too
    return orjson.dumps(view)


def _summary(entry: DatasetEntry) -> dict[str, Any]:
    used = datetime.fromtimestamp(entry.used_at, UTC).isoformat().replace("+00:00", "Z")
    found = {"used_at": used, "jobs": entry.jobs, "damaged": entry.damaged is not None}
    return {**orjson.loads(entry.summary), **found, "links": _links(entry.id)}


@router.post(
    "",
    status_code=201,
    summary="Upload a dataset",
    response_model=None,
    responses={
        200: {"model": DatasetView, "description": "The same content is there already."},
        201: {"model": DatasetView, "description": "The dataset was made."},
        **documented(
            DatasetExists, DatasetTooLarge, UnsupportedMediaType, InvalidRequest, InvalidDataset, Busy, StorageFull
        ),
    },
    openapi_extra=FILE_BODY,
)
@reads_all_parameters
async def upload_dataset(request: Request) -> Response:
    """The body is the file, of the format that its Content-Type names; it may be compressed by gzip or zstd.

    How a file is read can be said by options, which are part of what identifies the dataset. `text/csv; charset=NAME`
    is as good as `encoding=NAME`, `text/csv; header=absent` as `header=false`, `header=present` as `header=true`.
    """
    try:
        document, created = await _datasets(request).upload(request)
    except Problem as problem:
        if isinstance(problem, UnsupportedMediaType) and "Accept-Encoding" not in problem.headers:
            problem.headers.setdefault("Accept", ", ".join(FILE_BODY["requestBody"]["content"]))
        await _drain(request, problem)
        raise
    if created and request.app.state.settings.dataset_eviction:
        await request.app.state.janitor.sweep()  # the files of those that made room
    content = await request.app.state.crew.uploads.carry_on(_viewed, document)
    return _reply(content, 201 if created else 200, {"Location": _links(document["id"])["self"]})


async def _drain(request: Request, problem: Problem) -> None:
    """Read what is left of the body, if it is not much: most clients listen only after they have sent all of it."""
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > DRAINED or "transfer-encoding" in request.headers:
        problem.headers["Connection"] = "close"
        return
    more = not request._stream_consumed  # nobody else knows whether the last part was read
    while more:
        message = await request.receive()
        more = message["type"] == "http.request" and message.get("more_body", False)


@router.get("", summary="List datasets", response_model=DatasetPage, responses=documented(InvalidRequest))
async def list_datasets(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before.")] = None,
) -> Response:
    """Newest first."""
    try:
        entries, following = await store.arun(request.app.state.redis, store.datasets(limit=limit, cursor=cursor))
    except ValueError:
        fault = Fault("/query/cursor", "invalid_cursor", "Take the next_cursor of an earlier page, unchanged.")
        raise InvalidRequest("A parameter is wrong.", errors=[fault]) from None
    return _reply(orjson.dumps({"data": [_summary(entry) for entry in entries], "next_cursor": following}))


@router.get(
    "/{dataset_id}",
    summary="Read a dataset",
    response_model=DatasetView,
    responses=documented(NotFound, DatasetDamaged, Busy),
)
async def read_dataset(request: Request, dataset_id: str) -> Response:
    """Its columns, with types, ranges and missing values."""
    manifest = await _datasets(request).read(dataset_id, MANIFEST, request)
    if len(manifest) <= LIGHT:
        return _reply(_viewed(orjson.loads(manifest)))
    return _reply(await request.app.state.crew.checks.run(lambda: _viewed(orjson.loads(manifest)), caller=request))


@router.get(
    "/{dataset_id}/preview",
    summary="Look at the first rows",
    response_model=Preview,
    responses=documented(NotFound, DatasetDamaged, Busy),
)
async def preview_dataset(request: Request, dataset_id: str) -> Response:
    """At most 100 rows and columns; categories as their texts, dates in RFC 3339."""
    return _reply(await _datasets(request).read(dataset_id, PREVIEW, request))


@router.delete(
    "/{dataset_id}", status_code=204, summary="Delete a dataset", responses=documented(NotFound, DatasetInUse)
)
async def delete_dataset(request: Request, dataset_id: str) -> Response:
    """Refused while a job that has not ended needs it."""
    removal = await store.arun(request.app.state.redis, store.remove_dataset(dataset_id))
    if removal is Removal.UNKNOWN:
        raise NotFound("There is no dataset with this id.")
    if removal is Removal.USED:
        raise DatasetInUse("A job that has not ended needs this dataset; cancel it, or wait for its end.")
    await request.app.state.janitor.remove_files(dataset_id)
    return Response(status_code=204)
