"""The result of a job whose data are not read again: no bound is claimed whose unit is not known."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from tests.contract.specs import document, parsed, table
from worker.contract.description import describe, work
from worker.contract.result import Result
from worker.core.outer import Newton
from worker.core.search.plan import prepare
from worker.core.search.tune import tune
from worker.jobs import stopped_step
from worker.report import KILLED, unfitted_result
from worker.store import Claim, Status


@pytest.mark.parametrize(("standardize", "bound"), [(False, None), (True, "lower")])
def test_values_are_told_and_bounds_only_if_they_are_known(standardize: bool, bound: str | None) -> None:
    data = table(30, 3)
    data["x"] = (np.array(data["x"]) * [1.0, 1e-5, 1e5]).tolist()
    data["y"] = np.array(data["x"]).sum(axis=1).tolist()  # without noise, all penalties go down
    penalty = {"kind": "per_feature"}
    spec = parsed(document(data=data, training={"kind": "ridge", "standardize": standardize, "penalty": penalty}))
    prepared = prepare(spec.problem(), spec.plan())
    assert isinstance(prepared.outer, Newton)
    step = [step for step in tune(prepared) if step.state is not None][-1]
    assert step.state is not None
    stored = orjson.dumps(describe(spec, b"data"))
    claim = Claim("j", 2, True, b"", b"", None, 0, 1.0, 9.0, "f", 1.0, 2.0, "", "")
    told = unfitted_result(claim, work(stored, b""), stopped_step(step.state), Status.FAILED, None, KILLED)
    found = Result.model_validate_json(told).hyperparameters
    box, best = prepared.objective.hyperparameters, step.best.best.rho
    np.testing.assert_allclose([one.value for one in found], box.natural(best), rtol=1e-12)
    assert "lower" in box.at_bound(best)
    wanted = box.at_bound(best) if standardize else (None,) * 3
    assert tuple(one.at_bound for one in found) == wanted
    assert bound is None or bound in wanted
