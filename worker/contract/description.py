"""The description of a job: its spec with every default and without its data, as it is stored and read again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
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
