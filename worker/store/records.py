"""The plain records that go into and come out of the store."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from worker.store.lifecycle import TERMINAL, Status

CONTRACT: Final = 7
"""Version of what is stored for a job, its description, data and checkpoint; of jobs stored without one, too.

Raise it whenever a worker of the version before could not run what is stored now, and with every new version of the
algorithm: an older worker would start again what a newer one has begun.
"""
FIRST_ALGORITHM: Final = "1"
"""The version of the algorithm of jobs that were stored without one."""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """The algorithm of a worker: its version, and the fingerprint that it gives a description (JSON)."""

    version: str
    fingerprint: Callable[[bytes], str]


@dataclass(frozen=True, slots=True)
class Submission:
    """A new job. `seconds` is its limit of running time over all attempts; `spec` is JSON, `data` npy bytes.

    `contract` is the version of both; workers that know only older versions leave the job alone. `dataset` is the id of
    the dataset that the job uses, if any. `algorithm` is the version of the fingerprint. `shown` is the spec as users
    see it, without its long lists; empty: they see `spec`. `names` are the encoded names of the hyperparameters;
    empty: a reader makes them of `spec`. `notes` is a JSON list of what its user should know before it runs; empty:
    nothing.
    """

    id: str
    spec: bytes
    data: bytes
    fingerprint: str
    seconds: float
    labels: dict[str, str] = field(default_factory=dict)
    request_id: str = ""
    traceparent: str = ""
    contract: int = CONTRACT
    dataset: str = ""
    algorithm: str = FIRST_ALGORITHM
    shown: bytes = b""
    notes: bytes = b""
    names: bytes = b""

    @property
    def size(self) -> int:
        """Bytes of the job that count towards the limit of all live jobs."""
        return len(self.spec) + len(self.data) + len(self.names)


class Admission(StrEnum):
    """The answer to a submission; true only when it created the job."""

    CREATED = "created"
    EXISTS = "exists"
    FULL = "full"
    CROWDED = "crowded"
    UNKNOWN_DATASET = "unknown_dataset"

    def __bool__(self) -> bool:
        return self is Admission.CREATED


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as users see it. Times are epoch seconds; `elapsed` is running time in seconds over all attempts.

    `spec` is empty in a list of summaries.
    """

    id: str
    status: Status
    spec: bytes
    labels: dict[str, str]
    fingerprint: str
    attempt: int
    version: int
    progress: bytes | None
    stop_reason: str | None
    error: bytes | None
    seconds: float
    elapsed: float
    created_at: float
    started_at: float | None
    finished_at: float | None
    cancelled_at: float | None
    request_id: str
    traceparent: str
    queue_position: int | None = None
    notes: bytes | None = None

    @property
    def done(self) -> bool:
        """Whether the status is final."""
        return self.status in TERMINAL


@dataclass(frozen=True, slots=True)
class Claim:
    """What an attempt needs to run. `elapsed`: seconds spent by earlier attempts; `steps`: the number stored so far.

    `cancelled`: do not go on; conclude with the best so far. `algorithm`: the version of checkpoint, steps and
    fingerprint. It differs from the claimer's only if the job is `cancelled`.
    """

    id: str
    attempt: int
    cancelled: bool
    spec: bytes
    data: bytes
    checkpoint: bytes | None
    steps: int
    elapsed: float
    seconds: float
    fingerprint: str
    created_at: float
    started_at: float
    request_id: str
    traceparent: str
    algorithm: str = FIRST_ALGORITHM


class Verdict(StrEnum):
    """The answer to a beat. `FENCED`: the job is no longer this attempt's; stop and write nothing more."""

    OK = "ok"
    CANCEL = "cancel"
    FENCED = "fenced"


class Hold(StrEnum):
    """Whether an owner holds a job."""

    WAITING = "waiting"
    """The owner has not claimed the job yet, and no other owner has."""
    HELD = "held"
    FENCED = "fenced"
    """Another owner has claimed the job, or it was taken back."""
    DONE = "done"
    """The job has ended, or is unknown."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A job as its supervisor sees it; times in seconds of running, over all attempts.

    `before`: time of earlier attempts. `limit`: time at which this attempt has to end, at least `before`.
    """

    hold: Hold
    attempt: int
    cancelled: bool
    before: float
    limit: float


@dataclass(slots=True)
class Pass:
    """The time of a reconciler's last pass: by the server's clock (epoch seconds), and by `time.monotonic()` here.

    If the two clocks do not advance together, the server's clock has stepped. `stepped`: size of the step before the
    last pass, in seconds; 0: no step. `set_back`: a step back has still to be dealt with.
    """

    server: float | None = None
    here: float = 0.0
    stepped: float = 0.0
    set_back: bool = False


class Deletion(StrEnum):
    """The answer to a deletion; a live job must be cancelled first."""

    DELETED = "deleted"
    LIVE = "live"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """A dataset in the store: its summary (JSON). Times are epoch seconds; `jobs` counts the live ones that use it.

    `damaged`: a sentence that says what differs from what was stored; None if no damage is known.
    """

    id: str
    summary: bytes
    used_at: float
    jobs: int
    damaged: str | None = None


class Shelving(StrEnum):
    """The answer to the addition of a dataset. `FULL`: it does not fit into the quota."""

    CREATED = "created"
    EXISTS = "exists"
    FULL = "full"


class Removal(StrEnum):
    """The answer to the removal of a dataset. `USED`: live jobs need it."""

    REMOVED = "removed"
    USED = "used"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Health:
    """Workers with a fresh heartbeat, ids waiting in the queue, and jobs that have not ended."""

    workers: int
    queued: int
    active: int
