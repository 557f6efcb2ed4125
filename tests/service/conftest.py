"""An API without a worker on an empty store for each test, and one with a worker that all tests share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import redis
from fastapi import FastAPI

from service.settings import Settings
from tests.servers import server
from tests.service.api import Api, eventually, serving
from worker import store
from worker.embedded import EmbeddedServer, die_with_parent

RETENTION_DAYS = 2.0
MAX_QUEUED = 8


def add_failing_route(app: FastAPI) -> None:
    """A route with a bug."""

    async def crash() -> None:
        raise ZeroDivisionError("a secret of the implementation")

    app.add_api_route("/test/crash", crash)


@pytest.fixture(scope="session")
def idle_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with server(tmp_path_factory.mktemp("idle")) as running:
        yield running


@pytest.fixture(scope="session")
def idle_api(idle_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    settings = Settings(
        redis_url=idle_server.url,
        data_dir=tmp_path_factory.mktemp("idle-data"),
        max_queued=MAX_QUEUED,
        retention_days=RETENTION_DAYS,
    )
    with serving(settings, add_failing_route) as running:
        yield running


@pytest.fixture
def client(idle_server: EmbeddedServer) -> Iterator[redis.Redis]:
    """The empty store behind `api`."""
    with store.connect(idle_server.url) as connected:
        connected.flushall()
        yield connected


@pytest.fixture
def api(idle_api: Api, client: redis.Redis) -> Api:
    """An API whose jobs wait for ever."""
    return idle_api


@pytest.fixture(scope="session")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with server(tmp_path_factory.mktemp("live")) as running:
        yield running


@pytest.fixture(scope="session")
def live(live_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API with a real worker process."""
    data_dir = tmp_path_factory.mktemp("live-data")
    settings = Settings(redis_url=live_server.url, data_dir=data_dir, retention_days=RETENTION_DAYS)
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.main"],
        env={**os.environ, **settings.environment()},
        preexec_fn=die_with_parent(os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - should the tests themselves be killed
    )
    try:
        with serving(settings) as running:
            eventually(lambda: running.get("/readyz").status_code == 200)
            yield running
    finally:
        process.terminate()
        process.wait(30)
