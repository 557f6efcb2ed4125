"""The store: our own record of every job, which is the truth; RQ only delivers ids.

The only code that knows Redis keys and the only one that moves a job from one state to the next. Operations are
generators of commands (see `driver`): `run(client, beat(...))` or `await arun(client, job(...))`.
"""

from worker.store.clients import aconnect, connect
from worker.store.driver import Command, Operation, arun, run
from worker.store.keys import CHANGED, QUEUE
from worker.store.lifecycle import MOVES, TERMINAL, IllegalMoveError, Status
from worker.store.operations import (
    LEASE,
    MAX_CLAIMS,
    RETENTION,
    WORKER_LOST,
    beat,
    cancel,
    claim,
    delete,
    finish,
    held,
    last_attempt,
    overdue,
    redeliver,
    release,
    submit,
    watch,
)
from worker.store.queries import health, job, jobs, ping, result, server_info, snapshots, steps
from worker.store.records import (
    CONTRACT,
    Admission,
    Claim,
    Deletion,
    Health,
    Hold,
    JobRecord,
    Submission,
    Verdict,
    Watch,
)

__all__ = [
    "CHANGED",
    "CONTRACT",
    "LEASE",
    "MAX_CLAIMS",
    "MOVES",
    "QUEUE",
    "RETENTION",
    "TERMINAL",
    "WORKER_LOST",
    "Admission",
    "Claim",
    "Command",
    "Deletion",
    "Health",
    "Hold",
    "IllegalMoveError",
    "JobRecord",
    "Operation",
    "Status",
    "Submission",
    "Verdict",
    "Watch",
    "aconnect",
    "arun",
    "beat",
    "cancel",
    "claim",
    "connect",
    "delete",
    "finish",
    "health",
    "held",
    "job",
    "jobs",
    "last_attempt",
    "overdue",
    "ping",
    "redeliver",
    "release",
    "result",
    "run",
    "server_info",
    "snapshots",
    "steps",
    "submit",
    "watch",
]
