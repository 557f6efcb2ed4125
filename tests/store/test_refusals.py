"""A server that answers and takes no writes for a while, as one with a full disk does."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis

from tests.store.crew import Workers, attempts_of_steps, ended, running
from worker import store
from worker.embedded import EmbeddedServer
from worker.queue import delivery
from worker.store import Admission, RefusedError, Submission

Submit = Callable[..., Admission]
SUBMISSION = Submission("j", b"{}", b"data", "f", 9.0)
WAYS = {  # how it comes to that, and how it ends
    "a replica is missing": (
        ("CONFIG", "SET", "min-replicas-to-write", 1),
        ("CONFIG", "SET", "min-replicas-to-write", 0),
    ),
    "it is a replica": (("REPLICAOF", "127.0.0.1", 1), ("REPLICAOF", "NO", "ONE")),
    "its memory is full": (("CONFIG", "SET", "maxmemory", 1), ("CONFIG", "SET", "maxmemory", 0)),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, client: redis.Redis) -> Iterator[str]:
    yield request.param
    client.execute_command(*WAYS[request.param][1])


@contextmanager
def refusing(client: redis.Redis, way: str, seconds: float) -> Iterator[None]:
    begin, end = WAYS[way]
    client.execute_command(*begin)
    timer = threading.Timer(seconds, client.execute_command, end)
    timer.start()
    yield
    timer.join()


def test_an_operation_is_tried_again(client: redis.Redis, any_server: EmbeddedServer, way: str) -> None:
    async def submit() -> Admission:
        patient = store.aconnect(any_server.url, patience=60.0)
        try:
            return await store.arun(patient, store.submit(SUBMISSION, delivery("j")))
        finally:
            await patient.aclose()

    with refusing(client, way, 0.5):
        assert asyncio.run(submit())
    assert store.run(client, store.claim("j", "o", lease=1000.0)) is not None
    with refusing(client, way, 0.5), store.connect(any_server.url) as patient:
        assert store.run(patient, store.beat("j", 1, progress=b"{}", elapsed=1.0)) is store.Verdict.OK


def test_not_for_ever(client: redis.Redis, any_server: EmbeddedServer, way: str) -> None:
    client.execute_command(*WAYS[way][0])
    with store.connect(any_server.url, patience=1.0) as impatient:
        before = impatient.dbsize()
        with pytest.raises(RefusedError):
            store.run(impatient, store.submit(SUBMISSION, delivery("j")))
        assert impatient.dbsize() == before


def test_other_errors_are_not_tried_again(client: redis.Redis, any_server: EmbeddedServer) -> None:
    assert store.run(client, store.submit(SUBMISSION, delivery("j")))
    assert store.run(client, store.claim("j", "o")) is not None
    missing = store.beat("j", 1, elapsed=1.0, checkpoint=b"c", steps=[b"s"], steps_before=5)
    began = time.monotonic()
    with store.connect(any_server.url) as patient, pytest.raises(redis.ResponseError, match="missing"):
        store.run(patient, missing)
    assert time.monotonic() - began < 30  # its patience is a minute


def test_a_running_job_waits_and_goes_on(client: redis.Redis, workers: Workers, submit: Submit) -> None:
    worker = workers.start()
    submit("j", steps=30, pause=0.05)
    running(client, "j", 3)
    with refusing(client, "a replica is missing", 1.5):
        pass
    ended(client, "j", watched=True)
    assert attempts_of_steps(client, "j") == [1] * 30
    assert worker.is_running()
