"""The moves of a job: submit, claim, beat, finish, cancel, and the recovery when a worker dies in between."""

import json
import time
import uuid
from collections.abc import Sequence
from typing import Final

from worker.store import keys, scripts
from worker.store.driver import Argument, Command, Operation
from worker.store.lifecycle import Status
from worker.store.records import (
    CONTRACT,
    FIRST_ALGORITHM,
    Admission,
    Algorithm,
    Claim,
    Deletion,
    Hold,
    Pass,
    Submission,
    Verdict,
    Watch,
)

LEASE: Final = 8.0
"""Seconds without a beat after which a worker counts as lost."""
RETENTION: Final = 7 * 86400.0
"""Seconds for which a job is kept after its end."""
QUEUE_CHECK_PERIOD: Final = 30.0
"""Seconds between checks of the reconciler whether a queued job is really in the queue."""
LONGEST_TIME_TO_CLAIM: Final = 5.0
"""Seconds that may pass between the pop of a job and its claim."""
LARGEST_DRIFT: Final = 2.0
"""Seconds by which the server's clock and ours may differ between two passes; beyond that, its clock has stepped.

A living worker's lease lasts longer than that, and the reply to a pass may be late by about as much.
"""
MAX_CLAIMS: Final = 3
"""Claims in a row without a checkpoint after which a job counts as one that kills its workers."""
MAX_STRANDED: Final = 10
"""Deliveries in a row that may be popped and never claimed. There may be many: most have other causes than the job."""
_REMEDY: Final = (
    "most often because the machine ran out of memory. Give the workers more memory, or make the job smaller; with "
    "GRADTUNE_JOB_MEMORY_MB a job that asks for more fails at once and says so."
)


def _lost(what: str) -> bytes:
    return json.dumps(
        {"code": "worker-lost", "title": "The worker was lost repeatedly", "detail": f"{what}, {_REMEDY}"}
    ).encode()


WORKER_LOST: Final = _lost(f"{MAX_CLAIMS} attempts in a row ended without any progress: their process was killed")
STRANDED: Final = _lost(f"{MAX_STRANDED} times in a row the job's process was killed before the job began")


def submit(
    submission: Submission,
    delivery: Sequence[Command],
    *,
    max_queued: int | None = None,
    max_bytes: int | None = None,
) -> Operation[Admission]:
    """Create a job and put it into the queue, in one step.

    `EXISTS`: there is a job with this id, and it stays as it is. `FULL`: `max_queued` ids wait already. `CROWDED`: with
    this job, the jobs that have not ended would take more than `max_bytes`. `UNKNOWN_DATASET`: there is no dataset of
    this id. The dataset of a job cannot be removed before the job ends. The same operation, sent again, answers
    `CREATED` again and creates nothing.
    """
    fields: tuple[Argument, ...] = (
        *("spec", submission.spec),
        *("labels", json.dumps(submission.labels)),
        *("fingerprint", submission.fingerprint),
        *("seconds", submission.seconds),
        *("request_id", submission.request_id),
        *("traceparent", submission.traceparent),
        *("contract", submission.contract),
        *("algorithm", submission.algorithm),
        *("attempt", 0),
        *(("shown", submission.shown) if submission.shown else ()),
        *(("notes", submission.notes) if submission.notes else ()),
        *(("names", submission.names) if submission.names else ()),
    )
    most = "" if max_queued is None else max_queued
    room = "" if max_bytes is None else max_bytes
    nonce = uuid.uuid4().hex
    (reply,) = yield _script(
        scripts.SUBMIT,
        *(
            submission.id,
            nonce,
            most,
            QUEUE_CHECK_PERIOD,
            submission.data,
            submission.dataset,
            room,
            submission.size,
            len(fields),
        ),
        *fields,
        *_words(delivery),
    )
    return Admission(reply.decode())


def last_attempt(job_id: str) -> Operation[int]:
    """Read the number of attempts so far; 0 for an unknown job."""
    (reply,) = yield (("HGET", keys.JOB + job_id, "attempt"),)
    return int(reply or 0)


def claim(
    job_id: str,
    owner: str,
    *,
    lease: float = LEASE,
    max_claims: int = MAX_CLAIMS,
    lost: bytes = WORKER_LOST,
    retention: float = RETENTION,
    contract: int = CONTRACT,
    algorithm: Algorithm | None = None,
) -> Operation[Claim | None]:
    """Take a job for `owner`, a name used for one claim only. `None`: there is nothing to do, skip this delivery.

    `contract` is the newest contract that the worker knows. A job of a newer contract is left for a newer worker: it is
    delivered again later, and the claim does not count. A claimed job has the worker's contract, as its checkpoints do.

    A job that another version than `algorithm` has begun begins again, so that numbers of two versions are never mixed.
    It gets the fingerprint of this version and keeps its attempts and its running time. None: the worker's numbers
    depend on no version. A cancelled job does not begin again: it is to be concluded.

    After `max_claims` claims without progress the job fails with the error `lost` (JSON). A cancelled job without a
    checkpoint ends here; with one, the claim says `cancelled`.
    """
    message = (job_id, owner, lease, max_claims, retention, lost, contract, algorithm.version if algorithm else "")
    (reply,) = yield _script(scripts.CLAIM, *message, "")
    if isinstance(reply, bytes) and algorithm:  # the description of a job of another version, and nothing was done
        (reply,) = yield _script(scripts.CLAIM, *message, algorithm.fingerprint(reply))
    return None if reply is None else _claim(job_id, reply)


def held(job_id: str, attempt: int) -> Operation[Claim | None]:
    """Read again what the attempt was given, with the newest checkpoint and without the data.

    `None`: the job is no longer its own.
    """
    (reply,) = yield _script(scripts.HELD, job_id, attempt)
    return None if reply is None else _claim(job_id, reply)


def beat(
    job_id: str,
    attempt: int,
    *,
    elapsed: float,
    progress: bytes | None = None,
    checkpoint: bytes | None = None,
    steps: Sequence[bytes] = (),
    steps_before: int = 0,
) -> Operation[Verdict]:
    """Extend the lease and save what is given. `elapsed`: seconds of running time over all attempts.

    Progress is what users see of a running job: a beat without it wakes nobody who waits for a change.
    `steps` are the JSON records of the steps since the last checkpoint, `steps_before` is the number of steps before.
    Raises: `ValueError` for steps without a checkpoint, since a resumed attempt would store them again.
    """
    if steps and checkpoint is None:
        raise ValueError("steps are stored with the checkpoint that follows them")
    state = (1, checkpoint) if checkpoint is not None else (0, b"")
    (reply,) = yield _script(
        scripts.BEAT, job_id, attempt, elapsed, progress or b"", *state, steps_before, len(steps), *steps
    )
    return Verdict(reply.decode())


def watch(
    job_id: str, owner: str, *, attempt_before: int, lease: float = LEASE, elapsed: float | None = None
) -> Operation[Watch]:
    """Watch a job from outside the process that runs it, and extend its lease if `owner` holds it.

    `attempt_before`: the job's attempt before this owner's process was started. It tells an owner that has not claimed
    yet from an owner that was fenced. `elapsed`: seconds of running time over all attempts. It is stored when the lease
    is extended, so the time of a process that dies between two beats counts.
    """
    spent = "" if elapsed is None else elapsed
    (reply,) = yield _script(scripts.WATCH, job_id, owner, attempt_before, lease, spent)
    hold, attempt, cancelled, before, limit = reply
    return Watch(Hold(hold.decode()), int(attempt), bool(cancelled), float(before), float(limit))


def release(
    job_id: str,
    owner: str,
    delivery: Sequence[Command] = (),
    *,
    blameless: bool = False,
    retention: float = RETENTION,
) -> Operation[bool]:
    """Give a job back that its owner did not finish; true if the owner held it, or nobody has claimed it since its pop.

    A running job is queued again; a job that is being cancelled stays so. With a `delivery` the job is in the queue at
    once, without it the job is overdue at once. `blameless`: the job was not the cause, so this claim does not count. A
    job that is given back unclaimed `MAX_STRANDED` times in a row fails.
    """
    arguments = (
        job_id,
        owner,
        int(blameless),
        QUEUE_CHECK_PERIOD,
        MAX_STRANDED,
        STRANDED,
        retention,
        *_words(delivery),
    )
    (reply,) = yield _script(scripts.RELEASE, *arguments)
    return bool(reply)


def finish(  # noqa: PLR0913 - one message
    job_id: str,
    attempt: int,
    status: Status,
    *,
    stop_reason: str | None = None,
    result: bytes | None = None,
    error: bytes | None = None,
    progress: bytes | None = None,
    elapsed: float | None = None,
    steps: Sequence[bytes] = (),
    steps_before: int = 0,
    retention: float = RETENTION,
) -> Operation[bool]:
    """End a job; false when this attempt no longer holds it, and then nothing was written.

    Raises: `IllegalMoveError` when the job cannot go from where it is to `status`.
    """
    pairs = (("stop_reason", stop_reason), ("error", error), ("progress", progress))
    fields = [word for name, value in pairs if value is not None for word in (name, value)]
    outcome = (1, result) if result is not None else (0, b"")
    (reply,) = yield _script(
        scripts.FINISH,
        *(job_id, attempt, str(status), retention, "" if elapsed is None else elapsed),
        *(len(fields), *fields, *outcome, steps_before, len(steps), *steps),
    )
    return bool(reply)


def cancel(job_id: str, *, retention: float = RETENTION) -> Operation[Status | None]:
    """Ask for the end of a job and return its status after that; `None` for an unknown job.

    A queued job is cancelled at once, unless an earlier attempt left a checkpoint to conclude from.
    """
    (reply,) = yield _script(scripts.CANCEL, job_id, retention)
    return None if reply is None else Status(reply.decode())


def delete(job_id: str) -> Operation[Deletion]:
    """Remove a job that has ended, with everything stored for it."""
    (reply,) = yield _script(scripts.DELETE, job_id)
    return Deletion(reply.decode())


def overdue(
    *, lease: float = LEASE, limit: int = 1000, patience: float = LONGEST_TIME_TO_CLAIM, last: Pass | None = None
) -> Operation[list[str]]:
    """Name the jobs that have to be delivered again: their lease is over, or they are in no queue.

    Empty while the server has been up for less than a lease: the workers may not be back yet. `last` is the caller's
    previous pass, and becomes this one. If the server's clock has stepped since then, every lease that the step has
    ended or put off begins again; without `last`, only the leases that are put off by minutes.
    """
    last = last or Pass()
    sent = time.monotonic()
    before = ("", 0) if last.server is None else (last.server, sent - last.here)
    (reply,) = yield _script(scripts.OVERDUE, limit, lease, QUEUE_CHECK_PERIOD, patience, *before, LARGEST_DRIFT)
    now = float(reply[0])
    advance = 0.0 if last.server is None else now - last.server - before[1]
    last.server, last.here = now, sent
    last.stepped = advance if abs(advance) > LARGEST_DRIFT else 0.0
    return [member.decode() for member in reply[1:]]


def redeliver(job_id: str, delivery: Sequence[Command], *, retention: float = RETENTION) -> Operation[bool]:
    """Deliver an overdue job again; false if another process was faster or the job is no longer overdue.

    A job that was popped `MAX_STRANDED` times in a row and never claimed fails instead.
    """
    (reply,) = yield _script(
        scripts.REDELIVER, job_id, QUEUE_CHECK_PERIOD, MAX_STRANDED, STRANDED, retention, *_words(delivery)
    )
    return bool(reply)


def _script(script: str, *arguments: Argument) -> tuple[Command]:
    return (("EVAL", script, 0, *arguments),)


def _words(commands: Sequence[Command]) -> tuple[Argument, ...]:
    """Flatten commands for `execute` of the prelude."""
    return (len(commands), *(word for command in commands for word in (len(command), *command)))


def _claim(job_id: str, reply: Sequence[bytes]) -> Claim:
    attempt, status, elapsed, seconds, created, started, fingerprint, request_id, traceparent, *rest = reply
    algorithm, spec, data, checkpoint, steps = rest
    return Claim(
        id=job_id,
        attempt=int(attempt),
        cancelled=status == b"cancelling",
        spec=spec,
        data=data,
        checkpoint=checkpoint,
        steps=int(steps),
        elapsed=float(elapsed),
        seconds=float(seconds),
        fingerprint=fingerprint.decode(),
        created_at=float(created),
        started_at=float(started),
        request_id=request_id.decode(),
        traceparent=traceparent.decode(),
        algorithm=FIRST_ALGORITHM if algorithm is None else algorithm.decode(),
    )
