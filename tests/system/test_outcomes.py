"""Every way in which a job ends, through the whole program."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.contract.specs import document, table
from tests.service.api import Api, eventually
from tests.system.conftest import ENDLESS, LONG, SHORT

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(300)  # of work that is a matter of seconds on an idle machine


def direct(spec: dict[str, Any]) -> dict[str, Any]:
    """The numbers of the core alone, in a process with one BLAS thread, as workers have."""
    single = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        ["env", *(f"{name}={value}" for name, value in single.items()), sys.executable, "-m", "tests.system.direct"],
        input=json.dumps(spec).encode(), stdout=subprocess.PIPE, check=True, cwd=ROOT,
    )  # fmt: skip
    return dict(json.loads(found.stdout))


@pytest.mark.parametrize(
    "spec",
    [
        document(
            data=table(60, 8), training__penalty={"kind": "per_feature"}, outer={"kind": "newton", "starts": 3}, seed=5
        ),
        document(
            data=table(20, 50),
            hypergradient__kind="cholesky_backprop",
            outer__kind="lbfgs",
            training__standardize=False,
        ),
        document(
            training__penalty={"kind": "per_group", "groups": {"a": ["x2"], "b": ["x0", "x1"]}},
            selection={"kind": "holdout", "fraction": 0.3},
            test_fraction=0.2,
        ),
    ],
    ids=["newton", "dual lbfgs", "groups"],
)
def test_the_numbers_are_those_of_the_core_to_the_last_bit(api: Api, spec: dict[str, Any]) -> None:
    expected = direct(spec)
    job = api.ended(api.created(spec)["id"])
    result = api.result(job["id"])
    assert [item["value"] for item in result["hyperparameters"]] == expected["hyperparameters"]
    assert [item["value"] for item in result["model"]["coefficients"]] == expected["coefficients"]
    assert result["model"]["intercept"] == expected["intercept"]
    assert result["selection"]["value"] == expected["value"]
    assert job["stop_reason"] == result["stop_reason"] == expected["stop_reason"]
    assert result["counts"]["evaluations"] == expected["evaluations"]
    assert result["counts"]["iterations"] == expected["iterations"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"limits": {"evaluations": 7}}, "max_evaluations"),
        ({"limits": {"target_value": 1e9}}, "target_value"),
        ({"outer": {"kind": "newton", "max_iterations": 1, "tolerance": 1e-15}}, "max_iterations"),
        ({"outer": {"kind": "lbfgs", "max_iterations": 2, "tolerance": 1e-15}}, "max_iterations"),
        ({"training__penalty": {"kind": "shared", "initial": 1e3, "lower": 1e3, "upper": 1e6}}, "at_bounds"),
        ({}, "converged"),
    ],
)
def test_a_spent_budget_is_a_success_with_its_reason(api: Api, changes: dict[str, Any], reason: str) -> None:
    penalty = {"kind": "per_feature", "spread": None}
    spec = document(data=table(40, 6), **{"training__penalty": penalty, **changes})
    job = api.ended(api.created(spec)["id"])
    assert (job["status"], job["stop_reason"], job["error"]) == ("succeeded", reason, None)
    result = api.result(job["id"])
    assert (result["partial"], result["stop_reason"]) == (False, reason)
    assert result["model"] is not None
    assert result["message"].endswith(".")
    if reason == "max_evaluations":
        assert result["counts"]["evaluations"] == 7
    if reason == "max_iterations":
        assert result["starts"][0]["iterations"] == changes["outer"]["max_iterations"]
    if reason == "target_value":
        assert result["counts"]["evaluations"] == 1
    if reason == "at_bounds":
        assert [item["at_bound"] for item in result["hyperparameters"]] == ["lower"]
        assert result["hyperparameters"][0]["value"] == 1e3


def test_the_time_limit_is_a_success(api: Api) -> None:
    job = api.ended(api.created({**ENDLESS, "limits": {"seconds": 0.5}})["id"])
    assert (job["status"], job["stop_reason"]) == ("succeeded", "max_seconds")
    result = api.result(job["id"])
    assert (result["partial"], result["stop_reason"]) == (False, "max_seconds")
    assert result["starts"][-1]["outcome"] == "max_seconds"
    assert result["timing"]["fit_s"] >= 0.5
    assert result["model"] is not None
    assert result["selection"]["value"] < result["selection"]["initial_value"]


def test_cancelling_a_running_job_keeps_the_best_so_far(api: Api) -> None:
    job_id = api.created(ENDLESS)["id"]
    eventually(lambda: len(api.steps(job_id)) > 3)
    began = time.monotonic()
    reply = api.post(f"/v1/jobs/{job_id}/cancel")
    assert (reply.status_code, reply.json()["status"]) == (202, "cancelling")
    assert api.delete(f"/v1/jobs/{job_id}").status_code == 409
    job = api.ended(job_id)
    assert time.monotonic() - began < 20  # about 1 s; the job itself would take minutes
    assert (job["status"], job["stop_reason"], job["attempt"]) == ("cancelled", None, 1)
    result = api.result(job_id)
    assert (result["partial"], result["stop_reason"]) == (True, None)
    assert result["model"] is not None
    assert "cancelled" in result["message"]
    steps = api.steps(job_id)
    assert [step["sequence"] for step in steps] == list(range(1, len(steps) + 1))
    # a trial inside the last iteration may have been better still
    assert result["selection"]["value"] <= min(step["best_value"] for step in steps)
    assert api.delete(f"/v1/jobs/{job_id}").status_code == 204


SLOW = document(data=table(39, 2500), training__penalty={"kind": "per_feature", "spread": None}, outer__kind="newton")
"""One iteration takes a dense eigendecomposition of 2500 x 2500, which nothing but a signal can interrupt."""


@pytest.mark.parametrize("how", ["cancelled", "max_seconds"])
def test_a_computation_that_cannot_be_interrupted_is_killed_and_the_best_so_far_kept(api: Api, how: str) -> None:
    limits = {"seconds": 0.5} if how == "max_seconds" else {}
    job_id = api.created({**SLOW, "limits": limits})["id"]
    eventually(lambda: len(api.steps(job_id)) == 1)
    if how == "cancelled":
        api.post(f"/v1/jobs/{job_id}/cancel")
    job = api.ended(job_id)
    expected = ("cancelled", None) if how == "cancelled" else ("succeeded", "max_seconds")
    assert (job["status"], job["stop_reason"], job["error"]) == (*expected, None)
    result = api.result(job_id)
    assert (result["partial"], result["stop_reason"]) == (True, expected[1])
    assert (result["model"], result["test"]) == (None, None)
    assert "no model was fitted" in result["message"]
    assert "no model was fitted" in result["messages"][0]
    assert ("Raise limits.seconds" in result["messages"][0]) == (how == "max_seconds")
    assert len(result["hyperparameters"]) == 2500
    assert result["selection"]["value"] == api.steps(job_id)[0]["value"]


def test_a_path_that_is_killed_keeps_its_shared_value(api: Api) -> None:
    """The first step with a hyper-prior on 2500 hyperparameters can as little be interrupted."""
    spec = document(data=SLOW["data"], training__penalty={"kind": "per_feature"}, outer__kind="newton")
    job_id = api.created(spec)["id"]
    eventually(lambda: any(step["start"] == 1 for step in api.steps(job_id)))
    api.post(f"/v1/jobs/{job_id}/cancel")
    job = api.ended(job_id)
    assert (job["status"], job["stop_reason"]) == ("cancelled", None)
    result = api.result(job_id)
    assert (result["partial"], result["model"]) == (True, None)
    assert (result["spread"]["chosen"], result["spread"]["by"]) == (0.0, None)
    assert len({item["value"] for item in result["hyperparameters"]}) == 1
    assert result["selection"]["value"] == result["baseline"]["value"] == job["progress"]["best_value"]
    assert result["baseline"]["difference"] == 0


def test_a_queued_job_is_cancelled_at_once_and_never_run(api: Api) -> None:
    running, queued, after = (api.created(spec)["id"] for spec in (ENDLESS, LONG, SHORT))
    assert api.post(f"/v1/jobs/{queued}/cancel").json()["status"] == "cancelled"
    api.post(f"/v1/jobs/{running}/cancel")
    assert api.ended(after)["status"] == "succeeded"
    job = api.get(f"/v1/jobs/{queued}").json()
    assert (job["status"], job["attempt"], job["started_at"]) == ("cancelled", 0, None)


def twins(rows: int = 12) -> dict[str, Any]:
    """Three columns: two are equal, one is constant."""
    data = table(rows, 1)
    return {"x": [[row[0], row[0], 3.5] for row in data["x"]], "y": data["y"]}


def test_a_singular_problem_fails_with_a_sentence(api: Api) -> None:
    penalty = {"kind": "shared", "initial": 1e-300, "lower": 1e-300, "upper": 1e-290}
    job = api.ended(api.created(document(data=twins(), training__penalty=penalty))["id"])
    assert (job["status"], job["stop_reason"], job["error"]["code"]) == ("failed", None, "singular")
    assert "raise the lower bound or the initial value of the penalty" in job["error"]["detail"]
    assert job["progress"]["best_value"] is None
    missing = api.get(f"/v1/jobs/{job['id']}/result")
    assert (missing.status_code, missing.json()["code"]) == (404, "not-found")
    assert api.steps(job["id"]) == []


def test_constant_and_duplicate_columns_are_no_obstacle(api: Api) -> None:
    penalty = {"kind": "per_feature", "spread": None}
    spec = document(data={**twins(), "features": ["a", "b", "c"]}, training__penalty=penalty)
    job = api.ended(api.created(spec)["id"])
    assert job["status"] == "succeeded"
    result = api.result(job["id"])
    assert len(result["messages"]) - len(result["notes"]) == 4
    assert any("flat along a joint change of penalty[a] and penalty[b]" in message for message in result["messages"])
    assert any("does not depend on penalty[c]" in message for message in result["messages"])  # the penalty of 'c'
    assert any("'c' is constant" in message for message in result["messages"])
    assert any("'b' equals 'a'" in message for message in result["messages"])


@pytest.mark.parametrize(
    "data",
    [
        {"x": [[1e150, -1e-69], [-1e150, 1e-69], [1e149, 0.0], [2e149, 5e-324]], "y": [1e150, -1e150, 1e100, 0.0]},
        {"x": [[0.0]] * 4, "y": [0.0] * 4},
        {"x": [[1.0], [2.0], [3.0], [4.0]], "y": [5.0] * 4},
        {"x": [[1.0], [2.0], [3.0], [4.0]], "y": [1.0, 2.0, 3.0, 4.0]},
        {"x": [[1.0], [2.0]], "y": [1.0, 2.0]},
    ],
    ids=["huge and tiny", "nothing", "constant target", "exact", "two rows"],
)
@pytest.mark.parametrize("outer", ["newton", "lbfgs"])
def test_strange_tables_end_in_finite_numbers_or_a_sentence(api: Api, data: dict[str, Any], outer: str) -> None:
    spec = document(data=data, selection={"kind": "k_fold", "folds": 2}, outer__kind=outer, test_fraction=0.0)
    job = api.ended(api.created(spec)["id"])
    api.steps(job["id"])
    if job["status"] == "succeeded":
        api.result(job["id"])  # its numbers are checked by the client
        assert job["attempt"] == 1
    else:
        assert job["error"]["code"] in {"singular", "non_finite"}


def test_more_hyperparameters_than_rows(api: Api) -> None:
    spec = document(
        data=table(10, 600), training__penalty={"kind": "per_feature"}, outer={"kind": "auto", "max_iterations": 5}
    )
    job = api.ended(api.created(spec)["id"])
    result = api.result(job["id"])
    why = result["method"].pop("why")
    assert result["method"] == {"hypergradient": "implicit", "outer": "newton", "approximate": False, "solver": "dual"}
    assert "600 hyperparameters" in why[1]
    assert len(result["hyperparameters"]) == 600
