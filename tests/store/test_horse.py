"""The work-horse is used for many jobs: when it is replaced, and what one job leaves to the next."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.store.conftest import Submit
from tests.store.crew import ROOT, Workers, clean, ended, eventually, gone, outcome, record, running, the_horse
from worker.embedded import EmbeddedServer
from worker.queue import memory
from worker.queue.horse import GROWTH, Stable, WorkHorse, horse
from worker.store import Status, keys


@pytest.fixture(scope="module")
def any_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One server is enough here: how each server takes the scripts is tested elsewhere."""
    with EmbeddedServer(tmp_path_factory.mktemp("server")) as running:
        yield running


def test_a_horse_runs_many_jobs_and_is_then_replaced(client: redis.Redis, workers: Workers, submit: Submit) -> None:
    worker = workers.start(jobs=3)
    pids = []
    for n in range(7):
        submit(f"j{n}")
        ended(client, f"j{n}")
        found = worker.children()  # none: it was the horse's last job
        pids.append(found[0].pid if found else pids[-1])
    assert [pids.index(pid) for pid in pids] == [0, 0, 0, 3, 3, 3, 6]
    assert clean(client)


def test_an_idle_horse_may_die(client: redis.Redis, workers: Workers, submit: Submit) -> None:
    worker = workers.start()
    for n in range(3):
        submit(f"j{n}")
        ended(client, f"j{n}")
        the_horse(worker).kill()
    submit("last")
    ended(client, "last")
    assert [record(client, name).attempt for name in ("j1", "j2", "last")] == [1, 1, 1]
    assert client.hget(f"{keys.JOB}last", "stranded") == b"0"


@pytest.mark.parametrize("fate", ["killed", "frozen for good"])
def test_a_job_is_not_lost_in_a_frozen_horse(client: redis.Redis, workers: Workers, submit: Submit, fate: str) -> None:
    """The horse stops before it reads the job's id."""
    worker = workers.start()
    submit("first")
    ended(client, "first")
    horse = the_horse(worker)
    horse.suspend()
    submit("j")
    eventually(lambda: client.lrange(keys.INTERMEDIATE_LIST, 0, -1) == [b"j"])
    time.sleep(0.5)  # the worker looks after a job that nobody has claimed
    if fate == "killed":
        horse.kill()
    ended(client, "j")
    assert record(client, "j").attempt == 1
    eventually(lambda: gone(horse.pid))  # it was killed; to free its memory takes the system a moment
    assert clean(client)


def test_a_job_that_always_kills_its_horse_before_the_claim_fails(
    client: redis.Redis, workers: Workers, submit: Submit
) -> None:
    workers.start()
    submit("stillborn")
    submit("neighbour")
    ended(client, "stillborn", Status.FAILED)
    ended(client, "neighbour")
    lost = record(client, "stillborn")
    assert lost.attempt == 0
    error = json.loads(lost.error or b"")
    assert error["code"] == "worker-lost"
    assert "before the job began" in error["detail"]
    assert clean(client)


@pytest.mark.parametrize("what", ["thread", "memory", "exception"])
def test_a_horse_with_leftovers_is_replaced(client: redis.Redis, workers: Workers, submit: Submit, what: str) -> None:
    worker = workers.start()
    submit("first")
    ended(client, "first")
    first = the_horse(worker).pid
    submit("j", leave=what)
    ended(client, "j")
    eventually(lambda: gone(first))
    submit("next")
    ended(client, "next")
    assert the_horse(worker).pid != first
    assert record(client, "next").attempt == record(client, "j").attempt == 1
    assert clean(client)


def test_a_signal_that_a_job_left_does_not_reach_the_next(
    client: redis.Redis, workers: Workers, submit: Submit
) -> None:
    worker = workers.start()
    submit("j", leave="alarm")
    ended(client, "j")
    horse = the_horse(worker)
    submit("next", steps=10, pause=0.1)
    running(client, "next", 2)
    for sig in (signal.SIGTERM, signal.SIGINT):  # as sent to all processes of a service
        horse.send_signal(sig)
    ended(client, "next")
    assert outcome(client, "next") == {"steps": 10, "attempt": 1}
    assert the_horse(worker).pid == horse.pid


def nothing() -> None:
    """Warm nothing up."""


@pytest.fixture
def make(client: redis.Redis) -> Iterator[Callable[..., WorkHorse]]:
    made: list[WorkHorse] = []

    def make(function: Callable[[str], object], warm_up: Callable[[], None] = nothing) -> WorkHorse:
        made.append(WorkHorse(Stable(function, client, 8.0, warm_up, None, 200)))
        return made[-1]

    yield make
    for each in made:
        each.end()


def turn(horse: WorkHorse) -> str | None:
    return horse.wait(30.0)


def test_a_turn_ends_when_the_function_returns(make: Callable[..., WorkHorse], tmp_path: Path) -> None:
    made = make(lambda job_id: (tmp_path / job_id).write_text(f"{horse().job_id} {horse().owner}"))
    assert made.wait(0.0) is None
    for n in range(3):
        made.hand(f"j{n}", f"o{n}")
        assert turn(made) == "done"
        assert (tmp_path / f"j{n}").read_text() == f"j{n} o{n}"
    os.kill(made.pid, signal.SIGKILL)
    assert turn(made) == "gone"
    made.hand("late", "o")  # is not an error: the end was told
    assert turn(made) == "gone"
    assert os.WTERMSIG(made.end()) == signal.SIGKILL


def test_a_horse_that_cannot_begin_is_gone(make: Callable[..., WorkHorse]) -> None:
    made = make(nothing, warm_up=lambda: 1 / 0)
    made.hand("j", "o")
    assert turn(made) == "gone"
    assert os.waitstatus_to_exitcode(made.end()) == 1


def test_the_end_is_noticed_although_a_child_keeps_the_stream_open(
    make: Callable[..., WorkHorse], tmp_path: Path
) -> None:
    def function(_: str) -> None:
        child = os.fork()
        if child == 0:
            time.sleep(600)
        (tmp_path / "child").write_text(str(child))
        os._exit(0)

    made = make(function)
    made.hand("j", "o")
    eventually(lambda: made.wait(0.0) == "gone")
    child = int((tmp_path / "child").read_text())
    assert not gone(child)
    made.end()
    eventually(lambda: gone(child))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux only")
def test_a_limit_raises_and_frees(any_server: EmbeddedServer, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.store.limited", any_server.url, str(tmp_path), "45", "30", "60", "30"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    assert (tmp_path / "blocks").read_text().split() == ["30", "refused", "30"]


def test_memory_is_counted() -> None:
    block = bytearray(os.urandom(64 * 2**20))
    assert len(block) < memory.resident() < memory.total()
    assert memory.total() > GROWTH
