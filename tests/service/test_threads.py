"""Work that would hold the event loop: its lines are bounded, apart from each other, and end with their callers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI, Request

from service.settings import Settings
from service.threads import UnwantedError, go_on
from tests.contract.specs import document, table
from tests.service.api import Api, eventually, serving
from tests.service.tabular import upload
from worker.embedded import EmbeddedServer

LARGE = document(data=table(100, 20))  # is checked in a thread


class Work:
    """Work that goes on until it is released, or nobody wants it any more; named by its callers."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.unwanted: list[str] = []
        self.released = threading.Event()

    def __call__(self, name: str) -> str:
        self.begun.append(name)
        try:
            while not self.released.wait(0.005):
                go_on()
        except UnwantedError:
            self.unwanted.append(name)
            raise
        self.ended.append(name)
        return name

    def install(self, app: FastAPI) -> None:
        async def work(request: Request, kind: str, name: str) -> str:
            return str(await getattr(request.app.state.crew, kind).run(self, name, caller=request))

        app.add_api_route("/test/work", work)


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def busy(
    idle_server: EmbeddedServer, client: object, tmp_path_factory: pytest.TempPathFactory, work: Work
) -> Iterator[Api]:
    settings = Settings(redis_url=idle_server.url, data_dir=tmp_path_factory.mktemp("busy"))
    with serving(settings, work.install) as running:
        yield running
        work.released.set()


def call(api: Api, name: str, kind: str = "checks") -> socket.socket:
    """A caller who has asked for work, and does not wait for it here."""
    return send(api, f"GET /test/work?kind={kind}&name={name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


def send(api: Api, request: bytes) -> socket.socket:
    place = urlsplit(str(api.base_url))
    caller = socket.create_connection((place.hostname, place.port))
    caller.sendall(request)
    return caller


def waiting(api: Api, kind: str = "checks") -> int:
    assert api.app is not None
    return int(getattr(api.app.state.crew, kind)._waiting)


def test_work_ends_with_its_caller(busy: Api, work: Work) -> None:
    """What waits is never begun, what runs ends at its next look, and both make room."""
    first, second, third = call(busy, "first"), call(busy, "second"), None
    with closing(second):
        eventually(lambda: len(work.begun) == 2)
        with closing(call(busy, "third")):
            eventually(lambda: waiting(busy) == 1)
        eventually(lambda: waiting(busy) == 0)
        assert work.unwanted == []
        third = call(busy, "fourth")
        eventually(lambda: waiting(busy) == 1)
        first.close()
        eventually(lambda: len(work.begun) == 3)
        assert work.unwanted == ["first"]
        assert set(work.begun) == {"first", "second", "fourth"}
        work.released.set()
        for caller in (second, third):
            assert caller.recv(1000).startswith(b"HTTP/1.1 200")
    third.close()


def test_a_full_line_is_told_and_other_kinds_go_on(busy: Api, work: Work) -> None:
    dataset = upload(busy, b"a,y\n" + b"".join(b"%d,%d\n" % (n, n * n % 7) for n in range(20)), "text/csv")["id"]
    of_dataset = {"data": {"dataset_id": dataset, "target": "y"}, "training": {"kind": "ridge"}}
    assert busy.app is not None
    busy.app.state.crew.checks._line = 3
    callers = [call(busy, str(n)) for n in range(5)]
    try:
        eventually(lambda: (len(work.begun), waiting(busy)) == (2, 3))
        for spec in (LARGE, of_dataset):
            for path in ("/v1/jobs", "/v1/jobs?validate_only=true"):
                reply = busy.post(path, json=spec)
                assert (reply.status_code, reply.json()["code"]) == (503, "busy")
                assert int(reply.headers["retry-after"]) > 0
        assert busy.create(document()).status_code == 202  # a small one needs no thread
        assert busy.get(f"/v1/datasets/{dataset}").status_code == 200
        assert busy.get(f"/v1/datasets/{dataset}/preview").status_code == 200
        assert busy.delete(f"/v1/datasets/{dataset}").status_code == 204
    finally:
        work.released.set()
        for caller in callers:
            caller.close()
    eventually(lambda: busy.create(LARGE).status_code == 202)


def test_heavy_requests_whose_callers_have_left_cost_nothing(busy: Api, work: Work) -> None:
    """The specs of twenty callers who hang up wait in the line, and leave it."""
    with closing(call(busy, "first")), closing(call(busy, "second")):
        eventually(lambda: len(work.begun) == 2)
        body = busy.build_request("POST", "/v1/jobs", json=LARGE).read()
        head = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        callers = [send(busy, head.encode() + body) for _ in range(20)]
        eventually(lambda: waiting(busy) == 20)
        for caller in callers:
            caller.close()
        eventually(lambda: waiting(busy) == 0)
        work.released.set()
    assert busy.get("/v1/jobs").json()["data"] == []


def test_who_waits_too_long_is_refused(busy: Api, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.threads.PATIENCE", 0.05)
    with closing(call(busy, "first")), closing(call(busy, "second")):
        eventually(lambda: len(work.begun) == 2)
        assert busy.create(LARGE).json()["code"] == "busy"
        work.released.set()
