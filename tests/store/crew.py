"""Real workers in processes of their own, and what tests ask about their jobs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import redis
from rq.registry import FailedJobRegistry, StartedJobRegistry

from tests.store.toy import FUNCTION
from worker import store
from worker.queue import reconcile
from worker.store import Status, keys

ROOT = Path(__file__).parents[2]
LEASE = 2.0


def eventually(true: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Workers:
    """Worker processes, stopped at the end by their ids."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self.log = log
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, jobs: int = 200) -> psutil.Process:
        """A worker for toy jobs."""
        return self._start(["tests.store.toy", self.url, str(LEASE), str(jobs)])

    def start_real(self, **settings: str) -> psutil.Process:
        """A worker as the service starts it."""
        return self._start(["worker.main"], {"GRADTUNE_REDIS_URL": self.url, **settings})

    def _start(self, command: list[str], settings: dict[str, str] | None = None) -> psutil.Process:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env={**os.environ, **(settings or {})},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started.append(process)
        return psutil.Process(process.pid)

    def stop_one(self, number: int) -> None:
        process = self.started[number]
        horses = psutil.Process(process.pid).children() if process.poll() is None else []
        process.kill()
        process.wait()
        for left in horses:  # where a horse does not die with its worker
            with suppress(psutil.NoSuchProcess):
                left.kill()

    def stop(self) -> None:
        for number in range(len(self.started)):
            self.stop_one(number)


def record(client: redis.Redis, job_id: str) -> store.JobRecord:
    found = store.run(client, store.job(job_id))
    assert found is not None
    return found


def outcome(client: redis.Redis, job_id: str) -> dict[str, int]:
    document = store.run(client, store.result(job_id))
    assert document is not None
    loaded = json.loads(document)
    assert isinstance(loaded, dict)
    return loaded


def attempts_of_steps(client: redis.Redis, job_id: str) -> list[int]:
    """The attempt that made each step, after a check that no step is missing or doubled."""
    steps = [json.loads(step) for step in store.run(client, store.steps(job_id))]
    assert [step["step"] for step in steps] == list(range(1, len(steps) + 1))
    return [step["attempt"] for step in steps]


def running(client: redis.Redis, job_id: str, steps: int = 1, seconds: float = 30.0) -> None:
    """Wait until a job has stored some steps."""
    eventually(lambda: len(store.run(client, store.steps(job_id))) >= steps, seconds)


def ended(client: redis.Redis, job_id: str, status: Status = Status.SUCCEEDED, *, watched: bool = False) -> None:
    """Wait for the end of a job, with a reconciler if it is `watched`."""

    def done() -> bool:
        if watched:
            reconcile(client, LEASE, function=FUNCTION)
        return record(client, job_id).done

    eventually(done, 60.0)
    assert record(client, job_id).status is status


def the_horse(worker: psutil.Process) -> psutil.Process:
    found: list[psutil.Process] = []

    def look() -> bool:
        found[:] = worker.children()
        return len(found) == 1

    eventually(look)
    return found[0]


def clean(client: redis.Redis) -> bool:
    """Whether RQ has forgotten everything but its workers."""
    registries = (FailedJobRegistry(store.QUEUE, client), StartedJobRegistry(store.QUEUE, client))
    assert all(registry.get_job_count(cleanup=False) == 0 for registry in registries)
    return client.exists(keys.QUEUE_LIST, keys.INTERMEDIATE_LIST) == 0 and client.keys(f"{keys.RQ_JOB}*") == []
