"""A real worker whose n-th exchange with the server fails, for every n until its job is done without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.operations.forwarder import Forwarder
from tests.operations.invariants import check
from tests.store.crew import Workers, attempts_of_steps, ended
from tests.store.toy import FUNCTION
from worker import store
from worker.embedded import EmbeddedServer
from worker.queue import delivery

STEPS = 3


@pytest.fixture
def forwarder(operated: EmbeddedServer) -> Iterator[Forwarder]:
    with Forwarder(operated.url.removeprefix("unix://")) as running:
        yield running


@pytest.fixture
def worker(forwarder: Forwarder, client: redis.Redis, tmp_path: Path) -> Iterator[None]:
    """A worker that reaches the server by the forwarder alone."""
    crew = Workers(forwarder.url, tmp_path / "worker.log")
    crew.start()
    try:
        yield
    finally:
        crew.stop()
        print(crew.log.read_text())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.usefixtures("worker")
def test_every_job_ends_once(client: redis.Redis, forwarder: Forwarder, when: str) -> None:
    number, untouched = 0, 0
    while untouched < 2:  # the idle worker's own exchanges count, too: how many come before a job ends is up to chance
        number += 1
        job_id = f"job-{number}"
        forwarder.arm(number, after=when == "after")
        spec = json.dumps({"steps": STEPS, "pause": 0.01}).encode()
        submission = store.Submission(job_id, spec, b"data", "f", 60.0)
        store.run(client, store.submit(submission, delivery(job_id, function=FUNCTION)))
        ended(client, job_id, watched=True)
        check(client)
        attempts = attempts_of_steps(client, job_id)
        assert len(attempts) == STEPS
        assert attempts == sorted(attempts)
        untouched = 0 if forwarder.failed else untouched + 1
        print(f"exchange {number} fails {when}: {max(attempts)} attempts")
    assert number > STEPS + 3
