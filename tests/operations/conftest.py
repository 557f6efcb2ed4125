from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from tests.servers import server
from worker import store
from worker.embedded import EmbeddedServer


@pytest.fixture(scope="session")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One server for all tests of the store."""
    with server(tmp_path_factory.mktemp("operated")) as running:
        yield running


@pytest.fixture
def client(operated: EmbeddedServer) -> Iterator[redis.Redis]:
    """The empty store."""
    with store.connect(operated.url) as connected:
        connected.flushall()
        yield connected
