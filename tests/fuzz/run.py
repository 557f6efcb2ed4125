"""One real service, one hostile caller: every reply is judged, and what each request cost the API is measured."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from service.problems import MEDIA_TYPE
from tests.fuzz import dear
from tests.fuzz.messages import JSON, Hostile, Message
from tests.fuzz.meter import Cost, Meter

ROOT = Path(__file__).resolve().parents[2]
LONGEST_PROBLEM = 10_000  # bytes
KEPT = 40  # ids of jobs and datasets that messages are made of
EARLY = 0.2  # share of the requests after which memory is read for the first time: caches are full then
PATIENCE = 60.0  # seconds
TIMES = 3  # each dear request: of its processor time the least counts, of its memory the most
BRIEF = {
    "GRADTUNE_MAX_QUEUED": "50",
    "GRADTUNE_RETENTION_DAYS": "0.0005",
    "GRADTUNE_DATASET_RETENTION_DAYS": "0.0005",
}
"""Settings under which nothing that the fuzzer makes is kept for longer than a minute."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; status 0 where the connection was closed without a reply."""

    status: int
    headers: dict[str, str]
    content: bytes


class Caller:
    """One connection to the service, opened again whenever it was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: http.client.HTTPConnection | None = None

    def send(self, message: Message) -> Reply:
        """Send a message and read its reply."""
        for _ in range(2):  # a connection that idled may have been closed meanwhile
            fresh = self._connection is None
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
            try:
                return self._once(self._connection, message)
            except TimeoutError:
                self.close()
                break
            except (http.client.HTTPException, ConnectionError):
                self.close()
                if fresh:
                    break
        return Reply(0, {}, b"")

    def _once(self, connection: http.client.HTTPConnection, message: Message) -> Reply:
        headers = {name: value.encode("latin-1", "replace") for name, value in message.headers.items()}
        body = message.content if message.content or message.method in {"POST", "PATCH", "PUT"} else None
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent: the reply may be there
            connection.request(message.method, message.path, body, headers)  # type: ignore[arg-type] # bytes will do
        reply = connection.getresponse()
        received = Reply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())
        if reply.will_close:
            self.close()
        return received

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


@dataclass(slots=True)
class Outcome:
    """Of a run: replies by status, what was wrong, the dearest requests, memory early and at the end."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    dearest: list[tuple[Cost, Message]] = field(default_factory=list)
    limits: list[tuple[str, int, Cost]] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    def judge(self, message: Message, reply: Reply) -> None:
        """Note what must not be."""
        self.statuses[reply.status] += 1
        fault = ""
        if reply.status >= 500 or reply.status == 0:
            fault = f"status {reply.status}"
        elif reply.status >= 400 and reply.headers.get("content-type") != MEDIA_TYPE:
            fault = f"status {reply.status} is no problem document"
        elif reply.status >= 400 and len(reply.content) > LONGEST_PROBLEM:
            fault = f"a problem of {len(reply.content)} bytes"
        elif reply.status >= 400 and message.method != "HEAD" and "code" not in json.loads(reply.content):
            fault = f"status {reply.status} has no code"
        if fault:
            self.wrong.append(f"{fault}: {shown(message)} -> {reply.content[:300]!r}")

    def note(self, cost: Cost, message: Message) -> None:
        """Keep the dearest requests by each measure."""
        self.dearest.append((cost, message))
        if len(self.dearest) > 200:
            by_cpu = sorted(self.dearest, key=lambda one: -one[0].cpu)[:5]
            by_memory = sorted(self.dearest, key=lambda one: -one[0].memory)[:5]
            self.dearest = by_cpu + [one for one in by_memory if one not in by_cpu]


def shown(message: Message) -> str:
    """Enough of a message to send it again."""
    return f"{message.kind}: {message.method} {message.path[:200]} {message.headers} {message.content[:2000]!r}"


@contextmanager
def service(directory: Path, settings: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """`gradtune serve` on a free port: its port and the process id of its API."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GRADTUNE_")}
    environment = {**kept, "GRADTUNE_LOG_LEVEL": "warning", **settings}
    words = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--data-dir", str(directory / "data")]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log)
    try:
        assert process.stdout is not None
        found = None
        while found is None and (line := process.stdout.readline()):
            found = re.search(rb"http://127\.0\.0\.1:(\d+)", line)
        assert found is not None, (directory / "log").read_text()
        children = psutil.Process(process.pid).children(recursive=True)
        (api,) = (child.pid for child in children if "api" in child.cmdline())
        yield int(found[1]), api
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def fuzz(directory: Path, seed: int, requests: int, outcome: Outcome) -> None:
    """Send damaged requests, and the dearest of them again."""
    begun = time.monotonic()
    with service(directory, BRIEF) as (port, api):
        caller, meter, hostile = Caller(port), Meter(api), Hostile(seed)
        for number in range(requests):
            message = hostile.message()
            meter.begin()
            reply = caller.send(message)
            outcome.note(meter.end(), message)
            outcome.judge(message, reply)
            if reply.status in {201, 202} and message.method == "POST":
                _remember(hostile, reply)
            if number in {int(EARLY * requests), requests - 1}:
                outcome.memory.append(meter.held())
            if number % 20_000 == 19_999:
                print(f"{number + 1} requests, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        outcome.dearest = [(_least(caller, meter, message, outcome)[1], message) for _, message in outcome.dearest]
        caller.close()


def reach(directory: Path, outcome: Outcome) -> None:
    """Send requests at the documented limits."""
    files = (("text/x-libsvm", dear.sparse_file()), ("text/csv", dear.wide_file()))
    with service(directory, {}) as (port, api):
        caller, meter = Caller(port), Meter(api)
        made = [caller.send(Message("", "POST", "/v1/datasets", {"content-type": kind}, body)) for kind, body in files]
        jobs = [_ended(caller, spec()) for spec in (dear.small_job, dear.machine_job)]
        for message in dear.messages(*(json.loads(reply.content)["id"] for reply in made), *jobs):
            status, cost = _least(caller, meter, message, outcome)
            outcome.limits.append((message.kind, status, cost))
        caller.close()


def _ended(caller: Caller, spec: object) -> str:
    """The id of a job that has ended."""
    body = json.dumps(spec).encode()
    reply = caller.send(Message("", "POST", "/v1/jobs", JSON, body))
    job: str = json.loads(reply.content)["id"]
    for _ in range(20):
        reply = caller.send(Message("", "GET", f"/v1/jobs/{job}", {"prefer": "wait=30"}))
        if json.loads(reply.content)["done"]:
            return job
    raise AssertionError(f"the job does not end: {reply.content[:1000]!r}")


def _least(caller: Caller, meter: Meter, message: Message, outcome: Outcome) -> tuple[int, Cost]:
    costs, status = [], 0
    for _ in range(TIMES):
        meter.begin()
        reply = caller.send(message)
        costs.append(meter.end())
        outcome.judge(message, reply)
        status = reply.status
    return status, Cost(min(cost.cpu for cost in costs), max(cost.memory for cost in costs))


def _remember(hostile: Hostile, reply: Reply) -> None:
    with suppress(ValueError, KeyError, TypeError):
        made = json.loads(reply.content)["id"]
        ids = hostile.jobs if made.startswith("job_") else hostile.datasets
        ids.append(made)
        del ids[:-KEPT]
