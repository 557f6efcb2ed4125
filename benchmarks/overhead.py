"""POST to result of a tiny job through the whole service, beside a bare RQ no-op job on the same server."""

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
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import redis
import rq
from rq.serializers import JSONSerializer

from worker.embedded import EmbeddedServer

BARE_WORKER = """
import os, sys, redis, rq, numpy, scipy.linalg
from rq.serializers import JSONSerializer
connection = redis.Redis.from_url(os.environ["BENCHMARK_REDIS_URL"])
rq.Worker(["bare"], connection=connection, serializer=JSONSerializer).work(logging_level="ERROR")
"""


def spec() -> bytes:
    rows = [[float(i % 7), float(i % 5), float(i * i % 11)] for i in range(40)]
    target = [row[0] - 0.5 * row[1] + 0.1 * row[2] for row in rows]
    return json.dumps(
        {"data": {"x": rows, "y": target}, "training": {"kind": "ridge"}, "selection": {"kind": "holdout"}}
    ).encode()


def through_the_service(url: str, jobs: int) -> tuple[list[float], float]:
    """Milliseconds of each job from POST to its result in hand, and what the worker itself says it computed."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    body, took, fit = spec(), [], []
    for i in range(jobs + 10):
        began = time.perf_counter()
        headers = {"Content-Type": "application/json", "Prefer": "wait=30"}
        connection.request("POST", "/v1/jobs", body, headers)
        reply = connection.getresponse()
        job = json.loads(reply.read())
        if reply.status != 201:
            raise RuntimeError(f"status {reply.status}: {job}")
        connection.request("GET", job["links"]["result"])
        result = json.loads(connection.getresponse().read())
        if i >= 10:
            took.append((time.perf_counter() - began) * 1e3)
            fit.append(result["timing"]["fit_s"] * 1e3)
    return took, statistics.median(fit)


def bare_rq(url: str, jobs: int) -> list[float]:
    """Milliseconds of each no-op job from enqueue to its result, with blocking reads of the result."""
    connection = redis.Redis.from_url(url)
    queue = rq.Queue("bare", connection=connection, serializer=JSONSerializer)
    took = []
    for i in range(jobs + 10):
        began = time.perf_counter()
        job = queue.enqueue("time.sleep", 0, result_ttl=60)
        if job.latest_result(timeout=30) is None:
            raise RuntimeError("the bare job did not end")
        if i >= 10:
            took.append((time.perf_counter() - began) * 1e3)
    return took


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(30)


def main(*, short: bool) -> None:
    jobs = 20 if short else 200
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(EmbeddedServer(directory))
        environment = {**os.environ, "GRADTUNE_REDIS_URL": server.url, "BENCHMARK_REDIS_URL": server.url}
        environment["GRADTUNE_LOG_LEVEL"] = "error"
        serve = [sys.executable, "-m", "service.cli", "serve", "--port", "0"]
        service = subprocess.Popen(serve, env=environment, stdout=subprocess.PIPE, text=True)
        stack.callback(stop, service)
        bare = subprocess.Popen([sys.executable, "-c", BARE_WORKER], env=environment, text=True)
        stack.callback(stop, bare)
        assert service.stdout is not None
        url = service.stdout.readline().partition("ready at ")[2].split()[0]
        ours, computed = through_the_service(url, jobs)
        theirs = bare_rq(server.url, jobs)
    for name, took in (("gradtune, POST to result", ours), ("bare RQ, enqueue to result", theirs)):
        cuts = statistics.quantiles(took, n=20)
        print(f"{name:>28}: p50 {statistics.median(took):6.1f} ms   p95 {cuts[18]:6.1f} ms   ({jobs} jobs)")
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(f"computed by the worker: {computed:.1f} ms; ratio of medians {ratio:.2f}")
