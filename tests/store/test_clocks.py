"""Steps of the server's clock: no job ends early because of one, none is stuck, and a lost one is found as soon."""

import time
from collections.abc import Callable, Iterator

import pytest
import redis

from tests import clock
from tests.store.conftest import Submit
from tests.store.crew import LEASE, Workers, attempts_of_steps, ended, eventually, outcome, record, running, the_horse
from tests.store.toy import FUNCTION
from worker import store
from worker.embedded import EmbeddedServer
from worker.queue import delivery, reconcile
from worker.store import Hold, Pass, Status, Verdict, keys

HOUR = 3600.0
STEPS = (HOUR, -2 * HOUR)


@pytest.fixture(scope="module")
def any_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One server is enough here: how each server takes the scripts is tested elsewhere."""
    with EmbeddedServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def step(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    clock.make_settable(monkeypatch.setattr)
    return lambda seconds: clock.step(client, seconds)


def ahead(client: redis.Redis, job_id: str) -> float:
    """Seconds until somebody looks after the job, by the scripts' clock."""
    seconds, microseconds = client.time()
    score = client.zscore(keys.ACTIVE, job_id)
    assert score is not None
    return float(score) - (seconds + microseconds / 1e6 + float(client.get(clock.KEY) or 0))


def claim(client: redis.Redis, job_id: str, owner: str = "a", lease: float = store.LEASE) -> store.Claim:
    taken = store.run(client, store.claim(job_id, owner, lease=lease))
    assert taken is not None
    return taken


def beat(client: redis.Redis, job_id: str, attempt: int) -> Verdict:
    return store.run(client, store.beat(job_id, attempt, elapsed=1.0))


def passes(client: redis.Redis, last: Pass | None = None) -> int:
    return reconcile(client, 0.0, last=last)


# The store: leases and looks.


@pytest.mark.parametrize("seconds", STEPS)
def test_a_living_worker_keeps_its_job(
    client: redis.Redis, submit: Submit, step: Callable[[float], None], seconds: float
) -> None:
    """The reconciler that sees the step comes before the worker's next sign of life."""
    submit("j")
    claim(client, "j")
    last = Pass()
    assert passes(client, last) == 0
    step(seconds)
    assert passes(client, last) == 0
    assert last.stepped == pytest.approx(seconds, abs=store.LEASE / 4)
    assert store.LEASE - 2 < ahead(client, "j") <= store.LEASE
    assert beat(client, "j", 1) is Verdict.OK
    assert (record(client, "j").status, record(client, "j").attempt) == (Status.RUNNING, 1)


@pytest.mark.parametrize("seconds", STEPS)
def test_a_dead_worker_is_noticed_as_soon(
    client: redis.Redis, submit: Submit, step: Callable[[float], None], seconds: float
) -> None:
    submit("j")
    claim(client, "j", lease=0.2)
    last = Pass()
    assert passes(client, last) == 0
    step(seconds)
    began = time.monotonic()
    eventually(lambda: passes(client, last) == 1, 5.0)
    assert time.monotonic() - began >= 0.1
    assert beat(client, "j", 1) is Verdict.FENCED


def test_who_has_not_seen_the_step_finds_leases_that_are_put_off(
    client: redis.Redis, submit: Submit, step: Callable[[float], None]
) -> None:
    """The service was started after the clock was set back."""
    for name in ("held", "waits", "lost"):
        submit(name)
    claim(client, "held", lease=0.2)
    client.lrem(keys.QUEUE_LIST, 1, "lost")
    step(-2 * HOUR)
    assert ahead(client, "held") > 2 * HOUR - 1
    eventually(lambda: passes(client) == 1, 5.0)
    assert record(client, "held").status is Status.QUEUED
    assert ahead(client, "waits") < 30
    assert ahead(client, "lost") < 30


def test_a_beat_and_a_watch_pull_back_a_lease_that_is_put_off(
    client: redis.Redis, submit: Submit, step: Callable[[float], None]
) -> None:
    submit("j")
    claim(client, "j")
    for extend in (
        lambda: beat(client, "j", 1),
        lambda: store.run(client, store.watch("j", "a", attempt_before=0)),
    ):
        step(-HOUR)
        extend()
        assert store.LEASE - 2 < ahead(client, "j") <= store.LEASE


def test_a_beat_of_a_lease_that_has_ended_is_taken_until_somebody_else_claims(
    client: redis.Redis, submit: Submit, step: Callable[[float], None]
) -> None:
    submit("j")
    claim(client, "j")
    step(HOUR)
    assert beat(client, "j", 1) is Verdict.OK
    assert ahead(client, "j") > store.LEASE - 2
    step(HOUR)
    assert claim(client, "j", "b").attempt == 2
    assert beat(client, "j", 1) is Verdict.FENCED
    assert beat(client, "j", 2) is Verdict.OK


def test_looks_at_waiting_jobs_stay_spread(client: redis.Redis, submit: Submit, step: Callable[[float], None]) -> None:
    """Otherwise all of them are due at once, and leases come after them."""
    for number in range(200):
        submit(f"j{number}")
    for seconds in STEPS:
        last = Pass()
        passes(client, last)
        step(seconds)
        passes(client, last)
        due = sorted(ahead(client, f"j{number}") for number in range(200))
        assert 0 < due[0] < due[-1] < 60
        assert due[-1] - due[0] > 3  # 50 a second


def test_a_slow_reconciler_sees_no_step(client: redis.Redis, submit: Submit, step: Callable[[float], None]) -> None:
    """Its own clock and the server's advance together: a worker that died meanwhile is noticed at once."""
    submit("j")
    claim(client, "j", lease=0.0)
    last = Pass()
    assert store.run(client, store.overdue(lease=0.0, last=last)) == ["j"]
    step(HOUR)
    last.here -= HOUR
    assert passes(client, last) == 1
    assert last.stepped == 0.0


def test_a_dead_worker_is_not_counted_for_hours(
    client: redis.Redis, submit: Submit, step: Callable[[float], None]
) -> None:
    client.sadd(keys.RQ_WORKERS, "rq:worker:dead")
    client.set("rq:worker:dead", "", ex=7200)  # written 10 s ahead, before the clock was set back
    assert store.run(client, store.health()).workers == 1
    passes(client)
    assert 0 < client.ttl("rq:worker:dead") <= 60


def test_the_servers_file_is_synced_again_after_a_step_back(client: redis.Redis, step: Callable[[float], None]) -> None:
    """Once, whoever has seen it: the server itself would wait until its clock has caught up."""
    seen = [Pass(), Pass()]

    def rewrites() -> int:
        for last in seen:
            passes(client, last)
        return int(client.info("persistence")["aof_rewrites"])

    before = rewrites()
    step(HOUR)
    assert [rewrites(), rewrites()] == [before, before]
    step(-HOUR)
    eventually(lambda: rewrites() > before)
    eventually(lambda: not any(last.set_back for last in seen))
    assert rewrites() == before + 1


def test_a_watch_notes_the_time_that_was_used(client: redis.Redis, submit: Submit) -> None:
    """So a process that dies in a long iteration has used it."""
    submit("j", seconds=60.0)
    claim(client, "j")
    client.zadd(keys.ACTIVE, {"j": 0}, xx=True)
    watch = store.run(client, store.watch("j", "a", attempt_before=0, elapsed=41.5))
    assert (watch.hold, watch.before, watch.limit) == (Hold.HELD, 0.0, 60.0)
    assert store.run(client, store.release("j", "a", delivery("j")))
    assert claim(client, "j", "b").elapsed == 41.5
    watch = store.run(client, store.watch("j", "b", attempt_before=1, elapsed=7.0))
    assert watch.before == 41.5
    assert record(client, "j").elapsed == 41.5


# Real workers.


def test_a_job_ends_by_its_own_time(
    client: redis.Redis, workers: Workers, submit: Submit, step: Callable[[float], None]
) -> None:
    workers.start()
    last = Pass()
    for seconds in STEPS:
        job_id = f"j{seconds:.0f}"
        submit(job_id, seconds=600.0, steps=25, pause=0.02)
        running(client, job_id, 5)
        reconcile(client, LEASE, function=FUNCTION, last=last)
        step(seconds)
        reconcile(client, LEASE, function=FUNCTION, last=last)
        ended(client, job_id)
        assert record(client, job_id).stop_reason == "converged"
        assert outcome(client, job_id) == {"steps": 25, "attempt": 1}


def test_a_hung_job_is_cancelled_and_limited_by_its_own_time(
    client: redis.Redis, workers: Workers, submit: Submit, step: Callable[[float], None]
) -> None:
    workers.start()
    for seconds in STEPS:
        for what, limit, status in (("cancel", 600.0, Status.CANCELLED), ("limit", 0.5, Status.SUCCEEDED)):
            job_id = f"{what}{seconds:.0f}"
            submit(job_id, seconds=limit, beats=False)
            eventually(lambda job_id=job_id: record(client, job_id).attempt == 1)
            began = time.monotonic()
            if what == "cancel":
                assert store.run(client, store.cancel(job_id)) is Status.CANCELLING
            step(seconds)
            ended(client, job_id, status)
            assert time.monotonic() - began > 0.4  # the horse has had its patience, and not more than its limit


def test_a_dead_workers_job_goes_on_after_a_step_back(
    client: redis.Redis, workers: Workers, submit: Submit, step: Callable[[float], None]
) -> None:
    worker = workers.start()
    last = Pass()
    submit("j", steps=40, pause=0.02)
    running(client, "j", 3)
    reconcile(client, LEASE, function=FUNCTION, last=last)
    horse = the_horse(worker)
    worker.kill()
    horse.kill()
    step(-2 * HOUR)
    workers.start()
    began = time.monotonic()
    eventually(lambda: reconcile(client, LEASE, function=FUNCTION, last=last) > 0)
    assert time.monotonic() - began < 10 * LEASE
    ended(client, "j")
    assert set(attempts_of_steps(client, "j")) == {1, 2}
