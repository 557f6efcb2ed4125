"""A small resumable job, and a worker process for it.

The spec says `steps` (how many), `pause` (seconds for each), `beats` (false: hang without a word), `die` (kill itself
before the claim's first beat), `lapack` (spend a minute or more in one call into LAPACK after this step), `leave` (what
it leaves behind in its process: see `LEFT`), `conclude` (seconds that it takes after it has said that it concludes).
Each step appends its number and the attempt that made it. A job whose id begins with `stillborn` kills its process
before the claim.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
import redis
from scipy.linalg import lapack

from tests.clock import make_settable
from worker import store
from worker.queue import TuneWorker, horse
from worker.store import Status, Verdict

FUNCTION = "tests.store.toy.run"
kept: list[bytes] = []
LEFT: dict[str, Callable[[], object]] = {
    "thread": lambda: threading.Thread(target=time.sleep, args=(600,), daemon=True).start(),
    "memory": lambda: kept.append(os.urandom(300 * 2**20)),
    "alarm": lambda: signal.setitimer(signal.ITIMER_REAL, 0.3),
    "exception": lambda: 1 / 0,
}


def run(job_id: str) -> None:
    here = horse()
    if job_id.startswith("stillborn"):
        os.kill(os.getpid(), signal.SIGKILL)
    claim = store.run(here.client, store.claim(job_id, here.owner, lease=here.lease))
    if claim is None:
        return
    spec = json.loads(claim.spec)
    done = int(claim.checkpoint or 0)
    if claim.cancelled:
        _end(here.client, job_id, claim.attempt, Status.CANCELLED, "cancelled", done)
        return
    if spec.get("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    while not spec.get("beats", True):
        time.sleep(60)
    if spec.get("lapack") == done:
        lapack_for_long()
    while done < spec.get("steps", 1):
        time.sleep(spec.get("pause", 0.0))
        done += 1
        step = json.dumps({"step": done, "attempt": claim.attempt}).encode()
        beat = store.beat(
            job_id,
            claim.attempt,
            progress=json.dumps({"iteration": done}).encode(),
            elapsed=claim.elapsed,
            checkpoint=str(done).encode(),
            steps=[step],
            steps_before=done - 1,
        )
        verdict = store.run(here.client, beat)
        if verdict is Verdict.FENCED:
            return
        if verdict is Verdict.CANCEL and not spec.get("deaf"):
            _end(here.client, job_id, claim.attempt, Status.CANCELLED, "cancelled", done)
            return
        if spec.get("lapack") == done:
            lapack_for_long()
    if "conclude" in spec:
        here.concluding()
        time.sleep(spec["conclude"])
    _end(here.client, job_id, claim.attempt, Status.SUCCEEDED, "converged", done)
    LEFT.get(spec.get("leave"), lambda: None)()


def lapack_for_long() -> None:
    lapack.dgesdd(np.random.default_rng(0).normal(size=(4000, 4000)))


def conclude(client: redis.Redis, job_id: str, attempt: int, reason: Literal["cancelled", "max_seconds"]) -> None:
    claim = store.run(client, store.held(job_id, attempt))
    if claim is not None:
        status = Status.CANCELLED if reason == "cancelled" else Status.SUCCEEDED
        _end(client, job_id, attempt, status, reason, int(claim.checkpoint or 0))


def _end(client: redis.Redis, job_id: str, attempt: int, status: Status, reason: str, done: int) -> None:
    document = json.dumps({"steps": done, "attempt": attempt}).encode()
    store.run(client, store.finish(job_id, attempt, status, stop_reason=reason, result=document))


class Impatient(TuneWorker):
    PATIENCE: ClassVar = {hold: (5.0, ending) for hold, (_, ending) in TuneWorker.PATIENCE.items()}


def main(url: str, lease: float, jobs: int) -> None:
    logging.basicConfig(level=logging.INFO)
    make_settable()
    Impatient(connection=store.connect(url), conclude=conclude, lease=lease, function=FUNCTION, jobs=jobs).work()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
