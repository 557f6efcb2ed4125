"""Long polls: many at once, beside requests that need the store, and callers that leave."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
import redis
from fastapi import FastAPI, Request

from service.settings import Settings
from tests.servers import server
from tests.service.api import Api, eventually, serving
from tests.service.raw import own_process, polls
from tests.service.watched import WAITING
from worker import store
from worker.embedded import EmbeddedServer
from worker.queue import delivery
from worker.store import Submission

MANY = 150
FAR_TOO_MANY = 5000
JOBS = 50


def add_hoarding_route(app: FastAPI) -> None:
    """A route that takes every connection of the pool, and gives them back when it is asked again."""
    held = []

    async def hoard(request: Request) -> int:
        pool = request.app.state.redis.connection_pool
        if held:
            while held:
                await pool.release(held.pop())
            return 0
        while pool.can_get_connection():
            held.append(await pool.get_connection())
        return len(held)

    app.add_api_route("/test/hoard", hoard)


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with server(tmp_path_factory.mktemp("polled")) as running:
        yield running


@pytest.fixture(scope="module")
def polled(own_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    settings = Settings(redis_url=own_server.url, data_dir=tmp_path_factory.mktemp("polled-data"))
    with serving(settings, add_hoarding_route) as running:
        yield running


@pytest.fixture
def apart(own_server: EmbeddedServer, tmp_path: Path) -> Iterator[Api]:
    """A process of its own."""
    with own_process(own_server.url, tmp_path) as running:
        yield running


@pytest.fixture
def client(own_server: EmbeddedServer) -> Iterator[redis.Redis]:
    with store.connect(own_server.url) as connected:
        connected.flushall()
        yield connected


def submitted(client: redis.Redis, number: int) -> list[str]:
    """Jobs that wait for ever, as there is no worker."""
    ids = [f"job_{n:024x}" for n in range(number)]
    for job_id in ids:
        store.run(client, store.submit(Submission(job_id, b"{}", b"", "f", 60.0), delivery(job_id)))
    return ids


def waiting(api: Api) -> int:
    """How many wait for the doorbell."""
    assert api.app is not None
    return sum(map(len, api.app.state.doorbell._waiters.values()))


def reads(client: redis.Redis) -> int:
    """How often a job was read."""
    return int(client.info("commandstats").get("cmdstat_hmget", {}).get("calls", 0))


def cancel_all(client: redis.Redis, ids: list[str]) -> None:
    for job_id in ids:
        store.run(client, store.cancel(job_id))


def test_a_busy_pool_of_connections_does_not_end_a_long_poll(polled: Api, client: redis.Redis) -> None:
    (job_id,) = submitted(client, 1)
    assert polled.get("/test/hoard").json() > 10
    try:
        reply = polled.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=1"})
        assert (reply.status_code, reply.json()["status"]) == (200, "queued")
        assert polled.get(f"/v1/jobs/job_{'f' * 24}", headers={"Prefer": "wait=1"}).status_code == 404
    finally:
        assert polled.get("/test/hoard").json() == 0


def test_those_who_wait_for_a_job_read_it_together(polled: Api, client: redis.Redis) -> None:
    ids = submitted(client, 1)
    before = reads(client)

    def end() -> None:
        eventually(lambda: waiting(polled) == MANY)
        cancel_all(client, ids)

    found = polls(str(polled.base_url), [f"/v1/jobs/{ids[0]}"] * MANY, 60, meanwhile=end)
    assert found == {200: MANY}
    assert reads(client) - before < MANY / 2  # one by one it is two for each
    assert waiting(polled) == 0


def test_nobody_waits_for_a_caller_who_has_left(polled: Api, client: redis.Redis) -> None:
    (job_id,) = submitted(client, 1)
    place = urlsplit(str(polled.base_url))
    with socket.create_connection((place.hostname, place.port)) as caller:
        caller.sendall(f"GET /v1/jobs/{job_id} HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=60\r\n\r\n".encode())
        eventually(lambda: waiting(polled) == 1)
    eventually(lambda: waiting(polled) == 0, 30)  # the poll alone would take 60


def test_a_ring_that_is_lost_with_the_connection_is_made_up_for(polled: Api, client: redis.Redis) -> None:
    """The client library connects again by itself, and says nothing."""
    ids = submitted(client, 3)
    began = time.monotonic()

    def end() -> None:
        eventually(lambda: waiting(polled) == len(ids))
        assert client.client_kill_filter(_type="pubsub") == 1
        cancel_all(client, ids)

    found = polls(str(polled.base_url), [f"/v1/jobs/{job_id}" for job_id in ids], 60, meanwhile=end)
    assert found == {200: len(ids)}
    assert time.monotonic() - began < 45  # the polls alone would take 60


def test_every_job_of_a_reading_has_its_own_place(polled: Api, client: redis.Redis) -> None:
    """Several jobs are read at once: those that wait, one that has ended, and one that is not there."""
    ids = submitted(client, 40)
    store.run(client, store.cancel(ids[1]))

    async def look() -> list[httpx2.Response]:
        async with httpx2.AsyncClient(base_url=str(polled.base_url), trust_env=False, timeout=60) as caller:
            asked = [*ids, "job_" + "f" * 24]
            headers = {"Prefer": "wait=1", "If-None-Match": '"0"'}
            return await asyncio.gather(*(caller.get(f"/v1/jobs/{job_id}", headers=headers) for job_id in asked))

    *known, unknown = asyncio.run(look())
    assert [reply.json()["id"] for reply in known] == ids
    assert unknown.status_code == 404
    places = [reply.json()["progress"]["queue_position"] for reply in known]
    assert places[1] is None
    assert len({place for place in places if place is not None}) == len(ids) - 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_thousands_at_once(apart: Api, client: redis.Redis) -> None:
    """All of them read at the beginning, when the doorbell was lost for a moment, and when their jobs end."""
    ids = submitted(client, JOBS)
    paths = [f"/v1/jobs/{ids[n % JOBS]}" for n in range(FAR_TOO_MANY)]
    for lost in (False, True):

        def end(lost: bool = lost) -> None:
            eventually(lambda: apart.get(WAITING).json() == FAR_TOO_MANY)
            if lost:
                client.client_kill_filter(_type="pubsub")
            cancel_all(client, ids)

        began = time.monotonic()
        found = polls(str(apart.base_url), paths, 60, meanwhile=end)
        print(f"{FAR_TOO_MANY} long polls in {time.monotonic() - began:.1f} s: {dict(found)}")
        assert found == {200: FAR_TOO_MANY}
        client.flushall()
        submitted(client, JOBS)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_thousands_whose_time_is_over_at_once(apart: Api, client: redis.Redis) -> None:
    """Each of a job of its own, so that nobody reads for somebody else."""
    ids = submitted(client, FAR_TOO_MANY)
    found = polls(str(apart.base_url), [f"/v1/jobs/{job_id}" for job_id in ids], 5, meanwhile=lambda: None)
    assert found == {200: FAR_TOO_MANY}


@pytest.mark.slow
def test_a_store_that_hangs_is_told_to_all_who_wait_in_line(tmp_path: Path) -> None:
    with server(tmp_path) as running, serving(Settings(redis_url=running.url, data_dir=tmp_path / "data")) as api:
        ids = [f"job_{n:024x}" for n in range(640)]
        pid = running.pid or 0
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            found = polls(str(api.base_url), [f"/v1/jobs/{job_id}" for job_id in ids], 60, meanwhile=lambda: None)
            assert found == {503: len(ids)}
            assert time.monotonic() - began < 20  # one after the other: 2 s for each 32 of them
        finally:
            os.kill(pid, signal.SIGCONT)
