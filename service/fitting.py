"""Whether a spec is valid, fits its data and may cost what it will: pure functions, for the loop or for a thread."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import orjson
from pydantic import ValidationError

from service.caps import is_large, is_short, refuse_costly
from service.estimate import estimate, validation_view
from service.problems import InvalidRequest, TooLarge
from service.requests import LIGHT, MAX_VALUES
from service.settings import Settings
from service.threads import go_on
from service.views import shown_spec
from worker.contract.columns import Selected, select, too_many_patterns
from worker.contract.criteria import numbers
from worker.contract.data import DatasetData, InlineData, MatricesData
from worker.contract.dataset import Dataset
from worker.contract.description import describe, encoded_names, fingerprint
from worker.contract.faults import MOST, Fault, crowded, schema_faults
from worker.contract.inline import encode_data, lost_integers
from worker.contract.notes import limit_notes
from worker.contract.spec import JobSpec
from worker.contract.spec_faults import faults
from worker.core.training import Quadratic
from worker.datasets.refusal import SPARSE_SETTING

MOST_ITEMS = 600_000  # of all lists of a spec: the numbers of a table, and seven roles and folds for 50,000 rows
MOST_LIGHT_MATRICES = 8
MOST_LIGHT_SPLINES = 8
MOST_LIGHT_SCORES = 10_000  # rows times splits


@dataclass(frozen=True, slots=True)
class Checked:
    """A spec that fits its data: what it uses of a dataset, or the encoded table; and how it is described.

    `stored` is the description as JSON for the workers, `shown` what users see instead of it; empty: the same. `names`
    are the names of the hyperparameters, encoded; empty: too many to be stored. `notes` are about limits that are below
    the estimate, as JSON; empty: none.
    """

    spec: JobSpec
    selected: Selected | None
    data: bytes
    description: dict[str, Any]
    stored: bytes
    shown: bytes
    names: bytes
    fingerprint: str
    notes: bytes


def parsed(body: bytes) -> JobSpec:
    """The spec of a body that is as the schema says; whether it fits its data is another question.

    Commas are counted first: a body of the size limit may hold millions of numbers, of which each takes many bytes.
    """
    if (items := body.count(b",")) > MOST_ITEMS:
        raise TooLarge(f"A spec may list {MOST_ITEMS} items, and this one has about {items}; upload a dataset.")
    if fault := crowded(body):
        raise InvalidRequest("The job spec is not valid.", errors=[fault])
    try:
        return JobSpec.model_validate_json(body)
    except ValidationError as error:
        raise InvalidRequest("The job spec is not valid.", errors=schema_faults(error, body, JobSpec)) from None


def is_light(spec: JobSpec, body: bytes) -> bool:
    """Whether a spec with its own data is checked in a few milliseconds: many splits, splines or matrices take longer.

    Closed-form criteria and others without a number of folds may have a split for each row.
    """
    if len(body) > LIGHT:
        return False
    if isinstance(spec.data, MatricesData):
        return max(len(spec.data.matrices), len(spec.data.vectors)) <= MOST_LIGHT_MATRICES
    if not isinstance(spec.data, InlineData) or isinstance(spec.training, Quadratic) or spec.nested is not None:
        return False
    settings = (getattr(spec.training, field.name) for field in fields(spec.training))
    if any(isinstance(value, tuple) and len(value) > MOST_LIGHT_SPLINES for value in settings):
        return False
    rows = len(spec.data.y)
    return rows * min(rows, getattr(spec.selection, "folds", rows)) <= MOST_LIGHT_SCORES


def of_own_data(spec: JobSpec, body: bytes, settings: Settings) -> Checked:
    """A spec that fits the data that it brings. Raises a Problem."""
    go_on()
    _require_fit(spec, body)
    return _described(spec, None, settings)


def of_dataset(spec: JobSpec, manifest: bytes, settings: Settings) -> Checked:
    """A spec that fits its dataset, of which the record is all that is read. Raises a Problem."""
    assert isinstance(spec.data, DatasetData)
    record = Dataset.model_validate_json(manifest)
    most = settings.dataset_max_sparse_columns
    if record.sparse is not None and record.sparse.columns > most:
        told = f"The dataset has {record.sparse.columns} sparse columns, and {most} is the most now"
        remedy = f"upload it with fewer, or have its operators raise {SPARSE_SETTING}"
        _refuse([Fault("/data/dataset_id", "too_many_columns", f"{told}; {remedy}.")])
    go_on()
    _refuse(too_many_patterns(spec.data, record))
    selected = select(spec.data, record, spec.training)
    if not isinstance(selected, Selected):
        raise InvalidRequest("The job spec does not fit its data.", errors=selected[:MOST])
    go_on()
    _refuse(faults(spec, selected))
    return _described(spec, selected, settings)


def validated(checked: Checked) -> bytes:
    """The reply of a validation."""
    return orjson.dumps(validation_view(checked.spec, checked.selected, checked.description, checked.fingerprint))


def _require_fit(spec: JobSpec, body: bytes) -> None:
    """Raise a Problem for a spec that does not fit the data that it brings, or brings too many."""
    if isinstance(spec.data, InlineData):
        values = len(spec.data.y) + int(spec.inline().widths.sum())
        if values > MAX_VALUES:
            more = "send fewer rows, or upload the table as a dataset"
            raise TooLarge(f"Inline data may have {MAX_VALUES} numbers, and this table has {values}; {more}.")
        _refuse(list(lost_integers(spec.inline(), body)))
        go_on()
        _refuse(faults(spec))
    elif isinstance(spec.data, MatricesData):
        if (values := numbers(spec.data)) > MAX_VALUES:
            more = "send sparse matrices by their entries"
            raise TooLarge(f"Matrices and vectors may have {MAX_VALUES} numbers, and these have {values}; {more}.")
        _refuse(faults(spec))


def _refuse(found: list[Fault]) -> None:
    if found:
        raise InvalidRequest("The job spec does not fit its data.", errors=found[:MOST])


def _described(spec: JobSpec, selected: Selected | None, settings: Settings) -> Checked:
    go_on()
    data = b"" if selected else encode_data(spec.problem())
    description = describe(spec, data, selected)
    go_on()
    digest = fingerprint(description)
    notes = _limits_judged(spec, selected, settings)
    stored, names = orjson.dumps(description), encoded_names(spec, selected)
    return Checked(spec, selected, data, description, stored, shown_spec(description, stored), names, digest, notes)


def _limits_judged(spec: JobSpec, selected: Selected | None, settings: Settings) -> bytes:
    """Notes about limits below the estimate, as JSON; empty: none. Raises TooLarge for a job that may not cost that."""
    if is_short(spec, selected):
        return b""
    cost = estimate(spec, selected)
    if is_large(spec, selected):
        refuse_costly(cost, settings)
    notes = limit_notes(spec.limits.seconds, spec.limits.evaluations, cost)
    return orjson.dumps([note.model_dump() for note in notes]) if notes else b""
