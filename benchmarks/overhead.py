"""What a job costs beside its computation: POST to result, and CPU of the worker, beside a bare RQ no-op job."""

from __future__ import annotations

import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import orjson
import psutil
import redis
import rq
from rq.serializers import JSONSerializer

from worker import store
from worker.contract.description import describe
from worker.contract.inline import encode_data
from worker.contract.spec import JobSpec
from worker.embedded import EmbeddedServer
from worker.queue import delivery, horse
from worker.store import keys

WARM = 10  # jobs before those that are measured
BARE_WORKER = """
import sys, redis, rq, numpy, scipy.linalg
from rq.serializers import JSONSerializer
connection = redis.Redis.from_url(sys.argv[1])
rq.Worker(["bare"], connection=connection, serializer=JSONSerializer).work(logging_level="ERROR")
"""
OUR_WORKER = """
import sys
from worker import store
from worker.jobs import run_job
from worker.queue import TuneWorker
url, function, jobs = sys.argv[1:]
TuneWorker(connection=store.connect(url), function=function, jobs=int(jobs)).work(logging_level="ERROR")
"""
NOTHING = "benchmarks.overhead.nothing"


def nothing(job_id: str) -> None:
    """The job that does nothing: it is claimed and ends."""
    here = horse()
    claim = store.run(here.client, store.claim(job_id, here.owner, lease=here.lease))
    if claim is not None:
        store.run(here.client, store.finish(job_id, claim.attempt, store.Status.SUCCEEDED, result=b"{}"))


T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """Of each job: milliseconds until its result is there, and CPU milliseconds of the worker with its children.

    `rate`: jobs per second when they all wait in the queue.
    """

    took: list[float]
    cpu: float
    rate: float | None = None

    def line(self, name: str) -> str:
        """One line of the report."""
        p50, p95 = statistics.median(self.took), statistics.quantiles(self.took, n=20)[18]
        rate = f"{self.rate:6.0f} jobs/s" if self.rate else ""
        return f"{name:>40}: p50 {p50:6.1f} ms  p95 {p95:6.1f} ms  CPU of the worker {self.cpu:6.2f} ms{rate}"


def measure(worker: psutil.Process, job: Callable[[int], None], jobs: int) -> Cost:
    """Jobs one after the other."""
    for i in range(WARM):
        job(i)
    before, took = spent(worker), []
    for i in range(WARM, WARM + jobs):
        began = time.perf_counter()
        job(i)
        took.append((time.perf_counter() - began) * 1e3)
    time.sleep(0.1)  # what the worker does after the result is there
    return Cost(took, (spent(worker) - before) * 1e3 / jobs)


def measure_queue(worker: psutil.Process, submit: Callable[[int], T], wait: Callable[[T], None], jobs: int) -> Cost:
    """Jobs one after the other, and then many at once."""
    cost = measure(worker, lambda i: wait(submit(i)), jobs)
    began = time.perf_counter()
    waiting = [submit(WARM + jobs + i) for i in range(jobs)]
    wait(waiting[-1])
    return replace(cost, rate=jobs / (time.perf_counter() - began))


def spent(process: psutil.Process) -> float:
    """CPU seconds of a process, its children that have ended and those that live."""
    return sum(process.cpu_times()[:4]) + sum(sum(child.cpu_times()[:4]) for child in process.children(recursive=True))


@contextmanager
def started(command: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *command], env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


def spec() -> bytes:
    rows = [[float(i % 7), float(i % 5), float(i * i % 11)] for i in range(40)]
    target = [row[0] - 0.5 * row[1] + 0.1 * row[2] for row in rows]
    return json.dumps(
        {"data": {"x": rows, "y": target}, "training": {"kind": "ridge"}, "selection": {"kind": "holdout"}}
    ).encode()


def through_the_service(redis_url: str, jobs: int) -> tuple[Cost, float]:
    """From POST to the result in hand; and the median of what the worker itself says it computed."""
    serve = ["-m", "service.cli", "serve", "--port", "0"]
    with started(serve, GRADTUNE_REDIS_URL=redis_url, GRADTUNE_LOG_LEVEL="error") as service:
        assert service.stdout is not None
        url = service.stdout.readline().partition("ready at ")[2].split()[0]
        (worker,) = (c for c in psutil.Process(service.pid).children() if "worker.main" in c.cmdline())
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        body, fit = spec(), []

        def job(_: int) -> None:
            headers = {"Content-Type": "application/json", "Prefer": "wait=30"}
            connection.request("POST", "/v1/jobs", body, headers)
            reply = connection.getresponse()
            job = json.loads(reply.read())
            if reply.status != 201:
                raise RuntimeError(f"status {reply.status}: {job}")
            connection.request("GET", job["links"]["result"])
            fit.append(json.loads(connection.getresponse().read())["timing"]["fit_s"] * 1e3)

        return measure(worker, job, jobs), statistics.median(fit[WARM:])


def through_the_queue(redis_url: str, function: str, jobs_per_horse: int, jobs: int) -> Cost:
    """From the submission to the store until the job has ended, without HTTP."""
    described = JobSpec.model_validate_json(spec())
    data = encode_data(described.problem())
    document = orjson.dumps(describe(described, data))
    command = ["-c", OUR_WORKER, redis_url, function, str(jobs_per_horse)]
    with started(command) as process, store.connect(redis_url) as client, client.pubsub() as changes:
        changes.subscribe(store.CHANGED)
        run = f"{function.rpartition('.')[2]}-{jobs_per_horse}"

        def submit(number: int) -> str:
            job_id = f"{run}-{number}"
            submission = store.Submission(job_id, document, data, "f", 60.0)
            store.run(client, store.submit(submission, delivery(job_id, function=function)))
            return job_id

        def wait(job_id: str) -> None:
            while client.hget(keys.JOB + job_id, "finished_at") is None:
                changes.get_message(timeout=1.0)

        return measure_queue(psutil.Process(process.pid), submit, wait, jobs)


def through_bare_rq(redis_url: str, jobs: int) -> Cost:
    """A no-op job from enqueue to its result, with blocking reads of the result."""
    with (
        started(["-c", BARE_WORKER, redis_url]) as process,
        redis.Redis.from_url(redis_url, socket_timeout=120) as connection,
    ):
        queue = rq.Queue("bare", connection=connection, serializer=JSONSerializer)

        def wait(job: rq.job.Job) -> None:
            if job.latest_result(timeout=60) is None:
                raise RuntimeError("the bare job did not end")

        worker = psutil.Process(process.pid)
        return measure_queue(worker, lambda _: queue.enqueue("time.sleep", 0, result_ttl=60), wait, jobs)


def main(*, short: bool) -> None:
    jobs = 20 if short else 200
    print(f"{jobs} jobs of each kind, one after the other; jobs/s: the same number at once")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(EmbeddedServer(directory)).url
        bare = through_bare_rq(url, jobs)
        print(bare.line("bare RQ, no-op, enqueue to result"), flush=True)
        service, computed = through_the_service(url, jobs)
        print(service.line("gradtune, tuning, POST to result"), flush=True)
        costs = {}
        for function, what in ((NOTHING, "no-op"), ("worker.jobs.run_job", "tuning")):
            for jobs_per_horse, how in ((200, "warm work-horse"), (1, "a fork for each job")):
                cost = costs[what, how] = through_the_queue(url, function, jobs_per_horse, jobs)
                print(cost.line(f"our worker, {what}, {how}"), flush=True)
    print(f"computed by the worker of the service: {computed:.1f} ms")
    for what in ("no-op", "tuning"):
        ratio = costs[what, "warm work-horse"].cpu / bare.cpu
        print(f"CPU of our worker for a {what} job: {ratio:.2f} of that of bare RQ for a no-op job")
