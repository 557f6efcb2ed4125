"""Everything that goes wrong is a problem of one shape; the client of these tests checks the shape itself."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from service.client import Client, ClientError
from service.fitting import MOST_ITEMS, parsed
from service.requests import DRAINED, MAX_BODY, MAX_VALUES
from service.settings import Settings
from tests.contract.specs import document
from tests.servers import server
from tests.service.api import Api, eventually, faults, serving
from worker import store

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1", "/v1/jobs/", "/v1/jobs/x/y", "/v2/jobs", "/v1/catalog/", "//", "/%00"]
)
def test_nothing_there(api: Api, path: str) -> None:
    reply = api.get(path)
    assert (reply.status_code, reply.json()["code"]) == (404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/jobs", "GET, POST, HEAD, OPTIONS"),
        ("DELETE", "/v1/jobs", "GET, POST, HEAD, OPTIONS"),
        ("PATCH", "/v1/jobs/job_1", "DELETE, GET, HEAD, OPTIONS"),
        ("GET", "/v1/jobs/job_1/cancel", "POST, OPTIONS"),
        ("POST", "/v1/jobs/job_1/result", "GET, HEAD, OPTIONS"),
        ("POST", "/v1/catalog", "GET, HEAD, OPTIONS"),
        ("POST", "/healthz", "GET, HEAD, OPTIONS"),
        ("HEAD", "/v1/jobs/job_1/cancel", "POST, OPTIONS"),
    ],
)
def test_a_method_that_a_path_does_not_take(api: Api, method: str, path: str, allow: str) -> None:
    reply = api.request(method, path)
    assert reply.status_code == 405
    assert reply.headers["allow"] == allow
    for name in allow.split(", "):
        assert api.request(name, path).status_code != 405


@pytest.mark.parametrize("path", ["/healthz", "/v1/catalog", "/v1/jobs", "/v1/datasets", "/openapi.json", "/nothing"])
def test_head_is_get_without_its_body(api: Api, path: str) -> None:
    head, get = api.head(path), api.get(path)
    assert (head.status_code, head.content) == (404 if path == "/nothing" else 200, b"")
    assert get.status_code == head.status_code
    for name in ("content-type", "content-length"):
        assert head.headers[name] == get.headers[name]


def test_options(api: Api) -> None:
    reply = api.options("/v1/datasets")
    assert (reply.status_code, reply.headers["allow"]) == (204, "GET, POST, HEAD, OPTIONS")
    assert api.options("/nothing").status_code == 404


def raw(api: Api, headers: dict[str, str], body: Iterator[bytes]) -> tuple[int, dict[str, object]]:
    """Send a body piece by piece, and stop when the server does not want more of it."""
    connection = http.client.HTTPConnection(str(api.base_url.host), api.base_url.port, timeout=60)
    try:
        connection.putrequest("POST", "/v1/jobs")
        for name, value in {**JSON, **headers}.items():
            connection.putheader(name, value)
        connection.endheaders()
        try:
            for piece in body:
                connection.send(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()


def test_a_body_that_is_declared_far_too_large_is_refused_unread(api: Api) -> None:
    status, problem = raw(api, {"Content-Length": str(DRAINED + 1)}, iter(()))
    assert (status, problem["code"]) == (413, "too-large")
    assert str(MAX_BODY) in str(problem["detail"])


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/datasets"])
def test_a_client_that_hangs_up_in_the_middle_of_a_body_is_no_error(api: Api, path: str) -> None:
    sent = []

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json" if path == "/v1/jobs" else b"text/csv")]
    request = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers, "app": api.app}
    asyncio.run(api.app(request, receive, send))
    assert sent[0]["status"] == 499


@pytest.mark.parametrize("size", [MAX_BODY, DRAINED])
def test_a_body_that_turns_out_too_large_is_refused(api: Api, size: int) -> None:
    piece = b"%x\r\n" % 65536 + b" " * 65536 + b"\r\n"
    end = [b"0\r\n\r\n"] if size < DRAINED else []  # nobody waits for the end of a body without bounds
    status, problem = raw(api, {"Transfer-Encoding": "chunked"}, chain([piece] * (size // 65536 + 1), end))
    assert (status, problem["code"]) == (413, "too-large")
    assert api.create(document()).status_code == 202


@pytest.mark.parametrize("size", [MAX_BODY + 1, 5 * MAX_BODY])
def test_clients_that_send_everything_first_see_the_refusal(api: Api, size: int) -> None:
    reply = api.post("/v1/jobs", content=b" " * size, headers=JSON)
    assert (reply.status_code, reply.headers["connection"]) == (413, "close")
    with pytest.raises(ClientError, match="413 Too large"):
        Client(str(api.base_url)).post("/v1/jobs", b" " * size)


def test_a_body_at_the_limit_is_read(api: Api) -> None:
    assert faults(api.post("/v1/jobs", content=b" " * MAX_BODY, headers=JSON)) == [("", "invalid_json")]


def test_a_table_with_too_many_numbers(api: Api) -> None:
    rows = MAX_VALUES // 10
    reply = api.create(document(data={"x": [[0] * 9] * rows + [[0] * 9], "y": [0] * (rows + 1)}))
    assert (reply.status_code, reply.json()["code"]) == (413, "too-large")
    assert str(MAX_VALUES) in reply.json()["detail"]
    data = {"x": [[i % 7, i % 5, i % 3, i, 0, 1, 2, 3, 4] for i in range(rows)], "y": [i % 11 for i in range(rows)]}
    assert api.create(document(data=data)).status_code == 202


def test_a_body_of_millions_of_items_is_refused_before_it_is_taken_apart(api: Api) -> None:
    body = b'{"data":{"y":[1' + b",1" * MOST_ITEMS + b",1]}}"
    reply = api.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["code"]) == (413, "too-large")


def test_the_longest_table_with_every_role_has_fewer_items() -> None:
    rows = MAX_VALUES // 2
    roles = ("y", "time", "groups", "weights", "source", "fold", "scoring", "offset")
    data = {"x": [[0.5]] * rows, **{role: [1] * rows for role in roles}, "source": ["a"] * rows}
    spec = {
        "data": data,
        "training": {"kind": "ridge"},
        "selection": {"kind": "given_folds", "fold_of_row": [0, 1] * (rows // 2)},
    }
    assert parsed(json.dumps(spec).encode()).training.kind == "ridge"


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp", "json"]
)
def test_only_json_is_read(api: Api, media_type: str) -> None:
    reply = api.post("/v1/jobs", content=json.dumps(document()), headers={"Content-Type": media_type})
    assert (reply.status_code, reply.json()["code"]) == (415, "unsupported-media-type")


def test_json_may_be_spelled_in_several_ways(api: Api) -> None:
    for media_type in ("application/json; charset=utf-8", "Application/JSON", "application/json ;x=y"):
        reply = api.post("/v1/jobs", content=json.dumps(document()), headers={"Content-Type": media_type})
        assert reply.status_code == 202


def test_a_body_of_another_encoding_is_not_read(api: Api) -> None:
    reply = api.post("/v1/jobs", content=b"", headers={**JSON, "Content-Encoding": "br"})
    assert reply.status_code == 415


def test_a_bad_spec_over_http(api: Api) -> None:
    reply = api.create(document(training__penalty={"kind": "per_group", "groups": {"a": ["x0"]}}, test_fraction=0.01))
    assert faults(reply) == [("/training/penalty", "does_not_fit"), ("/test_fraction", "does_not_fit")]
    reply = api.create({**document(), "data": {"x": [["secret"] * 1000] * 100, "y": [1.0, "secret"]}})
    assert faults(reply) == [("/data/x/0/0", "float_type"), ("/data/y/1", "float_type")]
    assert "secret" not in reply.text
    assert api.get("/v1/jobs").json()["data"] == []


def test_a_bug_is_an_internal_error_without_details(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    reply = api.get("/test/crash", headers={"X-Request-Id": "mine"})
    assert (reply.status_code, reply.json()["code"], reply.json()["request_id"]) == (500, "internal-error", "mine")
    assert "secret" not in reply.text
    assert any("mine" in record.getMessage() and record.exc_info for record in caplog.records)
    assert api.get("/healthz").status_code == 200


def test_a_request_id_is_kept_or_made(api: Api) -> None:
    for given in ("a", "A-z.0:9_", "x" * 100):
        assert api.get("/healthz", headers={"X-Request-Id": given}).headers["x-request-id"] == given
    made = set()
    for wrong in ("", "a b", "x" * 101, "a;b", "<script>", "ä", None):
        headers = {} if wrong is None else {"X-Request-Id": wrong.encode()}
        made.add(api.get("/healthz", headers=headers).headers["x-request-id"])
    assert len(made) == 7
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in made)


def test_without_the_store_everything_says_so_and_comes_back_with_it(tmp_path: Path) -> None:
    with server(tmp_path) as embedded, serving(Settings(redis_url=embedded.url)) as api:
        job_id = api.created(document())["id"]
        assert embedded.pid is not None
        os.kill(embedded.pid, signal.SIGKILL)
        eventually(lambda: not embedded.alive)
        path = f"/v1/jobs/{job_id}"
        requests: list[Callable[[], httpx2.Response]] = [
            lambda: api.create(document()),
            lambda: api.get(path),
            lambda: api.get(path, headers={"Prefer": "wait=60"}),
            lambda: api.get("/v1/jobs"),
            lambda: api.delete(path),
            lambda: api.get("/readyz"),
        ]
        with ThreadPoolExecutor(len(requests)) as pool:
            replies = list(pool.map(lambda send: send(), requests))
        assert {reply.status_code for reply in replies} == {503}
        assert all(int(reply.headers["retry-after"]) > 0 for reply in replies)
        assert "before you send it again" in replies[0].json()["detail"]
        assert api.get("/healthz").status_code == 200
        assert api.get("/v1/catalog").status_code == 200

        embedded.restart()
        assert api.get(path).json()["status"] == "queued"
        other = api.created(document())["id"]
        assert [job["id"] for job in api.get("/v1/jobs").json()["data"]] == [other, job_id]
        # the subscription is made again, too: a change wakes those who wait
        assert api.app is not None
        eventually(lambda: embedded_subscribers(embedded.url) == 1)


def test_a_store_that_takes_no_writes_says_that_nothing_was_changed(api: Api, client: redis.Redis) -> None:
    client.config_set("min-replicas-to-write", 1)
    try:
        reply = api.create(document())
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "2")
        assert "nothing was changed" in reply.json()["detail"]
        assert api.get("/v1/jobs").json()["data"] == []
    finally:
        client.config_set("min-replicas-to-write", 0)
    api.created(document())


def test_a_created_job_is_named_although_it_cannot_be_read(tmp_path: Path) -> None:
    with server(tmp_path) as embedded, serving(Settings(redis_url=embedded.url)) as api:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(api.create, document(), Prefer="wait=10")
            eventually(lambda: len(api.get("/v1/jobs").json()["data"]) == 1)
            (job,) = api.get("/v1/jobs").json()["data"]
            assert embedded.pid is not None
            os.kill(embedded.pid, signal.SIGKILL)
            reply = waiting.result()
        assert reply.status_code == 503
        assert reply.headers["location"] == job["links"]["self"]
        assert "was created" in reply.json()["detail"]
        embedded.restart()
        assert api.get(reply.headers["location"]).json()["status"] == "queued"


def embedded_subscribers(url: str) -> int:
    with store.connect(url) as client:
        ((_, count),) = client.pubsub_numsub(store.CHANGED)
        return int(count)
