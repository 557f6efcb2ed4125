"""Catalog and probes."""

from __future__ import annotations

from typing import Literal

import orjson
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field
from redis.exceptions import RedisError

from service.auth import require_key
from service.catalog import catalog
from service.parameters import Route
from service.preflight import diagnose, examine
from service.problems import Unavailable, documented
from worker import store
from worker.contract.job import Catalog

router = APIRouter(tags=["operations"], route_class=Route)


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """The service can take and run jobs."""

    status: Literal["ok"] = "ok"
    workers: int
    queued: int
    warnings: list[str] = Field(description="What its operators should change about the job store; empty: nothing.")


@router.get(
    "/v1/catalog", summary="List every algorithm that a spec can name", response_model=Catalog,
    dependencies=[Depends(require_key)], responses=documented(),
)  # fmt: skip
async def read_catalog() -> Response:
    """Training criteria, penalties, selection criteria, hypergradient methods and outer optimizers, with schemas."""
    return Response(orjson.dumps(catalog()), media_type="application/json")


@router.get("/healthz", summary="Liveness")
async def healthz() -> Alive:
    """200 while the process runs."""
    return Alive()


@router.get(
    "/readyz",
    summary="Readiness",
    responses=documented(Unavailable),
)
async def readyz(request: Request) -> Ready:
    """200 once the job store answers and takes writes and a worker is alive; a 503 says what has to be done."""
    state = request.app.state
    try:
        findings = await examine(state.redis)
        if findings.unusable:
            raise Unavailable(" ".join(findings.unusable), headers={"Retry-After": "30"})
        health = await store.arun(state.redis, store.health())
    except RedisError as error:
        store.note(state.redis, error)
        trouble = await diagnose(state.settings.redis_url, error)
        raise Unavailable(trouble.sentence, headers={"Retry-After": "30" if trouble.permanent else "2"}) from None
    if health.workers == 0:
        raise Unavailable("No worker is alive; jobs are accepted and wait.", headers={"Retry-After": "1"})
    return Ready(workers=health.workers, queued=health.queued, warnings=findings.refusals + findings.warnings)
