"""The job loop, run in the work-horse: claim, tune, beat, finish.

Three kinds of end, never mixed: a numerical outcome is part of the result; a lost lease or a broken server leaves the
job to whoever holds it; everything unexpected is logged with an id and tried again from the checkpoint.
"""

from __future__ import annotations

import logging
import math
import os
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import orjson
import redis
from redis.exceptions import RedisError
from scipy.linalg import lapack

from worker import checkpoint, store
from worker.ahead import Ahead
from worker.contract.dataset import DatasetWarning
from worker.contract.description import describe, fingerprint, work
from worker.contract.expansion import Made
from worker.contract.inline import encode_data
from worker.contract.spec import ALGORITHM, JobSpec
from worker.core.hyperparameters import Hyperparameters
from worker.core.records import Outcome, State, Step
from worker.core.search.descents import without_rows
from worker.core.search.plan import Prepared, prepare
from worker.core.search.procedure import carry_out
from worker.core.search.tune import tune
from worker.load import LoadError, load
from worker.queue.horse import horse
from worker.report import KILLED, OTHER_VERSION, chosen, progress, result, step_record, unfitted_result
from worker.store import Algorithm, Claim, Status, Verdict

BEAT: Final = 0.03
"""Seconds between beats, at least: a beat saves the checkpoint and learns of a cancellation."""
SHARE: Final = 0.25
"""A beat may take at most this share of the pause that follows it: to a slow server, they are further apart."""
RATE: Final = 4e6
"""Bytes per second of checkpoints that go into the server's append-only file, at most: large ones are further apart."""
SLOWEST: Final = 0.3
"""Longest of these pauses, in seconds: the worker kills a work-horse that does not notice a cancellation soon."""
TELL: Final = 0.15
"""Seconds between beats that tell progress, at least: each wakes the callers who wait for a change."""
ATTEMPTS: Final = 3
"""Attempts after which an unexpected error fails the job."""
OURS: Final = Algorithm(ALGORITHM, lambda description: fingerprint(orjson.loads(description)))
"""What is computed with here. A job that another version has begun is begun again."""

OUT_OF_MEMORY: Final = (
    "The job needs more memory than a job may take here. Send fewer columns or rows, or have the limit raised: "
    "GRADTUNE_JOB_MEMORY_MB of the workers, and the memory of their machine."
)

log = logging.getLogger(__name__)


def warm_up() -> None:
    """Do once what a first job would do: load what is loaded late, and let BLAS get its buffers.

    OpenBLAS ends the process when it gets no buffer, so it has to have them before memory is limited.
    """
    square = np.eye(256)  # large enough for all of its threads
    lapack.dpotrf(square @ square)  # numpy's BLAS, and scipy's
    rows, target = [[float(i), float(i * i)] for i in range(6)], [0.0, 1.0, 0.0, 2.0, 1.0, 3.0]
    spec = JobSpec.model_validate_json(orjson.dumps({"data": {"x": rows, "y": target}, "training": {"kind": "ridge"}}))
    data = encode_data(spec.problem())
    task = work(orjson.dumps(describe(spec, data)), data)
    prepared = prepare(task.problem, task.plan)
    *_, last = tune(prepared)
    claim = Claim("", 1, False, b"", b"", None, 0, 0.0, 0.0, "", 0.0, 0.0, "", "")
    result(claim, prepared, last, Status.SUCCEEDED, last.ended, 0.0)


def retention() -> float:
    """Seconds for which an ended job is kept, `GRADTUNE_RETENTION_DAYS`."""
    days = os.environ.get("GRADTUNE_RETENTION_DAYS")
    return float(days) * 86400 if days else store.RETENTION


def starts_at_once() -> int:
    """How many starts of a job are searched at the same time, `GRADTUNE_STARTS_AT_ONCE`."""
    return int(os.environ.get("GRADTUNE_STARTS_AT_ONCE") or 1)


def run_job(job_id: str) -> None:
    """Run a delivered job to its end, or until it is no longer ours. The one place where unexpected errors stop."""
    here = horse()
    claim = None
    try:
        taken = store.claim(job_id, here.owner, lease=here.lease, retention=retention(), algorithm=OURS)
        claim = store.run(here.client, taken)
        if claim is not None:
            run_claimed(here.client, claim, here.concluding)
    except Exception as error:
        _note(here.client, job_id, claim, error)
        raise  # the parent and the reconciler see to a job that has not ended; and a new work-horse to the next one


def _note(client: redis.Redis, job_id: str, claim: Claim | None, error: Exception) -> None:
    """End the job if trying again would not help."""
    if (no_memory := _memory_error(error)) is not None:
        traceback.clear_frames(no_memory.__traceback__)  # free what the job held: the rest needs a little memory, too
        # A claim whose reply was too large to be read has been made all the same.
        attempt = claim.attempt if claim else store.run(client, store.last_attempt(job_id))
        _fail(client, job_id, attempt, "out-of-memory", "Out of memory", OUT_OF_MEMORY)
    elif claim is not None and not isinstance(error, RedisError):
        error_id = uuid.uuid4().hex
        log.error("job %s, attempt %d: error %s", job_id, claim.attempt, error_id, exc_info=error)
        if claim.attempt >= ATTEMPTS:
            detail = f"An unexpected error, logged by the worker as {error_id}, ended {claim.attempt} attempts."
            _fail(client, job_id, claim.attempt, "internal-error", "Internal error", detail)


def _memory_error(error: BaseException | None) -> MemoryError | None:
    """Find what ran out of memory, which redis-py's clean-up can hide behind an error of its own."""
    while error is not None and not isinstance(error, MemoryError):
        error = error.__context__
    return error


def _fail(client: redis.Redis, job_id: str, attempt: int, code: str, title: str, detail: str) -> None:
    error = orjson.dumps({"code": code, "title": title, "detail": detail})
    store.run(client, store.finish(job_id, attempt, Status.FAILED, error=error, retention=retention()))


@np.errstate(all="ignore")  # overflow is an outcome that the core reports, not a warning on a worker's terminal
def run_claimed(client: redis.Redis, claim: Claim, concluding: Callable[[], None] = lambda: None) -> None:
    """Run a job that is ours; `concluding` is called when its search is over, before the refit.

    Raises whatever is neither the caller's fault nor an outcome.
    """
    if claim.cancelled and claim.algorithm != ALGORITHM:  # a refit here would mix the numbers of two versions
        _conclude(client, claim, Status.CANCELLED, None)
        return
    loop = Loop(client, claim, time.monotonic() - claim.elapsed)
    try:
        task = load(claim.spec, claim.data)
    except LoadError as error:
        if error.damaged:
            store.run(client, store.mark_dataset(error.damaged, str(error)))
        _fail(client, claim.id, claim.attempt, error.code, error.title, str(error))
        return
    prepared = task.prepared
    loop.made, loop.warnings = task.made, task.warnings
    resume = checkpoint.unpack(claim.checkpoint) if claim.checkpoint else None
    if claim.cancelled:
        if resume is not None:
            loop.finish(prepared, stopped_step(resume), Status.CANCELLED, None)
        return
    with Ahead(starts_at_once()) as searches:  # ended before the job is: its memory and its cores are free then
        ending = _search(loop, carry_out(prepared, resume, searches), prepared.objective.hyperparameters)
    if ending is not None:
        concluding()
        loop.finish(prepared, *ending)


def _search(loop: Loop, steps: Iterator[Step], names: Hyperparameters) -> tuple[Step, Status, Outcome | None] | None:
    """Report the steps until the search is over, or is to be stopped; None where the job is no longer ours."""
    for step in steps:
        if step.ended is not None:
            return step, Status.FAILED if step.ended.is_failure else Status.SUCCEEDED, step.ended
        verdict = loop.report(names, step)
        if verdict is Verdict.FENCED:
            return None
        if verdict is Verdict.CANCEL:
            return step, Status.CANCELLED, None
        if loop.elapsed > loop.claim.seconds:
            return step, Status.SUCCEEDED, Outcome.MAX_SECONDS
    raise AssertionError("a search ends with a step that says so")


def stopped_step(state: State) -> Step:
    """The step at which a search was left."""
    running = state.starts[-1]
    return Step(running.best, running.gradient_norm, state.starts, None, None, state.folds)


@dataclass(slots=True)
class Loop:
    """What the loop tells the store: the state and the steps since the last beat, all in one move.

    Progress is that of the last state, so that an attempt which goes on from there never shows less than was seen.
    """

    client: redis.Redis
    claim: Claim
    began: float  # on the monotonic clock, moved back by the time that earlier attempts took
    beat_at: float = -math.inf  # the first point is told at once: the next step may be one that cannot be interrupted
    tell_at: float = -math.inf
    safe: Step | None = None  # the last step with a state, until it is stored
    pending: list[bytes] = field(default_factory=list)
    stored: int = -1
    made: tuple[Made, ...] = ()
    warnings: tuple[DatasetWarning, ...] = ()

    def __post_init__(self) -> None:
        self.stored = self.claim.steps

    @property
    def elapsed(self) -> float:
        """Seconds of running time over all attempts."""
        return time.monotonic() - self.began

    def report(self, hyperparameters: Hyperparameters, step: Step) -> Verdict:
        """Note the step, and tell the store if the last beat is long enough ago."""
        if step.state is not None:
            self.safe = step
            sequence = self.stored + len(self.pending) + 1
            self.pending.append(orjson.dumps(step_record(hyperparameters, step, sequence)))
        now = time.monotonic()
        if now < self.beat_at:
            return Verdict.OK
        state = None if self.safe is None or self.safe.state is None else checkpoint.pack(self.safe.state)
        verdict = store.run(self.client, self._beat(state, tell=now >= self.tell_at))
        self.safe, self.pending, self.stored = None, [], self.stored + len(self.pending)
        after = time.monotonic()
        self.beat_at = after + min(max(BEAT, (after - now) / SHARE, len(state or b"") / RATE), SLOWEST)
        return verdict

    def _beat(self, state: bytes | None, *, tell: bool) -> store.Operation[Verdict]:
        """Store what is safe; between two states, only extend the lease and ask."""
        told = None
        if self.safe is not None and tell:
            told = progress(self.safe, self.elapsed)
            self.tell_at = time.monotonic() + TELL
        return store.beat(
            self.claim.id,
            self.claim.attempt,
            progress=told,
            elapsed=self.elapsed,
            checkpoint=state,
            steps=self.pending,
            steps_before=self.stored,
        )

    def finish(self, prepared: Prepared, step: Step, status: Status, outcome: Outcome | None) -> None:
        """End the job at this step, with the refit at the best point so far."""
        usable = np.isfinite(step.best.best.value)
        step = chosen(prepared, step) if usable else step
        arguments = (self.claim, prepared, step, status, outcome, self.elapsed, self.made, self.warnings)
        document = result(*arguments) if usable else None
        error = None
        if outcome is not None and outcome.is_failure:
            error = {
                "code": outcome.code,
                "title": outcome.code.replace("_", " ").capitalize(),
                "detail": outcome.value,
            }
        self._end(status, outcome, document, error, progress(step, self.elapsed))

    def _end(
        self,
        status: Status,
        outcome: Outcome | None,
        document: bytes | None,
        error: dict[str, str] | None,
        last: bytes,
    ) -> None:
        finished = store.finish(
            self.claim.id,
            self.claim.attempt,
            status,
            stop_reason=outcome.code if outcome is not None and error is None else None,
            result=document,
            error=orjson.dumps(error) if error else None,
            progress=last,
            elapsed=self.elapsed,
            steps=self.pending,
            steps_before=self.stored,
            retention=retention(),
        )
        if not store.run(self.client, finished):
            log.warning("job %s: attempt %d had lost its lease when it finished", self.claim.id, self.claim.attempt)


def conclude_killed(
    client: redis.Redis, job_id: str, attempt: int, reason: Literal["cancelled", "max_seconds"]
) -> None:
    """End a job whose work-horse had to be killed, with what its last checkpoint holds. Runs in the worker itself.

    There is no time to refit: such a result is partial, it has hyperparameters and no model, and the data are not read.
    """
    claim = store.run(client, store.held(job_id, attempt))
    if claim is not None:
        stopped = reason == "max_seconds"
        outcome, status = (Outcome.MAX_SECONDS, Status.SUCCEEDED) if stopped else (None, Status.CANCELLED)
        _conclude(client, claim, status, outcome)


def _conclude(client: redis.Redis, claim: Claim, status: Status, outcome: Outcome | None) -> None:
    """End a job with what its checkpoint holds, of whatever version it is."""
    document, last, error = None, None, None
    if claim.checkpoint:
        task = work(claim.spec, b"")
        families = task.plan.hyperparameters(task.problem).families
        step = without_rows(stopped_step(checkpoint.unpack(claim.checkpoint)), families)
        why = KILLED if claim.algorithm == ALGORITHM else OTHER_VERSION
        document = unfitted_result(claim, task, step, status, outcome, why)
        last = progress(step, claim.elapsed)
    elif outcome:
        detail = f"Not one iteration ended within the time limit of {claim.seconds:g} s; raise limits.seconds."
        status, error = Status.FAILED, {"code": "max_seconds", "title": "Time limit", "detail": detail}
    store.run(
        client,
        store.finish(
            claim.id,
            claim.attempt,
            status,
            stop_reason=outcome.code if outcome and document else None,
            result=document,
            error=orjson.dumps(error) if error else None,
            progress=last,
            retention=retention(),
        ),
    )
