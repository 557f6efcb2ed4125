"""Time and memory of jobs that are deaf for long: inside LAPACK nothing reaches a process but its end."""

import json
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import numpy as np
import orjson
import pytest
import redis

from tests.store.conftest import Submit
from tests.store.crew import Workers, clean, ended, eventually, outcome, record, running
from worker import jobs, store
from worker.contract.description import describe
from worker.contract.inline import encode_data
from worker.contract.spec import JobSpec
from worker.core.rows.problem import Problem
from worker.embedded import EmbeddedServer
from worker.queue import delivery
from worker.store import Status, keys

LONG = 60.0  # seconds, at least, of the call into LAPACK
TINY = 100


@pytest.fixture(scope="module")
def any_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One server is enough here: how each server takes the scripts is tested elsewhere."""
    with EmbeddedServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@lru_cache(maxsize=1)
def table(p: int) -> Problem:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(p, p))
    return Problem(X, X @ rng.normal(size=p) + rng.normal(size=p), tuple(f"x{j}" for j in range(p)))


@pytest.fixture
def tune(client: redis.Redis) -> Callable[..., None]:
    """Submit a job with a penalty for each of p columns: an iteration decomposes a p x p matrix in one call."""

    def tune(job_id: str, p: int, *, seconds: float = 600.0, evaluations: int | None = None, **training: Any) -> None:
        spec = {
            "data": {"x": [[0.0], [1.0]], "y": [0.0, 1.0]},
            "training": {"kind": "ridge", "penalty": {"kind": "per_feature", "spread": None}, **training},
            "selection": {"kind": "holdout"},
            "outer": {"kind": "newton"},
            "limits": {"seconds": seconds, "evaluations": evaluations},
        }
        document = describe(JobSpec.model_validate_json(orjson.dumps(spec)), b"")
        document["data"] |= {"rows": p, "columns": p, "features": table(p).features}
        data = encode_data(table(p))
        submission = store.Submission(job_id, orjson.dumps(document), data, "f", seconds)
        assert store.run(client, store.submit(submission, delivery(job_id)))

    return tune


def cancelled_after(client: redis.Redis, job_id: str) -> float:
    """Cancel; the seconds until the job has ended, by the server's clock."""
    assert store.run(client, store.cancel(job_id)) is Status.CANCELLING
    ended(client, job_id, Status.CANCELLED)
    last = record(client, job_id)
    assert last.finished_at is not None
    assert last.cancelled_at is not None
    return last.finished_at - last.cancelled_at


def done(client: redis.Redis, job_id: str) -> bool:
    return record(client, job_id).done


def deaf(client: redis.Redis, job_id: str, at: int = 1) -> None:
    """Wait until a toy job is in LAPACK."""
    running(client, job_id, at)
    time.sleep(0.3)


def test_a_job_in_lapack_is_cancelled(client: redis.Redis, workers: Workers, submit: Submit) -> None:
    workers.start()
    for n in range(2):
        submit(f"j{n}", steps=9, lapack=2)
        deaf(client, f"j{n}", 2)
        assert cancelled_after(client, f"j{n}") < LONG / 4
        assert outcome(client, f"j{n}") == {"steps": 2, "attempt": 1}
    submit("next")
    ended(client, "next")
    assert clean(client)


@pytest.mark.slow
def test_a_job_in_lapack_is_cancelled_within_a_second(client: redis.Redis, workers: Workers, submit: Submit) -> None:
    workers.start()
    took = []
    for n in range(20):
        submit(f"j{n}", steps=9, lapack=2)
        deaf(client, f"j{n}", 2)
        time.sleep(0.01 * n)
        took.append(cancelled_after(client, f"j{n}"))
    median, p95 = statistics.median(took), statistics.quantiles(took, n=20)[18]
    print(f"from cancel to the end: median {median:.3f} s, p95 {p95:.3f} s")
    assert p95 < 1.0


def test_a_job_in_lapack_ends_at_its_limit(client: redis.Redis, workers: Workers, submit: Submit) -> None:
    workers.start()
    submit("j", steps=9, lapack=2)
    deaf(client, "j", 2)
    client.hset(f"{keys.JOB}j", "seconds", 0.1)
    ended(client, "j")
    last = record(client, "j")
    assert (last.stop_reason, outcome(client, "j")) == ("max_seconds", {"steps": 2, "attempt": 1})
    assert last.finished_at is not None
    assert last.started_at is not None
    assert last.finished_at - last.started_at < LONG / 4


def test_a_job_in_lapack_is_handed_over(client: redis.Redis, workers: Workers, submit: Submit) -> None:
    worker = workers.start()
    submit("j", steps=3, lapack=2)
    deaf(client, "j", 2)
    began = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    eventually(lambda: record(client, "j").status is Status.QUEUED)
    assert time.monotonic() - began < LONG / 4
    assert workers.started[0].wait(20) == 0
    assert client.lrange(keys.QUEUE_LIST, 0, -1) == [b"j"]


def test_a_job_that_needs_too_much_memory_says_so(
    client: redis.Redis, workers: Workers, tune: Callable[..., None]
) -> None:
    worker = workers.start_real(GRADTUNE_JOB_MEMORY_MB="40")
    sizes = {"small": TINY, "large": 1000, "next": TINY, "unreadable": 2500, "last": TINY}
    for job_id, p in sizes.items():
        tune(job_id, p)
    for job_id, p in sizes.items():
        if p == TINY:
            ended(client, job_id)
            continue
        ended(client, job_id, Status.FAILED)
        failed = record(client, job_id)
        error = json.loads(failed.error or b"")
        assert (failed.attempt, error["code"]) == (1, "out-of-memory")
        assert "GRADTUNE_JOB_MEMORY_MB" in error["detail"]
    assert worker.is_running()
    assert clean(client)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_no_limit_of_memory_ends_the_process(client: redis.Redis, workers: Workers, tune: Callable[..., None]) -> None:
    """Wherever the memory ends, in Python, numpy, scipy or OpenBLAS, the job is told."""
    codes = []  # the table alone has 8 MB
    for megabytes in (5, 10, 20, 40, 160):
        workers.start_real(GRADTUNE_JOB_MEMORY_MB=str(megabytes), GRADTUNE_BLAS_THREADS="2")
        job_id = f"j{megabytes}"
        tune(job_id, 1000, evaluations=3)
        eventually(partial(done, client, job_id), 120.0)
        error = record(client, job_id).error
        codes.append(json.loads(error)["code"] if error else "enough")
        workers.stop()
    print(codes)
    assert set(codes) == {"out-of-memory", "enough"}
    assert codes == sorted(codes, reverse=True)


def test_a_first_iteration_that_takes_too_long_is_an_error(
    client: redis.Redis, workers: Workers, tune: Callable[..., None]
) -> None:
    workers.start_real()
    penalty = {"kind": "per_feature", "initial": 1e-3, "spread": None}  # a minute's worth of factors for one evaluation
    tune("j", 2500, seconds=0.05, kind="huber", delta=0.01, solver="newton_cholesky", penalty=penalty)
    ended(client, "j", Status.FAILED)
    error = json.loads(record(client, "j").error or b"")
    assert error["code"] == "max_seconds"
    assert "Not one iteration" in error["detail"]


def test_the_worker_is_told_before_the_refit_begins(client: redis.Redis, tune: Callable[..., None]) -> None:
    for job_id, seconds, reason in (("spent", 600.0, "max_evaluations"), ("late", 1e-9, "max_seconds")):
        tune(job_id, TINY, seconds=seconds, evaluations=3)
        claim = store.run(client, store.claim(job_id, "o", lease=60.0, retention=60.0, algorithm=jobs.OURS))
        assert claim is not None
        told: list[Status] = []
        jobs.run_claimed(client, claim, lambda job_id=job_id, told=told: told.append(record(client, job_id).status))
        assert told == [Status.RUNNING]
        assert record(client, job_id).stop_reason == reason
        document = outcome(client, job_id)
        assert (document["partial"], document["model"]["kind"]) == (False, "linear")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_real_job_in_a_long_iteration(client: redis.Redis, workers: Workers, tune: Callable[..., None]) -> None:
    """3000 penalties: one iteration takes more than 5 s, most of it in one call. Cancelled, limited, handed over."""
    worker = workers.start_real()
    tune("cancelled", 3000)
    running(client, "cancelled", seconds=120.0)
    time.sleep(5.0)
    assert cancelled_after(client, "cancelled") < 1.0
    assert kept(client, "cancelled") == {"partial": True, "stop_reason": None, "hyperparameters": 3000}

    tune("limited", 3000)
    running(client, "limited", seconds=120.0)
    started = record(client, "limited").started_at
    assert started is not None
    limit = time.time() - started + 3.0
    client.hset(f"{keys.JOB}limited", "seconds", limit)
    ended(client, "limited")
    finished = record(client, "limited").finished_at
    assert finished is not None
    assert limit <= finished - started < limit + 2.0
    assert kept(client, "limited") == {"partial": True, "stop_reason": "max_seconds", "hyperparameters": 3000}

    tune("handed", 3000)
    running(client, "handed", seconds=120.0)
    time.sleep(4.0)
    began = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    eventually(lambda: record(client, "handed").status is Status.QUEUED)
    assert time.monotonic() - began < 2.0
    workers.start_real()
    running(client, "handed", 2, seconds=120.0)
    assert cancelled_after(client, "handed") < 1.0
    steps = [json.loads(step)["sequence"] for step in store.run(client, store.steps("handed"))]
    assert steps == list(range(1, len(steps) + 1))


def kept(client: redis.Redis, job_id: str) -> dict[str, object]:
    document = outcome(client, job_id)
    assert document["model"] is None
    return {
        "partial": document["partial"],
        "stop_reason": document["stop_reason"],
        "hyperparameters": len(document["hyperparameters"]),
    }
