"""Job specs as callers write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import ValidationError

from worker.contract.faults import Fault, crowded, schema_faults
from worker.contract.spec import JobSpec
from worker.contract.spec_faults import faults


def table(rows: int = 12, columns: int = 3, seed: int = 0) -> dict[str, Any]:
    """Inline data: a linear signal in all columns but the last, and noise."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, columns))
    slopes = np.append(np.arange(1.0, columns), 0.0)
    return {"x": X.tolist(), "y": (X @ slopes + rng.normal(size=rows)).tolist()}


def document(**changes: Any) -> dict[str, Any]:
    """A small valid spec; `data__features=[...]` sets the field `features` of `data`."""
    spec: dict[str, Any] = {"data": table(), "training": {"kind": "ridge"}}
    for name, value in changes.items():
        *path, last = name.split("__")
        here = spec
        for part in path:
            here = here.setdefault(part, {})
        here[last] = value
    return spec


def own_criteria(**changes: Any) -> dict[str, Any]:
    """Criteria of the caller's own: two matrices of two hyperparameters, one dense and one by its entries."""
    data = {
        "matrices": [
            [[2.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]],
            {"rows": [0, 1, 2, 1], "columns": [1, 0, 2, 1], "values": [-0.5, -0.5, 1.0, 1.0]},
            None,
        ],
        "vectors": [[1.0, -1.0, 0.5], None, [0.0, 1.0, 0.0]],
        "selection": {"matrix": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "vector": [-0.3, -0.2, -0.1], "constant": 0.07},
    }
    spec = document(**{"training": {"kind": "quadratic"}, "selection": {"kind": "quadratic"}, **changes})
    return {**spec, "data": {**data, **{name: spec["data"][name] for name in spec["data"] if name not in {"x", "y"}}}}


def parsed(document: Mapping[str, Any]) -> JobSpec:
    """A spec that has no faults."""
    spec = JobSpec.model_validate_json(json.dumps(document))
    assert faults(spec) == []
    return spec


def faults_of(body: bytes) -> list[Fault]:
    """Everything that is wrong with a body, as the service looks for it."""
    if fault := crowded(body):
        return [fault]
    try:
        spec = JobSpec.model_validate_json(body)
    except ValidationError as error:
        return schema_faults(error, body, JobSpec)
    return faults(spec)
