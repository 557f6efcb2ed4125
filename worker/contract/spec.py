"""The job spec: what a caller asks for."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import orjson
from pydantic import ConfigDict, Field, StringConstraints

from worker.contract.faults import Fault, sentence
from worker.contract.wire import Wire
from worker.core.family import ByKind
from worker.core.hypergradient import Auto as AutoHypergradient
from worker.core.hypergradient import Hypergradient
from worker.core.outer import Auto as AutoOuter
from worker.core.outer import Outer
from worker.core.records import Array, Problem
from worker.core.selection import KFold, Selection
from worker.core.training import Training
from worker.core.tune import Plan, split_rows

ALGORITHM = "1"  # raised whenever the same spec and data may give other numbers
# worker.store.CONTRACT: raised whenever a worker of the version before could not run what is described here
LARGEST = 1e150  # magnitudes beyond overflow when squared

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$")]
LabelValue = Annotated[str, StringConstraints(max_length=200)]


class InlineData(Wire):
    """A table in the request itself: `x` row by row, `y` with one target a row."""

    x: list[list[float]] = Field(description="Rows of features, all of one length; finite numbers.")
    y: list[float] = Field(description="The target of each row.")
    features: list[Name] | None = Field(
        default=None, description="Names of the columns of `x`, all different. Default: x0, x1, ..."
    )


class Limits(Wire):
    """When to stop early. A spent budget is a success with its `stop_reason`."""

    seconds: Annotated[float, Field(gt=0, le=604_800)] = Field(
        default=600.0, description="Running time over all attempts."
    )
    evaluations: Annotated[int, Field(ge=1, lt=2**53)] | None = Field(
        default=None, description="Evaluations of the selection criterion, over all starts."
    )
    target_value: float | None = Field(default=None, description="Stop once the selection criterion is this low.")


class JobSpec(Wire):
    """A tuning job. Only `data` and `training` are required."""

    data: InlineData
    training: Annotated[Training, ByKind()] = Field(description="What is minimized over the model's parameters.")
    selection: Annotated[Selection, ByKind()] = Field(
        default=KFold(), description="What is minimized over the hyperparameters."
    )
    hypergradient: Annotated[Hypergradient, ByKind()] = Field(
        default=AutoHypergradient(), description="How the derivative of the selection criterion is computed."
    )
    outer: Annotated[Outer, ByKind()] = Field(default=AutoOuter(), description="How the hyperparameters are descended.")
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Share of the rows that nothing is tuned or trained on; scored once, at the end."
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        default=0, description="Of the test rows and of further starts."
    )
    limits: Limits = Limits()
    warm_start: None = Field(default=None, description="Reserved: null.")
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] = Field(
        default_factory=dict, description="Yours to choose; jobs can be listed by them."
    )
    webhook: None = Field(default=None, description="Reserved: null.")

    def problem(self) -> Problem:
        """The table as arrays. Call `faults` first."""
        table = np.array(self.data.x, dtype=np.float64)
        return Problem(table, np.array(self.data.y, dtype=np.float64), self.features())

    def features(self) -> tuple[str, ...]:
        """Names of the columns."""
        if self.data.features is not None:
            return tuple(self.data.features)
        return tuple(f"x{j}" for j in range(len(self.data.x[0])))

    def plan(self) -> Plan:
        """The core's view of the request."""
        return Plan(
            self.training,
            self.selection,
            self.hypergradient,
            self.outer,
            self.seed,
            self.test_fraction,
            self.limits.evaluations,
            self.limits.target_value,
        )


def faults(spec: JobSpec) -> list[Fault]:
    """What a schema cannot say: the shape of the data, and whether data and plan fit together."""
    return list(_data_faults(spec.data)) or list(_plan_faults(spec))


def _data_faults(data: InlineData) -> Iterator[Fault]:
    if not data.x:
        yield Fault("/data/x", "empty", "There are no rows.")
        return
    width = len(data.x[0])
    if width == 0:
        yield Fault("/data/x/0", "empty", "There are no columns.")
        return
    for i, row in enumerate(data.x):
        if len(row) != width:
            yield Fault(f"/data/x/{i}", "ragged", f"This row has {len(row)} values, and the first row has {width}.")
            return
    if len(data.y) != len(data.x):
        yield Fault("/data/y", "length", f"There are {len(data.y)} targets for {len(data.x)} rows.")
    if len(data.x) < 2:
        yield Fault("/data/x", "too_few", "At least 2 rows are needed, one to train on and one to score.")
    yield from _magnitude_faults(data)
    names = data.features
    if names is not None and len(names) != width:
        yield Fault("/data/features", "length", f"There are {len(names)} names for {width} columns.")
    seen: dict[str, int] = {}
    for j, name in enumerate(names or ()):
        if seen.setdefault(name, j) != j:
            yield Fault(f"/data/features/{j}", "duplicate", f"Column {seen[name]} has the name {name!r} already.")
            return


def _magnitude_faults(data: InlineData) -> Iterator[Fault]:
    for pointer, values in (("/data/x", data.x), ("/data/y", data.y)):
        large = np.argwhere(np.abs(np.array(values, dtype=np.float64)) > LARGEST)
        if len(large):
            place = "/".join(str(index) for index in large[0])
            yield Fault(
                f"{pointer}/{place}", "too_large", f"Magnitudes above {LARGEST:g} overflow; rescale the column."
            )


def _plan_faults(spec: JobSpec) -> Iterator[Fault]:
    problem, plan = spec.problem(), spec.plan()
    n = len(problem.y)
    try:
        spec.training.penalty.matrices(problem.features)
    except ValueError as error:
        yield Fault("/training/penalty", "does_not_fit", sentence(str(error)))
    try:
        if spec.training.weights is not None:
            spec.training.weights.hyperparameters(problem)
    except ValueError as error:
        yield Fault("/training/weights", "does_not_fit", sentence(str(error)))
    try:
        rows, _ = split_rows(n, plan)
    except ValueError as error:
        yield Fault("/test_fraction", "does_not_fit", sentence(str(error)))
        return
    try:
        spec.selection.partition(rows, n)
    except ValueError as error:
        yield Fault("/selection", "does_not_fit", sentence(str(error)))


def encode_data(problem: Problem) -> bytes:
    """The table as npy bytes: one float64 matrix `[X, y]`."""
    buffer = io.BytesIO()
    np.save(buffer, np.column_stack([np.asarray(problem.X), problem.y]), allow_pickle=False)
    return buffer.getvalue()


def decode_data(data: bytes) -> tuple[Array, Array]:
    """The features and the target of what `encode_data` made."""
    table = np.load(io.BytesIO(data), allow_pickle=False)
    return np.ascontiguousarray(table[:, :-1]), np.ascontiguousarray(table[:, -1])


def describe(spec: JobSpec, data: bytes) -> dict[str, Any]:
    """The spec with every default filled in and the data replaced by what identifies it."""
    document = spec.model_dump(mode="json", exclude={"data"})
    rows, columns = len(spec.data.x), len(spec.data.x[0])
    digest = hashlib.sha256(data).hexdigest()
    return {
        "data": {"rows": rows, "columns": columns, "features": list(spec.features()), "sha256": digest},
        **document,
    }


def fingerprint(description: dict[str, Any]) -> str:
    """Equal fingerprints give equal numbers: everything that they depend on, and nothing else, is hashed."""
    relevant = {name: value for name, value in description.items() if name not in {"labels", "webhook", "limits"}}
    relevant["limits"] = {name: description["limits"][name] for name in ("evaluations", "target_value")}
    relevant["algorithm"] = ALGORITHM
    return hashlib.sha256(orjson.dumps(relevant, option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker needs to run a job, from the stored description and data."""

    problem: Problem
    plan: Plan


class _StoredLimits(Limits):
    model_config = ConfigDict(extra="ignore")


class _StoredSpec(JobSpec):
    """A spec as any version before this one stored it: settings that are gone are ignored, new ones have defaults."""

    model_config = ConfigDict(extra="ignore")

    data: dict[str, Any]  # type: ignore[assignment]
    limits: _StoredLimits = _StoredLimits()


def work(description: bytes, data: bytes) -> Work:
    """Rebuild problem and plan from what was stored at submission."""
    spec = _StoredSpec.model_validate_json(description)
    return Work(Problem(*decode_data(data), tuple(spec.data["features"])), spec.plan())


def hyperparameter_names(description: bytes) -> tuple[str, ...]:
    """Names of the hyperparameters of a stored description, in the order of their values."""
    spec = _StoredSpec.model_validate_json(description)
    columns = Problem(np.empty((0, 0)), np.empty(0), tuple(spec.data["features"]))
    return spec.plan().hyperparameters(columns).names
