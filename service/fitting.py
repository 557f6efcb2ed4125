"""Whether a spec fits the record of its dataset: pure functions for a thread, as records may be large."""

from __future__ import annotations

from typing import Any

from service.problems import InvalidRequest
from worker.contract.columns import Selected, select, too_many_patterns
from worker.contract.data import DatasetData
from worker.contract.dataset import Dataset
from worker.contract.faults import MOST, Fault
from worker.contract.spec import JobSpec, describe, faults, fingerprint
from worker.datasets.refusal import SPARSE_SETTING


def refuse(found: list[Fault]) -> None:
    """Raise InvalidRequest if there are faults."""
    if found:
        raise InvalidRequest("The job spec does not fit its data.", errors=found[:MOST])


def fitting(spec: JobSpec, manifest: bytes, most_sparse_columns: int) -> Selected:
    """What the spec uses of the dataset with this record. Raises InvalidRequest."""
    assert isinstance(spec.data, DatasetData)
    record = Dataset.model_validate_json(manifest)
    if record.sparse is not None and record.sparse.columns > most_sparse_columns:
        told = f"The dataset has {record.sparse.columns} sparse columns, and {most_sparse_columns} is the most now"
        remedy = f"upload it with fewer, or have its operators raise {SPARSE_SETTING}"
        refuse([Fault("/data/dataset_id", "too_many_columns", f"{told}; {remedy}.")])
    refuse(too_many_patterns(spec.data, record))
    selected = select(spec.data, record, spec.training)
    if not isinstance(selected, Selected):
        raise InvalidRequest("The job spec does not fit its data.", errors=selected[:MOST])
    refuse(faults(spec, selected))
    return selected


def described(spec: JobSpec, selected: Selected) -> tuple[dict[str, Any], str]:
    """The description of a job on a dataset, which may list many columns, and its fingerprint."""
    description = describe(spec, b"", selected)
    return description, fingerprint(description)
