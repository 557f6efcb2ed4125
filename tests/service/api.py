"""A client that checks every reply, whatever the test at hand is about, and a real API server to talk to."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
from fastapi import FastAPI
from jsonschema import Draft202012Validator

from service.app import create_app
from service.problems import MEDIA_TYPE, ProblemDocument
from service.server import bind, make_server
from service.settings import Settings
from worker.contract.job import Catalog, HyperparameterPage, Job, JobPage, StepPage, Validation
from worker.contract.prediction import Predictions
from worker.contract.result import Result
from worker.contract.wire import Wire

DOCUMENT = create_app(Settings()).openapi()
MODELS: dict[str, type[Wire]] = {
    model.__name__: model
    for model in (Job, JobPage, StepPage, HyperparameterPage, Validation, Catalog, Result, Predictions)
}  # fmt: skip
OPERATIONS = [
    (re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), method.upper(), operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]
ANY_STATUS = {400, 405, 408, 431}  # replied before there is an operation that could document it


def eventually(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that will come, on a slow machine later."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def check(reply: httpx2.Response) -> None:
    """What holds for every reply: a request id, errors as problems, and what the OpenAPI document promises."""
    reply.read()
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,100}", reply.headers["x-request-id"])
    if reply.status_code >= 400:
        check_problem(reply)
    method, path = reply.request.method, reply.request.url.path
    for pattern, name, operation in OPERATIONS:
        if name == method and pattern.fullmatch(path) and reply.status_code not in ANY_STATUS:
            check_documented(reply, operation)


def check_problem(reply: httpx2.Response) -> None:
    assert reply.headers["content-type"] == MEDIA_TYPE
    if reply.request.method == "HEAD":
        return
    assert len(reply.content) < 10_000
    body = reply.json()
    ProblemDocument.model_validate(body, strict=True, extra="forbid")
    assert (body["status"], body["request_id"]) == (reply.status_code, reply.headers["x-request-id"])
    assert body["type"] == f"urn:gradtune:problem:{body['code']}"
    assert body["detail"].endswith(".")
    assert "Traceback" not in reply.text


def check_documented(reply: httpx2.Response, operation: dict[str, Any]) -> None:
    documented = operation["responses"][str(reply.status_code)]
    if "content" not in documented:
        assert reply.content == b""
        return
    ((media_type, content),) = documented["content"].items()
    assert reply.headers["content-type"] == media_type
    body = json.loads(reply.content, parse_constant=lambda name: f"{name} is no JSON")
    schema = {**content["schema"], "components": DOCUMENT["components"]}
    Draft202012Validator(schema).validate(shortened(body))  # which is slow; the model below sees all
    name = content["schema"].get("$ref", "").rpartition("/")[2]
    if name in MODELS:
        MODELS[name].model_validate_json(reply.content)


def shortened(value: Any) -> Any:
    """The document with the ends of its long lists."""
    if isinstance(value, dict):
        return {name: shortened(member) for name, member in value.items()}
    if isinstance(value, list):
        return [shortened(item) for item in (value if len(value) <= 20 else value[:10] + value[-10:])]
    return value


class Api(httpx2.Client):
    """Talks to one API server; every reply is checked."""

    def __init__(self, url: str, app: FastAPI | None = None, **options: Any) -> None:
        super().__init__(base_url=url, event_hooks={"response": [check]}, timeout=90.0, trust_env=False, **options)
        self.app = app

    def create(self, spec: dict[str, Any], **headers: str) -> httpx2.Response:
        """POST a job spec."""
        return self.post("/v1/jobs", json=spec, headers=headers)

    def created(self, spec: dict[str, Any], **headers: str) -> dict[str, Any]:
        """The job that a spec makes."""
        reply = self.create(spec, **headers)
        assert reply.status_code in {201, 202}, reply.text
        return dict(reply.json())

    def ended(self, job_id: str, seconds: float = 90.0) -> dict[str, Any]:
        """The job once it has ended."""
        deadline = time.monotonic() + seconds
        while True:
            reply = self.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=10"})
            assert reply.status_code == 200, reply.text
            if reply.json()["done"]:
                return dict(reply.json())
            assert time.monotonic() < deadline, reply.text

    def result(self, job_id: str) -> dict[str, Any]:
        """The result of a job that has one."""
        reply = self.get(f"/v1/jobs/{job_id}/result")
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    def steps(self, job_id: str, after: int = 0) -> list[dict[str, Any]]:
        """The trajectory, page by page."""
        steps: list[dict[str, Any]] = []
        following: int | None = after
        while following is not None:
            page = self.get(f"/v1/jobs/{job_id}/steps", params={"after": following}).json()
            steps += page["data"]
            following = page["next_after"]
        return steps


def faults(reply: httpx2.Response) -> list[tuple[str, str]]:
    """Pointer and code of each fault of a 422."""
    assert reply.status_code == 422, reply.text
    return [(fault["pointer"], fault["code"]) for fault in reply.json()["errors"]]


@contextmanager
def serving(settings: Settings, prepare: Callable[[FastAPI], None] | None = None) -> Iterator[Api]:
    """An API server in a thread of this process, on a free port."""
    app = create_app(settings)
    if prepare is not None:
        prepare(app)
    with bind(settings.model_copy(update={"port": 0})) as listener:
        server = make_server(app, settings.model_copy(update={"log_level": "error"}), grace=1)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            eventually(lambda: server.started)
            with Api(f"http://127.0.0.1:{listener.getsockname()[1]}", app) as api:
                yield api
        finally:
            server.should_exit = True
            thread.join()
