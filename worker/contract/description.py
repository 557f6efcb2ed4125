"""The description of a job: its spec with every default and without its data, as it is stored and read again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import orjson
from pydantic import ConfigDict

from worker.contract.columns import Selected
from worker.contract.criteria import describe_criteria
from worker.contract.data import DatasetData, MatricesData, StoredDatasetData
from worker.contract.feature_columns import FeatureColumns
from worker.contract.feature_list import read_features, write_features
from worker.contract.inline import decode_data, describe_inline
from worker.contract.name_runs import encode_names
from worker.contract.prediction import RowLayout
from worker.contract.spec import ALGORITHM, JobSpec, Limits
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan


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
    """A hash of everything that the numbers depend on, and of nothing else: equal fingerprints give equal numbers."""
    relevant = {name: value for name, value in description.items() if name not in {"labels", "webhook", "limits"}}
    if relevant["data"].get("offset", ...) is None:  # the fingerprint of versions without offsets
        relevant["data"] = {name: value for name, value in relevant["data"].items() if name != "offset"}
    if relevant.get("spread_by") == "auto":  # the same as before there was this setting
        del relevant["spread_by"]
    relevant["limits"] = {name: description["limits"][name] for name in ("evaluations", "target_value")}
    relevant["algorithm"] = algorithm
    return hashlib.sha256(orjson.dumps(relevant, option=orjson.OPT_SORT_KEYS)).hexdigest()


def encoded_names(spec: JobSpec, selected: Selected | None = None) -> bytes:
    """The names of the hyperparameters, as they are stored with the description; empty if there are too many.

    They are those of `hyperparameter_names`, and `decode_names` reads them. Call `faults` first.
    """
    if selected is None:
        return encode_names(spec.plan().hyperparameters(spec.problem()).names)
    names_alone = _without_rows(selected.features, selected.source_names, selected.classes.names)
    return encode_names(spec.plan(selected.groups).hyperparameters(names_alone).names)


def _without_rows(features: Sequence[str], sources: tuple[str, ...], classes: tuple[str, ...]) -> Problem:
    """A problem that has names and no rows."""
    X = np.empty((0, len(features)))  # noqa: N806
    return Problem(X, np.empty(0), features, source_names=sources, classes=classes)


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker needs to run a job, from the stored description and data."""

    problem: Problem
    plan: Plan


class _StoredLimits(Limits):
    model_config = ConfigDict(extra="ignore")


class _StoredSpec(JobSpec):
    """A spec as this or an earlier version stored it: unknown settings are ignored, missing ones have defaults."""

    model_config = ConfigDict(extra="ignore")

    data: dict[str, Any]  # type: ignore[assignment]
    limits: _StoredLimits = _StoredLimits()


class StoredJob:
    """A stored description, which is parsed once. Raises ValidationError if a newer version has written it."""

    def __init__(self, description: bytes) -> None:
        self._spec = _StoredSpec.model_validate_json(description)

    @property
    def data(self) -> dict[str, Any]:
        """What the description says of the data."""
        return self._spec.data

    @cached_property
    def _columns(self) -> FeatureColumns | None:
        return read_features(self.data["expansion"]) if "dataset_id" in self.data else None

    @cached_property
    def plan(self) -> Plan:
        """The plan of the job."""
        return self._spec.plan(self._columns)

    @cached_property
    def without_rows(self) -> Problem:
        """The names of features, sources and classes, as a problem that has no rows."""
        features = tuple(self.data.get("features", ())) if self._columns is None else self._columns.features
        return _without_rows(features, tuple(self.data.get("sources", ())), tuple(self.data.get("classes", ())))

    def work(self, data: bytes) -> Work:
        """Problem and plan as they were submitted. Of a dataset, or without `data`, the problem has no rows."""
        inline = self._columns is None and data
        return Work(decode_data(data, self.data) if inline else self.without_rows, self.plan)

    @property
    def dataset(self) -> DatasetData | None:
        """The columns of a dataset that the job uses; None without a dataset."""
        return StoredDatasetData.model_validate(self.data) if "dataset_id" in self.data else None

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """Names of the hyperparameters, in the order of their values."""
        return self.plan.hyperparameters(self.without_rows).names

    @property
    def row_layout(self) -> RowLayout:
        """What a row of the table is."""
        has_offset = bool(self.data.get("offset")) or "offset" in self.data.get("roles", ())
        return RowLayout(self.without_rows.features, has_offset)


def work(description: bytes, data: bytes) -> Work:
    """Problem and plan of a stored description; see `StoredJob.work`."""
    return StoredJob(description).work(data)


def hyperparameter_names(description: bytes) -> tuple[str, ...]:
    """Names of the hyperparameters of a stored description, in the order of their values."""
    return StoredJob(description).hyperparameters


def row_layout(description: bytes) -> RowLayout:
    """What a row of the table of a stored description is."""
    return StoredJob(description).row_layout
