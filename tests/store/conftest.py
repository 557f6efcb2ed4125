import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.servers import binaries, server  # noqa: E402
from tests.store.crew import Workers  # noqa: E402
from tests.store.toy import FUNCTION  # noqa: E402
from worker import store  # noqa: E402
from worker.embedded import EmbeddedServer  # noqa: E402
from worker.queue import delivery  # noqa: E402

Submit = Callable[..., store.Admission]


@pytest.fixture(scope="session", params=binaries().items(), ids=lambda pair: pair[0])
def any_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """Each server that this machine has, in turn."""
    name, binary = request.param
    with server(tmp_path_factory.mktemp(name), binary) as running:
        yield running


@pytest.fixture
def client(any_server: EmbeddedServer) -> Iterator[redis.Redis]:
    with store.connect(any_server.url) as connected:
        connected.flushall()
        yield connected


@pytest.fixture
def submit(client: redis.Redis) -> Submit:
    def submit(job_id: str, *, seconds: float = 60.0, labels: dict[str, str] | None = None, **spec: Any) -> Any:
        job = store.Submission(job_id, json.dumps(spec).encode(), b"\x93NUMPY\x00\r\n", "sha", seconds, labels or {})
        return store.run(client, store.submit(job, delivery(job_id, function=FUNCTION)))

    return submit


@pytest.fixture
def workers(any_server: EmbeddedServer, client: redis.Redis, tmp_path: Path) -> Iterator[Workers]:
    crew = Workers(any_server.url, tmp_path / "workers.log")
    try:
        yield crew
    finally:
        crew.stop()
        print(crew.log.read_text() if crew.log.exists() else "no worker")
