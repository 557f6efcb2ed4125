"""`python -m tests.operations.soak`: many small jobs. Does memory stay flat, does every key have an owner or an end?

A real `gradtune serve` with its embedded server and a short retention; callers that POST, wait for the end and read the
result. Now and then they rest until retention has removed every job. Only then is memory compared: while jobs come, the
server holds more the faster they come, and that depends on what else the machine does. Prints, for each part of the
service, its memory at the beginning and at the end and the slope between them.

Memory is what a process has resident and private from the start (`RssAnon` of Linux). Its proportional set size would
change with the pages of libraries that others, also programs that are not part of this, begin or cease to share.
Pages that a work-horse still shares with its worker are counted in both.
"""

import argparse
import http.client
import json
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
import redis

from tests.system.processes import Service, service
from worker.store import TERMINAL, keys

WORKERS = 2
CALLERS = 4
RETENTION = 5.0  # seconds
RESTS = 15
PATIENCE = 60.0  # seconds that the reconciler may take to forget what is gone
WARM = 0.2  # share of the jobs before those that are measured: retention sets in, caches fill
FLAT = 0.05  # of its memory that a part may grow by over the measured jobs, and
SMALL = 2.0  # MiB that it may grow by in any case: noise of an allocator

ALWAYS = {  # keys that belong to the service, not to a job
    *(keys.JOBS, keys.ACTIVE, keys.REWRITTEN, keys.QUEUE_LIST, keys.INTERMEDIATE_LIST, keys.RQ_WORKERS),
    *(keys.LIVE_BYTES, keys.ENDED, keys.ENDED_BYTES),
    *("rq:queues", "rq:workers"),
}


def orphans(client: redis.Redis) -> list[str]:
    """The keys that will stay for ever: no time to live, and neither a live job's nor the service's own."""
    found = []
    for key in client.scan_iter(count=1000):
        name = key.decode()
        if name in ALWAYS or client.pttl(key) != -1:  # -2: it is gone by now
            continue
        job_id = name.removeprefix(keys.JOB).removeprefix(keys.RQ_JOB).partition(":")[0]
        status = client.hget(keys.JOB + job_id, "status")
        if status is None or status.decode() in TERMINAL:
            found.append(name)
    return sorted(found)


@dataclass(slots=True)
class Soak:
    """Counts jobs and samples memory (MiB) by part: {part: [(jobs so far, memory), ...]}."""

    running: Service
    client: redis.Redis
    jobs: int
    ended: int = 0
    faults: list[str] = field(default_factory=list)
    samples: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        """The jobs in equal portions, with a rest after each. Stops at the first fault."""
        for rest in range(1, RESTS + 1):
            portion = iter(range(self.jobs * rest // RESTS - self.ended))
            threads = [threading.Thread(target=self._call, args=(portion,)) for _ in range(CALLERS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.faults += (f"key without owner or end: {name}" for name in settled(self.client))
            if self.faults:
                return
            self.sample()

    def sample(self) -> None:
        memory: dict[str, list[float]] = defaultdict(list)
        for part, process in self._parts():
            with suppress(psutil.Error, OSError):  # a work-horse that is being replaced
                memory[part].append(anonymous(process.pid))
        memory["server, used_memory"].append(self.client.info("memory")["used_memory"] / 2**20)
        for part, amounts in memory.items():
            self.samples[part].append((self.ended, sum(amounts) / len(amounts)))

    def slopes(self) -> Iterator[tuple[str, float, float, float]]:
        """Of each part: MiB at the beginning and at the end by a straight line, and its slope in KiB per 1000 jobs."""
        for part, samples in self.samples.items():
            counts, amounts = np.array([sample for sample in samples if sample[0] >= WARM * self.jobs]).T
            slope, level = np.polyfit(counts, amounts, 1)
            yield part, level + slope * counts[0], level + slope * counts[-1], slope * 1024 * 1000

    def _parts(self) -> Iterator[tuple[str, psutil.Process]]:
        top = psutil.Process(self.running.process.pid)
        yield "supervisor", top
        for child in top.children():
            with suppress(psutil.Error):
                if child.name() == "valkey-server":
                    yield "server", child
                elif "worker.main" not in child.cmdline():
                    yield "API", child
                else:
                    yield "worker, mean", child
                    for horse in child.children():
                        yield "work-horse, mean", horse  # none for a while after one was replaced

    def _call(self, portion: Iterator[int]) -> None:
        connection = http.client.HTTPConnection(urlsplit(self.running.url).netloc, timeout=60)
        headers = {"Content-Type": "application/json", "Prefer": "wait=30"}
        while self._more(portion):
            connection.request("POST", "/v1/jobs", spec(), headers)
            job = json.loads(connection.getresponse().read())
            if job.get("status") != "succeeded":
                self.faults.append(f"a job came to {job}")
                return
            connection.request("GET", job["links"]["result"])
            if connection.getresponse().read() == b"":
                self.faults.append("a result is empty")
            with self._lock:
                self.ended += 1

    def _more(self, portion: Iterator[int]) -> bool:
        with self._lock:
            return next(portion, None) is not None


def anonymous(pid: int) -> float:
    """MiB of anonymous memory that a process has resident."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("RssAnon:"))) / 1024


def spec() -> bytes:
    rows = [[float(i % 7), float(i % 5), float(i * i % 11)] for i in range(40)]
    target = [row[0] - 0.5 * row[1] + 0.1 * row[2] for row in rows]
    document = {"data": {"x": rows, "y": target}, "training": {"kind": "ridge"}, "selection": {"kind": "holdout"}}
    return json.dumps(document).encode()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.operations.soak", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as directory:
        settings = {"RETENTION_DAYS": RETENTION / 86400, "WORKERS": WORKERS, "LOG_LEVEL": "error"}
        variables = {f"GRADTUNE_{name}": str(value) for name, value in settings.items()}
        socket = str(Path(directory) / "redis" / "server.sock")
        with service(Path(directory), **variables) as running, redis.Redis(unix_socket_path=socket) as client:
            soak = Soak(running, client, jobs)
            began = time.monotonic()
            soak.run()
            took = time.monotonic() - began
    print(
        f"{soak.ended} jobs in {took:.0f} s, {WORKERS} workers, {CALLERS} callers, ended jobs kept for {RETENTION:g} s"
    )
    faults = list(soak.faults)
    print(f"{'MiB (anonymous), at rest':28} {'begin':>8} {'end':>8} {'KiB per 1000 jobs':>18}")
    for part, begin, end, slope in () if faults else soak.slopes():
        print(f"{part:28} {begin:8.1f} {end:8.1f} {slope:18.1f}")
        if end - begin > max(FLAT * begin, SMALL):
            faults.append(f"not flat: {part}")
    print(f"keys without owner or time to live: {sum(fault.startswith('key ') for fault in soak.faults)}")
    print(*faults or ["flat"], sep="\n")
    return 1 if faults else 0


def settled(client: redis.Redis) -> list[str]:
    """Wait until retention has removed all jobs. Returns what will stay, for ever or longer than it should."""
    left = orphans(client)
    deadline = time.monotonic() + RETENTION + PATIENCE
    while (client.exists(keys.JOBS) or next(client.scan_iter(f"{keys.JOB}*", count=1000), None)) and not left:
        if time.monotonic() > deadline:
            listed = [f"{name.decode()} in {keys.JOBS}" for name in client.zrange(keys.JOBS, 0, 9)]
            return listed or [key.decode() for key in client.keys(f"{keys.JOB}*")]
        time.sleep(0.2)
        left = orphans(client)
    return left


if __name__ == "__main__":
    sys.exit(main())
