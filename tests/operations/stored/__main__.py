"""A half-finished job as this version stores it: `python -m tests.operations.stored > .../contract_N.json`.

To be run once for each contract, when its number and the algorithm's are final; what an older version has stored stays
as it is, for the versions after it.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.contract.specs import document, parsed, table
from worker import checkpoint, store
from worker.contract.description import describe, fingerprint, work
from worker.contract.inline import encode_data
from worker.contract.spec import ALGORITHM
from worker.core.inner.linear_model import LinearModel
from worker.core.search.descents import Descents
from worker.core.search.plan import prepare
from worker.core.search.tune import tune
from worker.core.verdict.conclude import conclude
from worker.report import step_record

SPEC = document(
    data={**table(10, 4), "features": ["a", "b", "c", "d"]},
    training__penalty={"kind": "per_group", "groups": {"first": ["a", "b"], "second": ["c", "d"]}},
    outer={"kind": "lbfgs", "starts": 2, "tolerance": 1e-9},
    test_fraction=0.1,
    limits={"evaluations": 500},
    labels={"stored": "by an earlier version"},
)
SECOND, FEW = 2, 3


def stored() -> dict[str, Any]:
    """The job after a few steps of its second descent, and what it comes to."""
    spec = parsed(SPEC)
    data = encode_data(spec.problem())
    description = describe(spec, data)
    task = work(json.dumps(description).encode(), data)
    prepared = prepare(task.problem, task.plan)
    steps = list(tune(prepared))
    told = [step for step in steps if step.state is not None]
    some = told[: [len(step.starts) for step in told].index(SECOND) + FEW]
    last = steps[-1].best
    conclusion = conclude(prepared, last, Descents(prepared).of(last, steps[-1].starts))
    assert isinstance(conclusion.model, LinearModel)
    assert some[-1].state is not None
    names = prepared.objective.hyperparameters
    return {
        "contract": store.CONTRACT,
        "algorithm": ALGORITHM,
        "description": description,
        "data": base64.b64encode(data).decode(),
        "fingerprint": fingerprint(description),
        "steps": [step_record(names, step, sequence) for sequence, step in enumerate(some, start=1)],
        "checkpoint": base64.b64encode(checkpoint.pack(some[-1].state)).decode(),
        "value": last.best.selection,
        "hyperparameters": names.natural(last.best.rho).tolist(),
        "coefficients": conclusion.model.coefficients.tolist(),
    }


if __name__ == "__main__":
    print(json.dumps(stored(), indent=1))
