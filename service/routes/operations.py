"""Catalog and probes."""

from __future__ import annotations

from typing import Literal

import orjson
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from service.auth import require_key
from service.catalog import catalog
from service.preflight import examine
from service.problems import Unavailable, documented
from worker import store
from worker.contract.job import Catalog

router = APIRouter(tags=["operations"])


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


@router.get("/readyz", summary="Readiness", responses=documented(Unavailable))
async def readyz(request: Request) -> Ready:
    """200 once the job store answers and a worker is alive."""
    health = await store.arun(request.app.state.redis, store.health())
    if health.workers == 0:
        raise Unavailable("No worker is alive; jobs are accepted and wait.", headers={"Retry-After": "1"})
    findings = await examine(request.app.state.redis)
    return Ready(workers=health.workers, queued=health.queued, warnings=findings.refusals + findings.warnings)
