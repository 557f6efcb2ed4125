"""One case through the doors of a real job, in this process and without a server: from its request to its record.

A record is the whole of what callers and later workers see: faults, or description, end, result, steps and checkpoint.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import orjson
from pydantic import ValidationError

from tests.corpus.parts import Case
from tests.corpus.tables import FILES
from worker import checkpoint
from worker.contract.columns import Selected, select
from worker.contract.data import DatasetData
from worker.contract.description import describe
from worker.contract.faults import Fault, schema_faults
from worker.contract.inline import encode_data
from worker.contract.spec import JobSpec
from worker.contract.spec_faults import faults
from worker.core.records import State, Step
from worker.core.search.procedure import carry_out
from worker.datasets import DatasetGoneError, LocalStorage, add_file, open_table, storage_from_environment
from worker.load import LoadError, Task, load
from worker.report import result, step_record
from worker.store import Claim, Status

Record = dict[str, Any]
OF_THE_RUN = ("job_id", "timing", "versions", "fingerprint")  # of a result: not numbers, or of this run alone


@contextmanager
def shelved() -> Iterator[None]:
    """The datasets of the corpus, which this process and its children find while this lasts."""
    with tempfile.TemporaryDirectory() as directory:
        storage = LocalStorage(Path(directory) / "datasets")
        for kind, content in FILES.values():
            file = Path(directory) / "file"
            file.write_bytes(content)
            add_file(storage, file, kind)
        with patch.dict(os.environ, {"GRADTUNE_DATA_DIR": directory, "GRADTUNE_STORAGE_URL": ""}):
            yield


def records(cases: Sequence[Case], processes: int = 1) -> Iterator[tuple[str, str]]:
    """The name and the record of each case as text, in their order."""
    with shelved():
        if processes == 1:
            yield from ((case.name, text_of(case)) for case in cases)
            return
        with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
            texts = pool.map(text_of, cases, chunksize=8)
            yield from zip((case.name for case in cases), texts, strict=True)


def text_of(case: Case) -> str:
    """The record of a case as text: floats as their shortest exact decimals, so equal texts are equal bits."""
    return json.dumps(record_of(case), indent=1) + "\n"


def record_of(case: Case) -> Record:
    """What a case comes to. An error that a worker would log is part of it, too."""
    try:
        with np.errstate(all="ignore"):  # as a worker does: overflow is an outcome
            found = checked(case)
            if not isinstance(found, list):
                return _run(*found)
    except Exception as error:  # noqa: BLE001 - whatever it is
        return {"crash": {"type": type(error).__name__, "detail": str(error)}}
    return {"faults": [{"pointer": one.pointer, "code": one.code, "detail": one.detail} for one in found]}


def end_of(record: Record) -> str:
    """What became of a case, in a word."""
    return "crashed" if "crash" in record else "refused" if "faults" in record else str(record["status"])


def checked(case: Case) -> tuple[JobSpec, Selected | None] | list[Fault]:
    """The spec of a case with what it uses of its dataset, or its faults, as the service looks for them."""
    body = json.dumps(case.request).encode()
    try:
        spec = JobSpec.model_validate_json(body)
    except ValidationError as error:
        return schema_faults(error, body, JobSpec)
    selected = _selected(spec)
    if isinstance(selected, list):
        return selected
    return faults(spec, selected) or (spec, selected)


def _selected(spec: JobSpec) -> Selected | list[Fault] | None:
    """What a spec uses of its dataset, None without one."""
    if not isinstance(spec.data, DatasetData):
        return None
    try:
        table = open_table(storage_from_environment(), spec.data.dataset_id)
    except DatasetGoneError:
        return [Fault("/data/dataset_id", "unknown_dataset", "There is no dataset with this id; upload it first.")]
    return select(spec.data, table.dataset, spec.training)


def _run(spec: JobSpec, selected: Selected | None) -> Record:
    data = encode_data(spec.problem()) if selected is None else b""
    description = describe(spec, data, selected)
    record: Record = {"description": description}
    try:
        task = load(orjson.dumps(description), data)
    except LoadError as error:
        return {**record, "status": Status.FAILED.value, "error": {"code": error.code, "detail": str(error)}}
    steps = list(carry_out(task.prepared))
    return record | _ended(task, steps[-1]) | _trajectory(task, steps)


def _ended(task: Task, last: Step) -> Record:
    """How the search ended, and its result, if any point of it was usable."""
    assert last.ended is not None
    status = Status.FAILED if last.ended.is_failure else Status.SUCCEEDED
    record: Record = {"status": status.value, "stop_reason": last.ended.code}
    if np.isfinite(last.best.best.value):
        claim = Claim("", 1, False, b"", b"", None, 0, 0.0, 0.0, "", 0.0, 0.0, "", "")
        document = json.loads(result(claim, task.prepared, last, status, last.ended, 0.0, task.made))
        record["result"] = {name: value for name, value in document.items() if name not in OF_THE_RUN}
    return record


def _trajectory(task: Task, steps: list[Step]) -> Record:
    """The steps that callers can read, and what the last checkpoint holds."""
    saved = [step for step in steps if step.state is not None]
    names = task.prepared.objective.hyperparameters
    record: Record = {"steps": [step_record(names, step, number) for number, step in enumerate(saved, start=1)]}
    if saved and saved[-1].state is not None:
        record["checkpoint"] = _digests(saved[-1].state)
    return record


def _digests(state: State) -> dict[str, str]:
    """Type, shape and SHA-256 of each array of a packed checkpoint."""
    with np.load(io.BytesIO(checkpoint.pack(state)), allow_pickle=False) as archive:
        return {name: _digest(archive[name]) for name in archive.files}


def _digest(array: Any) -> str:
    return f"{array.dtype.str}{list(array.shape)} {hashlib.sha256(array.tobytes()).hexdigest()}"
