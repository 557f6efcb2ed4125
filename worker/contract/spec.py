"""The job spec: what a caller asks for."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

import numpy as np
import orjson
from pydantic import ConfigDict, Field, StringConstraints, model_validator

from worker.contract.columns import Selected
from worker.contract.combinations import combination_faults, target_faults
from worker.contract.criteria import criteria_faults, criteria_problem, describe_criteria
from worker.contract.data import Data, DatasetData, InlineData, MatricesData, StoredDatasetData
from worker.contract.faults import Fault, sentence
from worker.contract.feature_columns import FeatureColumns
from worker.contract.feature_list import read_features, write_features
from worker.contract.grouping import grouped
from worker.contract.inline import decode_data, describe_inline, encode_data, inline_faults, inline_problem
from worker.contract.prediction import RowLayout
from worker.contract.search_size import form_faults, size_faults, spline_faults
from worker.contract.wire import Wire
from worker.core.durations import MICROSECONDS_PER_DAY, microseconds
from worker.core.family import ByKind
from worker.core.hypergradient import Hypergradient, HypergradientAuto
from worker.core.outer import Outer, OuterAuto
from worker.core.penalties.splines import SplineError, others, too_few
from worker.core.records import Array
from worker.core.rows.problem import Problem
from worker.core.search.nested import Nested
from worker.core.search.plan import Plan, check_nested, check_splits, check_weights, of_present_rows, split_rows
from worker.core.selection import (
    GivenFolds,
    GroupKFold,
    KFold,
    QuadraticSelection,
    Selection,
    StratifiedGroupKFold,
    WalkForward,
)
from worker.core.training import Quadratic, TableTraining, Training
from worker.core.training.kernel_machines import KernelTraining
from worker.core.training.quadratic import numbered

ALGORITHM = "3"
"""Version of the numbers. Raise it, and `worker.store.CONTRACT`, whenever the same spec and data may give others.

`tests/golden` holds numbers of this version.
"""
OUTLINED = 100_000  # rows that stand for any larger number of them where splits are counted
COUNTED = (KFold, GivenFolds, GroupKFold, StratifiedGroupKFold)
OUTLINED_GROUPS = 10_000  # groups that stand for any larger number of them: they are assigned to folds one by one
# worker.store.CONTRACT: raised whenever a worker of the version before could not run what is described here

LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$")]
LabelValue = Annotated[str, StringConstraints(max_length=200)]
__all__ = ["ALGORITHM", "JobSpec", "Work", "decode_data", "describe", "encode_data", "faults", "fingerprint", "work"]


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

    data: Data = Field(description="The table itself, columns of an uploaded dataset, or matrices.")
    training: Annotated[Training, ByKind()] = Field(description="What is minimized over the model's parameters.")
    selection: Annotated[Selection, ByKind()] = Field(
        default=KFold(),
        description="What is minimized over the hyperparameters. Default where training is quadratic: quadratic.",
    )
    hypergradient: Annotated[Hypergradient, ByKind()] = Field(
        default=HypergradientAuto(), description="How the derivative of the selection criterion is computed."
    )
    outer: Annotated[Outer, ByKind()] = Field(default=OuterAuto(), description="How the hyperparameters are descended.")
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Share of the rows that nothing is tuned or trained on; scored once, at the end."
    )
    nested: Nested | None = Field(
        default=None, description="Outer cross-validation of the whole tuning, to see how much it flatters itself."
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

    @model_validator(mode="after")
    def _completed(self) -> Self:
        """The spec with what its training criterion suggests where nothing is said: selection, loss, multipliers."""
        if isinstance(self.training, Quadratic):
            if "selection" not in self.model_fields_set:
                self.__dict__["selection"] = QuadraticSelection()
            if self.training.multipliers is None and isinstance(self.data, MatricesData):
                k = max(len(self.data.matrices), len(self.data.vectors)) - 1
                self.__dict__["training"] = replace(self.training, multipliers=numbered(k))
        elif not isinstance(self.selection, QuadraticSelection) and getattr(self.selection, "loss", ...) is None:
            named: Any = {"loss": self.training.score(None)}
            self.__dict__["selection"] = replace(self.selection, **named)
        return self

    def problem(self) -> Problem:
        """The data of the request as arrays. Call `faults` first."""
        return self._problem

    @functools.cached_property
    def _problem(self) -> Problem:
        if isinstance(self.data, MatricesData):
            return criteria_problem(self.data)
        return inline_problem(self.inline(), self.training)

    def inline(self) -> InlineData:
        """The inline table. Raises TypeError for other data."""
        if not isinstance(self.data, InlineData):
            raise TypeError("the table is not in the spec")
        return self.data

    def plan(self, columns: FeatureColumns | None = None) -> Plan:
        """The core's view of the request. `columns`: the features that each column of a dataset becomes."""
        return Plan(
            self.training
            if columns is None or isinstance(self.training, Quadratic)
            else grouped(self.training, columns),
            self.selection,
            self.hypergradient,
            self.outer,
            self.seed,
            self.test_fraction,
            self.limits.evaluations,
            self.limits.target_value,
            self.nested,
        )


def faults(spec: JobSpec, selected: Selected | None = None) -> list[Fault]:
    """What a schema cannot say: the shape of the data, and whether data and plan fit together.

    `selected` is what the spec uses of its dataset, if it has one. Whether its values fit is seen by the worker.
    """
    if found := list(_kind_faults(spec)):
        return found
    if isinstance(spec.data, MatricesData):
        return list(criteria_faults(spec.data)) or list(_multiplier_faults(spec))
    if selected is None:
        return list(inline_faults(spec.inline(), spec.training)) or list(_plan_faults(spec, spec.problem()))
    return list(_plan_faults(spec, outline(spec, selected), selected))


def _kind_faults(spec: JobSpec) -> Iterator[Fault]:
    """Criteria that do not go with each other or with the data: `quadratic` needs matrices, all others a table."""
    told = "The training criterion quadratic, the selection criterion quadratic and matrices as data go together; "
    if isinstance(spec.training, Quadratic):
        if not isinstance(spec.data, MatricesData):
            yield Fault("/data", "does_not_fit", told + "give `matrices`, `vectors` and `selection` here, not a table.")
        if not isinstance(spec.selection, QuadraticSelection):
            yield Fault("/selection/kind", "does_not_fit", told + "there are no rows to choose from; leave this out.")
        if spec.test_fraction:
            yield Fault("/test_fraction", "does_not_fit", "Matrices have no rows to hold out; leave this out.")
        if spec.nested is not None:
            yield Fault("/nested", "does_not_fit", "Matrices have no rows to leave out in turn; leave this out.")
    elif isinstance(spec.data, MatricesData):
        yield Fault("/training/kind", "does_not_fit", told + "set this to quadratic, or send a table.")
    elif isinstance(spec.selection, QuadraticSelection):
        yield Fault("/selection/kind", "does_not_fit", told + "choose a criterion that scores rows.")


def _multiplier_faults(spec: JobSpec) -> Iterator[Fault]:
    try:
        spec.training.hyperparameters(spec.problem())
    except ValueError as error:
        yield Fault("/training/multipliers", "does_not_fit", sentence(str(error)))


def _plan_faults(spec: JobSpec, problem: Problem, selected: Selected | None = None) -> Iterator[Fault]:
    found = list(spline_faults(spec.training))
    if not found and selected is not None and not isinstance(spec.training, Quadratic):
        found = list(size_faults(spec.training, selected.groups, len(selected.classes.names)))
    if found:
        yield from found
        return
    plan = spec.plan(selected.groups if selected else None)
    assert not isinstance(plan.training, Quadratic)
    found = list(combination_faults(plan.training, plan.selection, plan.hypergradient, plan.outer, problem))
    if found := found or ([] if selected else list(target_faults(plan.training, problem))):
        yield from found
        return
    try:
        problem, plan = of_present_rows(problem, plan)
    except ValueError as error:
        yield Fault("/selection", "does_not_fit", sentence(str(error)))
        return
    assert not isinstance(plan.training, Quadratic)
    n = len(problem.y)
    known = n if selected is None else 0 if selected.where else selected.rows
    if found := [
        *_training_faults(plan.training, problem, known),
        *_distinct_faults(plan.training, selected.distinct if selected else {}),
    ]:
        yield from found
        if any(fault.pointer.startswith("/training/splines") for fault in found):
            return
    try:
        rows, _ = split_rows(n, plan, problem.time)
    except ValueError as error:
        yield Fault("/test_fraction", "does_not_fit", sentence(str(error)))
        return
    if selected is None:  # of a dataset, the worker sees the values
        try:
            plan.training.expanded(problem, rows)
        except ValueError as error:
            place = f"/{error.number}" if isinstance(error, SplineError) else ""
            yield Fault(f"/training/splines{place}", "does_not_fit", sentence(str(error)))
            return
    if selected and isinstance(spec.selection, WalkForward) and spec.selection.durations:
        yield from _span_faults(spec.selection, selected)  # the splits are known when the dates are read
    elif not (selected and selected.where and _lists_rows(spec.selection)):  # else when rows are counted
        yield from _split_faults(plan, problem, rows, values=selected is None)


def _span_faults(selection: WalkForward, selected: Selected) -> Iterator[Fault]:
    """Durations that are longer than the time from the first to the last row, so that nothing could be scored."""
    assert selected.dates is not None  # `combination_faults` has looked
    span = (selected.dates[1] - selected.dates[0]) * MICROSECONDS_PER_DAY
    lengths = [microseconds(given) for given in (selection.initial, selection.gap) if isinstance(given, str)]
    if sum(lengths) > span + 1:
        told = f"the dates span {span / MICROSECONDS_PER_DAY:.6g} days, and initial and gap leave none of them to score"
        yield Fault("/selection", "does_not_fit", sentence(told))


def _split_faults(plan: Plan, problem: Problem, rows: Array, *, values: bool) -> Iterator[Fault]:
    """Splits that cannot be made, or where the `values` are known cannot be trained on."""
    n = len(problem.y)
    try:
        partition = plan.selection.partition(rows, n, problem)
        if values:
            check_splits(plan, problem, partition)
    except ValueError as error:
        yield Fault("/selection", "does_not_fit", sentence(str(error)))
        return
    try:
        check_weights(plan, problem, partition)
    except ValueError as error:
        of_scoring = problem.scoring is not None and "score" in str(error)
        yield Fault("/data/scoring" if of_scoring else "/data/weights", "does_not_fit", sentence(str(error)))
        return
    try:
        check_nested(plan, problem, rows, values=values)
    except ValueError as error:
        yield Fault("/nested", "does_not_fit", sentence(str(error)))


def _training_faults(training: TableTraining, problem: Problem, rows: int) -> Iterator[Fault]:
    """What does not fit the features, or is too large for so many `rows`, zero where that is not known yet."""
    try:
        others(training.splines, problem.features)
    except ValueError as error:
        yield Fault("/training/splines", "does_not_fit", sentence(str(error)))
        return
    if isinstance(training, KernelTraining):
        yield from _kernel_faults(training, problem, rows)
        return
    if found := list(form_faults(training, len(problem.features))):
        yield from found
        return
    try:
        training.penalties(problem)
    except ValueError as error:
        yield Fault("/training/penalty", "does_not_fit", sentence(str(error)))
    try:
        if training.weights is not None:
            training.weights.hyperparameters(problem)
    except ValueError as error:
        yield Fault("/training/weights", "does_not_fit", sentence(str(error)))


def _distinct_faults(training: TableTraining, distinct: Mapping[str, int]) -> Iterator[Fault]:
    """Splines of features of which the record of a dataset tells that they have too few distinct values."""
    for number, spline in enumerate(training.splines):
        told = too_few(spline, distinct[spline.feature]) if spline.feature in distinct else None
        if told is not None:
            yield Fault(f"/training/splines/{number}", "does_not_fit", sentence(told))


def _kernel_faults(training: KernelTraining, problem: Problem, rows: int) -> Iterator[Fault]:
    try:
        training.kernel.over(problem.features)
    except ValueError as error:
        yield Fault("/training/kernel", "does_not_fit", sentence(str(error)))
    try:
        training.check_size(rows, len(problem.features))
    except ValueError as error:
        yield Fault("/training/landmarks", "too_large", sentence(str(error)))


def _lists_rows(selection: Selection) -> bool:
    return any(getattr(selection, name, None) is not None for name in ("fold_of_row", "group_of_row"))


def outline(spec: JobSpec, selected: Selected | None) -> Problem:
    """The problem without its values: as many rows as matter for the splits, stand-ins for groups and folds."""
    if selected is None:
        return spec.problem()
    n = selected.rows
    classes = selected.classes.names
    counted = isinstance(spec.selection, COUNTED) and not _lists_rows(spec.selection)
    if counted or spec.selection.closed_form:
        n = min(n, OUTLINED)
    every = np.arange(n)
    # evenly spaced dates stand in only where they matter: rows of equal time are not known
    days = selected.dates if isinstance(spec.selection, WalkForward) and spec.selection.durations else None
    grouped_rows = every % OUTLINED_GROUPS if isinstance(spec.selection, StratifiedGroupKFold) else every
    return Problem(
        np.empty((n, 0)),
        every % max(len(classes), 1) + 0.0,
        selected.features,
        source=np.zeros(n, int) if "source" in selected.roles else None,
        source_names=selected.source_names,
        groups=grouped_rows if "groups" in selected.roles else None,
        fold=every % selected.folds if selected.folds else None,
        time=None if days is None else np.linspace(*days, n),
        time_in_days=days is not None,
        offset=np.zeros(n) if "offset" in selected.roles else None,
        classes=classes,
    )


def describe(spec: JobSpec, data: bytes, selected: Selected | None = None) -> dict[str, Any]:
    """The spec with every default filled in and the data replaced by what identifies it."""
    document = spec.model_dump(mode="json", exclude={"data"})
    if isinstance(spec.data, MatricesData):
        return {"data": describe_criteria(spec.problem(), data), **document}
    if selected is None:
        classes = spec.problem().classes if spec.training.classifies else ()
        return {"data": describe_inline(spec.inline(), data, classes), **document}
    written: dict[str, Any] = {
        "rows": selected.rows,
        "columns": len(selected.features),
        "expansion": write_features(selected.groups),
    }
    if selected.source_names:
        written["sources"] = list(selected.source_names)
    if selected.classes.names:
        written["classes"] = list(selected.classes.names)
    return {"data": {**spec.data.model_dump(mode="json"), **written}, **document}


def fingerprint(description: dict[str, Any], algorithm: str = ALGORITHM) -> str:
    """Equal fingerprints give equal numbers: everything that they depend on, and nothing else, is hashed."""
    relevant = {name: value for name, value in description.items() if name not in {"labels", "webhook", "limits"}}
    if relevant["data"].get("offset", ...) is None:  # as before there were offsets
        relevant["data"] = {name: value for name, value in relevant["data"].items() if name != "offset"}
    relevant["limits"] = {name: description["limits"][name] for name in ("evaluations", "target_value")}
    relevant["algorithm"] = algorithm
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


@dataclass(frozen=True, slots=True)
class _Names:
    problem: Problem  # without rows
    columns: FeatureColumns | None


def _names(data: Mapping[str, Any]) -> _Names:
    """What a stored description says of its features and sources."""
    columns = read_features(data["expansion"]) if "dataset_id" in data else None
    features = tuple(data.get("features", ())) if columns is None else columns.features
    sources, classes = tuple(data.get("sources", ())), tuple(data.get("classes", ()))
    X = np.empty((0, len(features)))  # noqa: N806
    return _Names(Problem(X, np.empty(0), features, source_names=sources, classes=classes), columns)


def work(description: bytes, data: bytes) -> Work:
    """Rebuild problem and plan from what was stored at submission; of a dataset, or without data, the names alone."""
    spec = _StoredSpec.model_validate_json(description)
    names = _names(spec.data)
    problem = decode_data(data, spec.data) if names.columns is None and data else names.problem
    return Work(problem, spec.plan(names.columns))


def dataset_of(description: bytes) -> DatasetData | None:
    """The dataset that a stored description uses, if it does."""
    data = _StoredSpec.model_validate_json(description).data
    return StoredDatasetData.model_validate(data) if "dataset_id" in data else None


def hyperparameter_names(description: bytes) -> tuple[str, ...]:
    """Names of the hyperparameters of a stored description, in the order of their values."""
    spec = _StoredSpec.model_validate_json(description)
    names = _names(spec.data)
    return spec.plan(names.columns).hyperparameters(names.problem).names


def row_layout(description: bytes) -> RowLayout:
    """What a row of the table of a stored description is."""
    data = _StoredSpec.model_validate_json(description).data
    has_offset = bool(data.get("offset")) or "offset" in data.get("roles", ())
    return RowLayout(_names(data).problem.features, has_offset)
