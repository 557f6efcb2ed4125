"""What this version stores, with what it reads in it: `python -m tests.stored tests/stored/before_N`.

To be run at the last commit before algorithm N. What an older version has stored stays as it is, for those after it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from scipy.sparse import sparray

from tests.contract.specs import document, own_criteria, table
from tests.datasets.files import samples
from worker import checkpoint
from worker.contract.columns import Selected, select
from worker.contract.data import DatasetData
from worker.contract.description import describe, fingerprint, hyperparameter_names, row_layout, work
from worker.contract.inline import encode_data
from worker.contract.prediction import PredictionRequest, Rows, fitted_model, predict, rows_of
from worker.contract.result import QuadraticModel
from worker.contract.spec import JobSpec
from worker.core.rows.tables import take
from worker.core.search.procedure import carry_out
from worker.datasets import LocalStorage, Table, add_file, open_table
from worker.load import load
from worker.report import progress, result, step_record
from worker.store import Claim, Status

HOUSES = b"""price,area,town,age,day,rooms
151,52,Bonn,40,2020-01-05,2
170,61,Kiel,,2020-02-03,3
221,70,Ulm,12,2020-03-09,3
236,88,Bonn,30,2020-03-20,4
118,45,Ulm,55,2020-04-11,1
290,96,Kiel,8,2020-05-02,4
331,120,Bonn,21,2020-06-17,5
195,77,Ulm,44,2020-07-28,3
189,64,Kiel,19,2020-08-01,2
298,110,Bonn,,2020-09-13,5
"""
PROBLEM = {
    "X", "y", "features", "time", "weights", "source", "source_names", "groups", "fold", "offset", "classes", "criteria"
}  # fmt: skip
PER_FEATURE = {"kind": "per_feature"}
MADE = table(16, 3)
TABLE = {
    "x": [[round(value, 2) for value in row] for row in MADE["x"]], "y": [round(value, 2) for value in MADE["y"]],
    "features": ["a", "b", "c"],
}  # fmt: skip
TWO = {"kind": "k_fold", "folds": 2}
SIGNS = ["yes" if value > 0 else "no" for value in TABLE["y"]]
CLASSES = ["abc"[int(value > -1) + int(value > 1)] for value in TABLE["y"]]
COUNTS = [max(0, round(2 + value)) for value in TABLE["y"]]
ROLES = {
    "offset": [0.1 * (i % 3) for i in range(16)], "weights": [1.0 + i % 2 for i in range(16)],
    "time": [float(i) for i in range(16)], "groups": [i // 3 for i in range(16)], "fold": [i % 3 for i in range(16)],
    "source": ["near" if i % 2 else "far" for i in range(16)],
}  # fmt: skip
JOBS: dict[str, dict[str, Any]] = {
    "ridge_newton_nested": document(
        data=TABLE, training__penalty=PER_FEATURE, outer={"kind": "newton", "starts": 2, "max_iterations": 6},
        test_fraction=0.2, nested={"folds": 2},
    ),
    "additive_newton": document(
        data=TABLE, outer={"kind": "newton", "max_iterations": 6},
        training__splines=[{"feature": "a", "basis": 6}, {"feature": "b", "basis": 5}],
    ),
    "poisson_roles_newton": document(
        data={**TABLE, "y": COUNTS, **ROLES}, training={"kind": "poisson", "penalty": PER_FEATURE},
        selection={"kind": "given_folds"}, outer={"kind": "newton", "max_iterations": 4},
    ),
    "logistic_inexact": document(
        data={**TABLE, "y": SIGNS}, training={"kind": "logistic", "solver": "newton_cg"},
        selection=TWO, outer={"kind": "inexact", "max_iterations": 4},
    ),
    "logistic_hoag": document(
        data={**TABLE, "y": SIGNS}, training={"kind": "logistic"}, selection=TWO,
        outer={"kind": "hoag", "max_iterations": 4},
    ),
    "multinomial_newton": document(
        data={**TABLE, "y": CLASSES}, training={"kind": "multinomial", "penalty": {"kind": "per_class"}},
        selection=TWO, outer={"kind": "newton", "max_iterations": 4},
    ),
    "kernel_ridge_lbfgs": document(
        data=TABLE, training={"kind": "kernel_ridge", "kernel": {"kind": "rbf", "widths": PER_FEATURE}},
        selection=TWO,
        outer={"kind": "lbfgs", "max_iterations": 4},
    ),
    "kernel_svm_lbfgs": document(
        data={**TABLE, "y": SIGNS}, training={"kind": "kernel_svm"},
        selection={**TWO, "loss": "platt_log_loss"}, outer={"kind": "lbfgs", "max_iterations": 3},
    ),
    "quadratic_newton": own_criteria(outer={"kind": "newton", "max_iterations": 6}),
    "dataset_newton": {
        "data": {
            "dataset_id": "", "target": "price", "features": ["area", "town", "age"], "time": "day",
            "missing": {"columns": {"age": {"fill": "median", "indicator": True}}},
        },
        "training": {"kind": "ridge", "penalty": {"kind": "per_group"}},
        "selection": {"kind": "walk_forward", "initial": 5}, "outer": {"kind": "newton", "max_iterations": 4},
    },
}  # fmt: skip


def main(directory: Path) -> None:
    """Write everything."""
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["GRADTUNE_DATA_DIR"] = scratch
        file, storage, cells = Path(scratch) / "file", LocalStorage(Path(scratch) / "datasets"), {}
        for name, (kind, content) in {**samples(), "houses": ("csv", HOUSES)}.items():
            file.write_bytes(content)
            dataset_id = add_file(storage, file, kind).id
            shutil.copytree(storage.root / dataset_id, directory / "datasets" / dataset_id)
            cells[name] = {"id": dataset_id, **cells_of(open_table(storage, dataset_id))}
        write(directory / "datasets" / "cells.json", cells)
        for name, request in JOBS.items():
            if "dataset_id" in request["data"]:
                request["data"]["dataset_id"] = cells["houses"]["id"]
            write_job(directory / "jobs" / name, request, storage)


def write(path: Path, document: Any) -> None:
    """JSON, in the fewest bytes, unless they are written already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(document if isinstance(document, bytes) else orjson.dumps(document))


def write_job(directory: Path, request: dict[str, Any], storage: LocalStorage) -> None:
    """A job: what is stored at its submission, in the middle of the search and at its end, and what is read in that."""
    spec = JobSpec.model_validate_json(json.dumps(request))
    selected = None
    if isinstance(spec.data, DatasetData):
        selected = select(spec.data, open_table(storage, spec.data.dataset_id).dataset, spec.training)
        assert isinstance(selected, Selected)
    data = b"" if selected else encode_data(spec.problem())
    described = describe(spec, data, selected)
    write(directory / "description.json", described)
    (directory / "data").write_bytes(data)
    task = load(orjson.dumps(described), data)
    *before, last = [step for step in carry_out(task.prepared) if step.state is not None or step.ended is not None]
    told = before[: max(3, len(before) // 2)]
    middle = next((step for step in before if step.folds), told[-1])  # where there are outer folds, after one of them
    assert middle.state is not None
    (directory / "checkpoint").write_bytes(checkpoint.pack(middle.state))
    box = task.prepared.objective.hyperparameters
    write(directory / "steps.json", [step_record(box, step, i) for i, step in enumerate(told, start=1)])
    write(directory / "progress.json", progress(middle, 1.5))
    claim = Claim(f"job_{0:024x}", 1, False, b"", b"", None, 0, 0.0, 0.0, fingerprint(described), 1.0, 2.0, "", "")
    document = result(claim, task.prepared, last, Status.SUCCEEDED, last.ended, 2.5, task.made)
    (directory / "result.json").write_bytes(document)
    problem = task.prepared.problem
    read = {
        "fingerprint": claim.fingerprint,
        "hyperparameters": box.natural(middle.best.best.rho).tolist(),
        "state": exact(middle.state),
        "predicted": None if problem.criteria else plain(take(problem.X, np.arange(5))),
        **read_of(orjson.dumps(described), data),
    }
    if read["predicted"]:
        read["predictions"] = predicted(orjson.dumps(described), document, read["predicted"])
    write(directory / "read.json", read)


def read_of(description: bytes, data: bytes) -> dict[str, Any]:
    """What a worker and the service read in a stored job. Of a dataset, the names alone."""
    found = work(description, data)
    return {
        "names": list(hyperparameter_names(description)),
        "layout": plain(row_layout(description)),
        "problem": {name: plain(value) for name, value in fields(found.problem).items() if name in PROBLEM},
        "plan": plain(found.plan),
    }


def predicted(description: bytes, document: bytes, rows: list[list[float | None]]) -> dict[str, Any]:
    """What a stored model says of rows of features."""
    model = fitted_model(document)
    assert model is not None
    assert not isinstance(model, QuadraticModel)
    found = rows_of(PredictionRequest(x=rows), row_layout(description), model.fills)
    assert isinstance(found, Rows)
    return {name: plain(value) for name, value in fields(predict(model, found)).items()}


def cells_of(table: Table) -> dict[str, Any]:
    """All numbers of a dataset."""
    return {
        "columns": [column.name for column in table.dataset.columns],
        "dense": plain(np.asarray(table.dense)),
        "sparse": None if table.sparse is None else plain(table.sparse),
    }


def fields(record: Any) -> dict[str, Any]:
    """The fields of a dataclass."""
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def plain(value: Any) -> Any:
    """As JSON gives it back: numbers in lists, NaN as null, every digit."""
    if isinstance(value, sparray):
        return plain(value.toarray())
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {name: plain(item) for name, item in fields(value).items()}
    if isinstance(value, float):
        return None if math.isnan(value) else value
    return value


def exact(value: Any) -> Any:
    """Something in JSON that is equal only where every bit is: of an array its kind, its shape and its digest."""
    if isinstance(value, np.ndarray):
        return [value.dtype.str, list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()[:32]]
    if isinstance(value, Enum):
        return value.name
    if dataclasses.is_dataclass(value):
        return {name: exact(item) for name, item in fields(value).items()}
    if isinstance(value, Mapping):
        return {name: exact(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [exact(item) for item in value]
    return float(value).hex() if isinstance(value, float) else value


if __name__ == "__main__":
    main(Path(sys.argv[1]))
