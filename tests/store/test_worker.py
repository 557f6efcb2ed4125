"""Real workers in processes of their own: what they do, and what is left of a job when they die."""

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import redis
from rq.exceptions import StopRequested

from tests.store.conftest import Submit
from tests.store.crew import (
    LEASE,
    ROOT,
    Workers,
    attempts_of_steps,
    clean,
    ended,
    eventually,
    gone,
    outcome,
    record,
    running,
    the_horse,
)
from tests.store.toy import FUNCTION
from worker import store
from worker.embedded import EmbeddedServer
from worker.queue import TuneWorker, delivery, horse, reconcile
from worker.store import Status, keys


@pytest.fixture(scope="module")
def any_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One server is enough here: how each server takes the scripts is tested elsewhere."""
    with EmbeddedServer(tmp_path_factory.mktemp("server")) as running:
        yield running


def test_jobs_are_done(client: redis.Redis, workers: Workers, submit: Submit) -> None:
    workers.start()
    for n in range(10):
        submit(f"j{n}", steps=2)
    for n in range(10):
        ended(client, f"j{n}")
        assert outcome(client, f"j{n}") == {"steps": 2, "attempt": 1}
    assert store.run(client, store.health()) == store.Health(workers=1, queued=0, active=0)
    for worker in client.smembers(keys.RQ_WORKERS):  # forgotten soon after it dies
        assert 0 < client.ttl(worker) <= TuneWorker.HEARTBEAT_TTL
    assert clean(client)


def test_a_job_goes_on_when_its_horse_is_killed(client: redis.Redis, workers: Workers, submit: Submit) -> None:
    worker = workers.start()
    submit("j", steps=40, pause=0.02)
    running(client, "j", 3)
    the_horse(worker).kill()
    ended(client, "j")
    assert outcome(client, "j") == {"steps": 40, "attempt": 2}
    made = attempts_of_steps(client, "j")
    assert made == sorted(made)
    assert set(made) == {1, 2}
    assert clean(client)


def test_a_job_goes_on_when_worker_and_horse_are_killed(client: redis.Redis, workers: Workers, submit: Submit) -> None:
    worker = workers.start()
    submit("j", steps=60, pause=0.02)
    running(client, "j", 3)
    horse = the_horse(worker)
    worker.kill()
    horse.kill()
    workers.start()
    ended(client, "j", watched=True)
    assert outcome(client, "j") == {"steps": 60, "attempt": 2}
    assert set(attempts_of_steps(client, "j")) == {1, 2}
    assert clean(client)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can do that")
def test_a_horse_dies_with_its_worker(client: redis.Redis, workers: Workers, submit: Submit) -> None:
    worker = workers.start()
    submit("j", beats=False)
    horse = the_horse(worker)
    eventually(lambda: record(client, "j").attempt == 1)
    worker.kill()
    eventually(lambda: gone(horse.pid))


def test_a_frozen_worker_is_fenced(client: redis.Redis, workers: Workers, submit: Submit) -> None:
    frozen = workers.start()
    submit("j", steps=60, pause=0.02)
    running(client, "j", 3)
    horse = the_horse(frozen)
    frozen.suspend()
    horse.suspend()
    workers.start()
    eventually(lambda: reconcile(client, LEASE, function=FUNCTION) > 0 or record(client, "j").attempt > 1)
    eventually(lambda: record(client, "j").attempt > 1)
    frozen.resume()  # while the second attempt runs; its horse is still frozen, and is killed
    eventually(lambda: gone(horse.pid))
    ended(client, "j", watched=True)
    last = outcome(client, "j")
    assert last["attempt"] == record(client, "j").attempt > 1
    assert last["steps"] == 60
    made = attempts_of_steps(client, "j")
    assert made == sorted(made)
    assert frozen.is_running()
    eventually(lambda: clean(client))


def test_a_horse_that_wakes_up_too_late_changes_nothing(client: redis.Redis, workers: Workers, submit: Submit) -> None:
    frozen = workers.start()
    submit("j", steps=30, pause=0.02)
    running(client, "j", 3)
    horse = the_horse(frozen)
    frozen.suspend()
    horse.suspend()
    workers.start()
    ended(client, "j", watched=True)
    before = (record(client, "j"), outcome(client, "j"), attempts_of_steps(client, "j"))
    workers.stop_one(1)
    horse.resume()
    frozen.resume()
    submit("next")
    ended(client, "next", watched=True)  # by the frozen worker, which is done with the first job
    assert before == (record(client, "j"), outcome(client, "j"), attempts_of_steps(client, "j"))


def test_a_job_is_cancelled_by_itself(client: redis.Redis, workers: Workers, submit: Submit) -> None:
    workers.start()
    submit("j", steps=10_000, pause=0.01)
    running(client, "j", 2)
    assert store.run(client, store.cancel("j")) is Status.CANCELLING
    ended(client, "j", Status.CANCELLED)
    assert outcome(client, "j") == {"steps": len(attempts_of_steps(client, "j")), "attempt": 1}
    assert clean(client)


def test_a_deaf_job_is_cancelled_with_its_best_so_far(client: redis.Redis, workers: Workers, submit: Submit) -> None:
    worker = workers.start()
    submit("j", steps=10_000, pause=0.01, deaf=True)
    running(client, "j", 2)
    horse = the_horse(worker)
    store.run(client, store.cancel("j"))
    ended(client, "j", Status.CANCELLED)
    assert outcome(client, "j")["steps"] == len(attempts_of_steps(client, "j")) >= 2
    assert record(client, "j").stop_reason == "cancelled"
    eventually(lambda: gone(horse.pid))  # it was killed; to free its memory takes the system a moment
    assert clean(client)


def test_a_hanging_job_ends_at_its_limit(client: redis.Redis, workers: Workers, submit: Submit) -> None:
    workers.start()
    submit("j", beats=False, seconds=0.5)
    ended(client, "j")
    assert record(client, "j").stop_reason == "max_seconds"
    submit("next")
    ended(client, "next")
    assert clean(client)


def test_a_job_that_concludes_may_take_longer_than_its_limit(
    client: redis.Redis, workers: Workers, submit: Submit
) -> None:
    workers.start()
    submit("j", steps=2, conclude=TuneWorker.LIMIT_GRACE + 1.0, seconds=0.2)
    ended(client, "j")
    assert record(client, "j").stop_reason == "converged"
    assert outcome(client, "j") == {"steps": 2, "attempt": 1}
    submit("next", beats=False, seconds=0.2)  # in the same horse, without the grace of the last job
    ended(client, "next")
    assert record(client, "next").stop_reason == "max_seconds"
    assert clean(client)


def test_a_job_that_kills_its_horse_fails_in_the_end(client: redis.Redis, workers: Workers, submit: Submit) -> None:
    workers.start()
    submit("j", die=True)
    ended(client, "j", Status.FAILED)
    assert record(client, "j").attempt == store.MAX_CLAIMS
    error = json.loads(record(client, "j").error or b"")
    assert error["code"] == "worker-lost"
    assert "ran out of memory" in error["detail"]
    assert clean(client)


def test_a_stopped_worker_hands_its_job_over(client: redis.Redis, workers: Workers, submit: Submit) -> None:
    worker = workers.start()
    submit("j", steps=60, pause=0.02)
    running(client, "j", 3)
    worker.send_signal(signal.SIGTERM)
    with suppress(psutil.NoSuchProcess):
        worker.send_signal(signal.SIGTERM)  # harmless
    assert workers.started[0].wait(20) == 0
    assert record(client, "j").status is Status.QUEUED
    assert client.lrange(keys.QUEUE_LIST, 0, -1) == [b"j"]
    assert store.run(client, store.health()).workers == 0
    assert client.hget(f"{keys.JOB}j", "claims") == b"0"
    workers.start()
    ended(client, "j")
    assert outcome(client, "j") == {"steps": 60, "attempt": 2}


def test_an_idle_worker_stops(client: redis.Redis, workers: Workers) -> None:
    worker = workers.start()
    eventually(lambda: store.run(client, store.health()).workers == 1)
    worker.send_signal(signal.SIGINT)
    assert workers.started[0].wait(20) == 0


def test_only_the_job_function_is_run(client: redis.Redis, workers: Workers, submit: Submit) -> None:
    bad = store.Submission("bad", b"{}", b"", "f", 1.0)
    store.run(client, store.submit(bad, delivery("bad", function="os.mkdir")))
    workers.start()
    ended(client, "bad")
    assert not (ROOT / "bad").exists()
    assert clean(client)


def test_a_broken_delivery_stops_nobody(client: redis.Redis, workers: Workers, submit: Submit) -> None:
    client.hset(f"{keys.RQ_JOB}broken", mapping={"status": "no such status", "created_at": "never"})
    client.rpush(keys.QUEUE_LIST, "broken", "nothing", "not an id", "")
    workers.start()
    submit("j")
    ended(client, "j")
    eventually(lambda: reconcile(client, 0.0, function=FUNCTION) == 0 and clean(client))


def test_workers_outlive_the_server(tmp_path: Path) -> None:
    """The server is killed in the middle of a job and stays away for a while: nothing is lost or done twice."""
    with EmbeddedServer(tmp_path) as server, store.connect(server.url) as client:
        crew = Workers(server.url, tmp_path / "workers.log")
        try:
            crew.start()
            for name, steps in (("j", 60), ("next", 2)):
                job = store.Submission(name, json.dumps({"steps": steps, "pause": 0.02}).encode(), b"", "f", 60.0)
                store.run(client, store.submit(job, delivery(name, function=FUNCTION)))
            running(client, "j", 3)
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            eventually(lambda: not server.alive)
            time.sleep(3.0)  # longer than the lease
            server.restart()
            ended(client, "j", watched=True)
            ended(client, "next", watched=True)
            assert outcome(client, "j") == {"steps": 60, "attempt": 1}
            assert set(attempts_of_steps(client, "j")) == {1}
            assert crew.started[0].poll() is None
        finally:
            crew.stop()
            print(crew.log.read_text())


def test_without_a_horse_there_is_nothing_to_kill(client: redis.Redis) -> None:
    worker = TuneWorker(connection=client, function=FUNCTION)
    worker.kill_horse()  # and this process, whose group RQ would have killed, goes on
    worker.request_stop(signal.SIGTERM, None)
    with pytest.raises(StopRequested):
        worker.dequeue_job_and_maintain_ttl(1)
    with pytest.raises(RuntimeError, match="no work-horse"):
        horse()


@pytest.fixture
def no_worker_afterwards() -> Iterator[None]:
    """What a worker has made of this process is undone."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    gc.unfreeze()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("no_worker_afterwards")
def test_a_worker_can_be_made_as_rq_makes_it(client: redis.Redis) -> None:
    worker = TuneWorker([store.QUEUE], "name", connection=client, function=FUNCTION)
    worker.bootstrap()
    assert [found.name for found in TuneWorker.all(connection=client)] == ["name"]
    worker.run_maintenance_tasks()
    worker.teardown()
    assert TuneWorker.all(connection=client) == []
