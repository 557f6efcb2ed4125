"""The application: wiring, nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import re
import secrets
from collections.abc import AsyncIterator
from importlib import metadata
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems
from service.catalog import require_kinds
from service.compression import Compression
from service.datasets import Datasets
from service.doors import SAFE, CrossOriginSharing, Doors
from service.events import Doorbell
from service.janitor import Janitor
from service.problems import CrossOrigin, InternalError, Misdirected, Problem, ProblemDocument, Unavailable
from service.routes import datasets, jobs, operations, predictions, trajectory
from service.scrubber import Scrubber
from service.settings import Settings
from service.threads import Crew
from worker import store
from worker.contract.prediction import PredictionRequest
from worker.contract.spec import JobSpec

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,100}")
CANCEL_AGAIN = 1.0  # seconds until a task that still runs is cancelled again
log = logging.getLogger(__name__)


async def stopped(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks until each of them has ended, however it ends.

    Once is not enough: a cancellation that meets a timeout or a lost connection inside a library can be swallowed
    there (`asyncio.wait_for` of Python 3.11 does so), and a server that waits for such a task never stops.
    """
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=CANCEL_AGAIN)


def create_app(settings: Settings) -> FastAPI:
    """The HTTP service; `settings.redis_url` names the job store."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        client = store.aconnect(settings.redis_url or "")
        bell = store.aconnect(settings.redis_url or "", connections=4)  # who waits for a job needs none of the others'
        app.state.redis, app.state.doorbell, app.state.crew = client, Doorbell(bell), Crew()
        app.state.datasets = shelves = Datasets(settings, client, app.state.crew)
        uploads = app.state.crew.uploads
        app.state.janitor = Janitor(settings, client, shelves.storage, uploads, shelves.quota.limit)
        scrubber = Scrubber(settings.dataset_scrub_mb_per_second * 2**20, client, shelves.storage, uploads)
        runs = (app.state.doorbell.run(), app.state.janitor.run(), scrubber.run())
        tasks = [asyncio.create_task(run) for run in runs]
        try:
            yield
        finally:
            app.state.doorbell.close()
            await stopped(*tasks)
            app.state.datasets.close()
            app.state.crew.close()
            await bell.aclose()
            await client.aclose()

    app = FastAPI(
        title="gradtune",
        summary="Hyperparameter tuning by gradients, as a service.",
        version=metadata.version("gradtune"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.settings = settings
    problems.install(app)
    app.include_router(jobs.router)
    app.include_router(trajectory.router)
    app.include_router(predictions.router)
    app.include_router(datasets.router)
    app.include_router(operations.router)
    app.add_middleware(Compression)
    app.add_middleware(Doors, settings=settings)
    app.add_middleware(Envelope)
    if settings.origins:  # outermost: pages read errors of every kind, too
        app.add_middleware(CrossOriginSharing, origins=settings.origins)
    app.openapi = lambda: openapi(app)  # type: ignore[method-assign]
    return app


def openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: the routes' own, with the job spec and the one shape of errors put in."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes, openapi_version="3.1.0"
        )
        schemas = document["components"]["schemas"]
        for model in (JobSpec, PredictionRequest, ProblemDocument):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        problem = {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}
        for method, operation in (item for path in document["paths"].values() for item in path.items()):
            replies = operation["responses"]
            doors = (Misdirected,) if method.upper() in SAFE else (CrossOrigin, Misdirected)
            replies.update({str(status): reply for status, reply in problems.replies(*doors).items()})
            if "422" not in replies or "HTTPValidationError" in str(replies["422"]):  # unknown parameters everywhere
                replies["422"] = {"description": "A parameter is wrong.", "content": {problems.MEDIA_TYPE: problem}}
        require_kinds(schemas)
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}, {}]
        app.openapi_schema = document
    return app.openapi_schema


class Envelope:
    """Outermost layer: gives each request an id, and turns what nobody caught into a problem with that id."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(16).encode()
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        started = False
        whole = scope["method"] != "HEAD"
        if not whole:  # every path that GET reads has its headers: the reply is the same, without its body
            scope = {**scope, "method": "GET"}

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            elif not whole:
                message = {**message, "body": b""}
            await send(message)

        try:
            with store.sharing(store.REQUEST_PATIENCE):
                await self.app(scope, receive, send_with_id)
        except Exception as error:
            if started or not _exhausted(error):
                log.exception("request %s failed", request_id.decode())
            if started:
                raise
            problem: Problem = InternalError(
                "Something unexpected happened here; quote the request_id when you report it."
            )
            if _exhausted(error):  # which the server logs
                problem = Unavailable("The service has too many files open; try again.", headers={"Retry-After": "2"})
            reply = problem.response(request_id.decode())
            await reply(scope, receive, send_with_id)


def _exhausted(error: Exception) -> bool:
    """Whether there was no file descriptor left."""
    return isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}
