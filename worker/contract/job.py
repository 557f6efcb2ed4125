"""A job as callers see it, and its trajectory."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from worker.contract.notes import Note
from worker.contract.result import Hyperparameter
from worker.contract.wire import Wire

JobStatus = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled", "expired"]


class Progress(Wire):
    """How far a job has come."""

    iteration: int = 0
    evaluations: int = 0
    value: float | None = None
    best_value: float | None = None
    gradient_norm: float | None = None
    elapsed_s: float = 0.0
    queue_position: int | None = Field(
        default=None, description="Jobs before this one; null when it does not wait, or behind 10,000 others."
    )


class StepRecord(Wire):
    """One outer iteration: where the search stood at its end."""

    sequence: int = Field(description="Counts from 1 over the whole job; from 1 again when its fingerprint changes.")
    start: int
    iteration: int = Field(description="Within its start.")
    evaluations: int = Field(description="Over the whole job.")
    value: float
    best_value: float
    gradient_norm: float
    gradient_error: float | None = Field(
        default=0.0,
        description="Bound of the error of the gradient of the selection criterion in all hyperparameters (Euclidean "
        "norm, on the scale of log(value)): zero where it is exact to rounding, null where nothing is known.",
    )
    hyperparameters: list[float] = Field(description="Natural units, in the order of the result's names.")


class JobError(Wire):
    """Why a job failed."""

    code: str
    title: str
    detail: str


class Links(Wire):
    """Where to go from here."""

    self: str
    result: str
    steps: str
    cancel: str


class JobSummary(Wire):
    """A tuning job without its spec. `status` is an open set: rely on `done`."""

    id: str
    status: JobStatus
    done: bool
    attempt: int
    stop_reason: str | None
    progress: Progress
    labels: dict[str, str]
    fingerprint: str = Field(
        description="Equal fingerprints give equal numbers. A worker with another version of the algorithm begins the "
        "job again, with the fingerprint of that version."
    )
    error: JobError | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    notes: list[Note] = Field(
        default_factory=list,
        description="Limits that are clearly below the estimated cost, with the code `limit_below_estimate`.",
    )
    links: Links


class Job(JobSummary):
    """A tuning job. `status` is an open set: rely on `done`."""

    spec: dict[str, Any] = Field(
        description="The request with every default filled in; data by their fingerprint, and so are lists of more "
        "than 10 kB, as `{items, sha256}`, unless `view=full` asks for them."
    )


class JobPage(Wire):
    """Jobs, newest first: summaries, or with `view=full` whole jobs."""

    data: list[JobSummary] | list[Job]
    next_cursor: str | None


class StepColumns(Wire):
    """Steps column by column: the fields that were asked for, each with a value for each step."""

    sequence: list[int] | None = None
    start: list[int] | None = None
    iteration: list[int] | None = None
    evaluations: list[int] | None = None
    value: list[float] | None = None
    best_value: list[float] | None = None
    gradient_norm: list[float] | None = None
    gradient_error: list[float | None] | None = None
    hyperparameters: list[list[float]] | None = None


class StepPart(Wire):
    """Those fields of a step that were asked for."""

    sequence: int | None = None
    start: int | None = None
    iteration: int | None = None
    evaluations: int | None = None
    value: float | None = None
    best_value: float | None = None
    gradient_norm: float | None = None
    gradient_error: float | None = None
    hyperparameters: list[float] | None = None


class StepPage(Wire):
    """Part of a trajectory: records, parts of records with `fields`, or columns with `layout=columns`."""

    data: list[StepRecord] | list[StepPart] | StepColumns
    next_after: int | None = Field(description="`after` of the next page; null where no more steps are stored.")
    names: list[str] | None = Field(
        description="Names of the hyperparameters in the order of each step's values, if `names=true` asks for them."
    )


class HyperparameterPage(Wire):
    """Part of the hyperparameters of a result."""

    data: list[Hyperparameter]
    total: int = Field(description="Of all pages.")
    next_cursor: str | None


class CostEstimate(Wire):
    """An estimate of the whole job, not a bound: it is usually right within a factor of three."""

    evaluations: int = Field(
        description="Of the selection criterion, over all starts and outer folds, within `limits.evaluations`."
    )
    flops: float = Field(description="Of the search, the outer folds, the refit and the certificates.")
    bytes: float = Field(description="Held at once.")
    seconds: float = Field(description="Of one core of about 2020, without the wait in the queue.")


class Boxes(Wire):
    """Where the search begins and its bounds, in natural units, in the order of `names`."""

    initial: list[float]
    lower: list[float]
    upper: list[float]


class Validation(Wire):
    """What a spec would do."""

    spec: dict[str, Any]
    hyperparameters: int
    names: list[str] = Field(description="At most the first 1000 names.")
    boxes: Boxes | None = Field(
        default=None,
        description="Of the hyperparameters with these names: what omitted `initial`, `lower` and `upper` stand for. "
        "Null where they depend on the variances of columns of a dataset, whose values are not read here.",
    )
    method: dict[str, str]
    cost: CostEstimate
    resolved: dict[str, float] = Field(
        default_factory=dict,
        description="Numbers that settings stand for, by their JSON pointers: `outer.max_iterations` null, and deltas "
        "relative to the target, in its units; of training, those of the refit, while each split has its own. Without "
        "deltas for a dataset, whose values are not read here.",
    )
    fingerprint: str
    notes: list[Note] = Field(default_factory=list, description="What should be known before it runs.")


class CatalogEntry(Wire):
    """One algorithm: its name on the wire, its settings as a JSON schema, its help."""

    kind: str
    help: str
    json_schema: dict[str, Any]


class Catalog(Wire):
    """Everything that a spec can name."""

    training: list[CatalogEntry]
    penalty: list[CatalogEntry]
    form: list[CatalogEntry]
    weights: list[CatalogEntry]
    kernel: list[CatalogEntry]
    widths: list[CatalogEntry]
    selection: list[CatalogEntry]
    loss: list[CatalogEntry]
    hypergradient: list[CatalogEntry]
    outer: list[CatalogEntry]
