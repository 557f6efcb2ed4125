"""Predictions of fitted models over HTTP, beside scikit-learn and the core's own model."""

from __future__ import annotations

from typing import Any

import httpx2
import numpy as np
import pytest
import redis
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge

from service.routes import predictions
from tests.contract.specs import document, own_criteria
from tests.datasets.test_roles import COLUMNS, csv_file
from tests.service.api import Api, faults
from tests.service.tabular import direct, plan_of, upload
from tests.service.test_dataset_jobs import HOUSES, NAMES, houses_by_hand, spec_of
from tests.service.test_generalized_linear_jobs import COUNT, EXPOSURE, LABEL, NOISY, THREE, N, X, inline, penalty
from tests.service.test_spline_jobs import INLINE, SPLINES
from tests.service.test_spline_jobs import X as SMOOTH
from tests.service.test_spline_jobs import Y as SMOOTHED
from worker.core.rows.problem import Problem
from worker.store import keys

NEW = np.random.default_rng(7).normal(size=(9, 3)) * 2.0
ONE_PENALTY = {"standardize": False, "penalty": {"kind": "shared", "initial": 0.01, "lower": 1e-4, "upper": 1e3}}


def result_of(api: Api, spec: dict[str, Any]) -> dict[str, Any]:
    job = api.created(spec, Prefer="wait=60")
    assert job["status"] == "succeeded", job
    return api.result(job["id"])


def fitted(api: Api, kind: str, y: Any, **roles: Any) -> dict[str, Any]:
    data = inline(y, **roles) | {"features": ["a", "b", "c"]}
    return result_of(api, {"data": data, "training": {"kind": kind, **ONE_PENALTY}})


def asked(api: Api, job_id: str, x: Any, **rest: Any) -> httpx2.Response:
    return api.post(f"/v1/jobs/{job_id}/predictions", json={"x": np.asarray(x).tolist(), **rest})


def predicted(api: Api, job_id: str, x: Any, **rest: Any) -> dict[str, Any]:
    reply = asked(api, job_id, x, **rest)
    assert reply.status_code == 200, reply.text
    body = dict(reply.json())
    assert (body["job_id"], body["rows"], len(body["predictions"])) == (job_id, len(x), len(x))
    return body


@pytest.fixture(scope="module")
def counts(live: Api) -> dict[str, Any]:
    """A Poisson regression with an offset."""
    return fitted(live, "poisson", COUNT, offset=EXPOSURE)


def test_numbers(live: Api) -> None:
    result = fitted(live, "ridge", NOISY)
    theirs = Ridge(alpha=N * penalty(result)).fit(X, NOISY).predict(NEW)
    body = predicted(live, result["job_id"], NEW)
    assert_allclose(body["predictions"], theirs, rtol=1e-9)
    assert body["predictor"] == body["predictions"]
    assert body["probabilities"] is None
    assert predicted(live, result["job_id"], NEW[:, [2, 0, 1]], features=["c", "a", "b"]) == body


def test_two_classes(live: Api) -> None:
    result = fitted(live, "logistic", LABEL)
    theirs = LogisticRegression(C=1 / (N * penalty(result)), solver="newton-cholesky", tol=1e-12).fit(X, LABEL)
    body = predicted(live, result["job_id"], NEW)
    assert list(body["probabilities"]) == theirs.classes_.tolist()
    assert_allclose(np.column_stack(list(body["probabilities"].values())), theirs.predict_proba(NEW), rtol=1e-6)
    assert_allclose(body["predictor"], theirs.decision_function(NEW), rtol=1e-6)
    assert body["predictions"] == theirs.predict(NEW).tolist()
    assert len(set(body["predictions"])) == 2


def test_a_support_vector_machine_has_classes_and_no_probabilities(live: Api) -> None:
    result = fitted(live, "squared_hinge", LABEL)
    body = predicted(live, result["job_id"], NEW)
    model = result["model"]
    eta = model["intercept"] + NEW @ [one["value"] for one in model["coefficients"]]
    assert_allclose(body["predictor"], eta, rtol=1e-12)
    assert body["predictions"] == np.where(eta > 0, "yes", "no").tolist()
    assert body["probabilities"] is None


def test_several_classes(live: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    result = fitted(live, "multinomial", THREE)
    theirs = LogisticRegression(C=1 / (N * penalty(result)), tol=1e-12, max_iter=10_000).fit(X, THREE)
    body = predicted(live, result["job_id"], NEW)
    assert list(body["predictor"]) == list(body["probabilities"]) == theirs.classes_.tolist()
    assert_allclose(np.column_stack(list(body["probabilities"].values())), theirs.predict_proba(NEW), atol=1e-5)
    assert body["predictions"] == theirs.predict(NEW).tolist()
    monkeypatch.setattr(predictions, "MAX_OUTPUTS", 3 * len(NEW) - 1)
    assert asked(live, result["job_id"], NEW).status_code == 413


def test_counts_with_an_offset(live: Api, counts: dict[str, Any]) -> None:
    rate = PoissonRegressor(alpha=penalty(counts), solver="newton-cholesky", tol=1e-12)
    weights = np.exp(EXPOSURE)  # the same likelihood: rates, weighted by exposures; the penalty is on their mean
    rate.set_params(alpha=penalty(counts) * N / weights.sum()).fit(X, COUNT / weights, weights)
    offset = np.linspace(-1.0, 1.0, len(NEW))
    body = predicted(live, counts["job_id"], NEW, offset=offset.tolist())
    assert_allclose(body["predictions"], rate.predict(NEW) * np.exp(offset), rtol=1e-6)
    assert_allclose(np.exp(body["predictor"]), body["predictions"], rtol=1e-12)
    assert_allclose(predicted(live, counts["job_id"], NEW)["predictions"], rate.predict(NEW), rtol=1e-6)


def test_splines_are_constant_beyond_their_range_or_repeat_themselves(live: Api) -> None:
    result = result_of(live, INLINE)
    prepared, _, conclusion = direct(Problem(SMOOTH, SMOOTHED, ("a", "hour", "c")), plan_of(INLINE))
    beyond = np.array([[-5.0, 3.0, 0.1], [5.0, 3.0, 0.1], [0.2, 27.0, -1.0], [0.2, -21.0, -1.0], [0.2, 24.0, 9.0]])
    rows = np.vstack([SMOOTH, beyond])
    expansion, model = prepared.problem.expansion, conclusion.model
    assert expansion
    assert model
    theirs = model.predict(expansion.of(rows)[:])
    body = predicted(live, result["job_id"], rows)  # in the order of the table, which is not that of the model
    assert_allclose(body["predictions"], theirs, rtol=1e-7, atol=1e-9)
    assert [term["feature"] for term in result["model"]["splines"]] == [spline["feature"] for spline in SPLINES]


def test_columns_of_a_dataset_and_values_that_are_missing(live: Api) -> None:
    spec = spec_of(upload(live, csv_file(COLUMNS), "text/csv"), HOUSES, selection={"kind": "k_fold", "folds": 4})
    result = result_of(live, spec)
    problem, groups = houses_by_hand()
    _, _, conclusion = direct(problem, plan_of(spec, groups))
    assert conclusion.model
    table = np.asarray(problem.X)
    theirs = conclusion.model.predict(np.where(np.isnan(table), conclusion.fills[0], table))
    rows = [[None if np.isnan(value) else value for value in row] for row in table.tolist()]
    assert_allclose(predicted(live, result["job_id"], rows)["predictions"], theirs, rtol=1e-9)
    rows[3][0] = None
    assert faults(asked(live, result["job_id"], rows, features=list(NAMES))) == [("/x/3/0", "missing_value")]


ROW = [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"x": [ROW, ROW, ROW, [0.1, 0.2, None]]}, "/x/3/2", "missing_value"),
        ({"x": [ROW, [0.1, "0.2", 0.3]]}, "/x/1/1", "float_type"),
        ({"x": [ROW, ROW[:2]]}, "/x/1", "length"),
        ({"x": []}, "/x", "empty"),
        ({"x": [ROW[:2]], "features": ["a", "b"]}, "/features", "missing_feature"),
        ({"x": [ROW], "features": ["a", "b", "d"]}, "/features/2", "unknown_feature"),
        ({"x": [ROW], "features": ["a", "b", "b"]}, "/features/2", "duplicate"),
        ({"x": [ROW], "offset": [0.0, 1.0]}, "/offset", "length"),
        ({"x": [ROW, [1e5, -1e5, 0.0]]}, "/x/1", "overflow"),
        ({"rows": [ROW]}, "/x", "missing"),
        ([ROW], "", "model_type"),
    ],
)
def test_rows_that_do_not_fit(live: Api, counts: dict[str, Any], body: Any, pointer: str, code: str) -> None:
    assert (pointer, code) in faults(live.post(f"/v1/jobs/{counts['job_id']}/predictions", json=body))


def test_no_infinite_numbers_no_other_bodies_not_too_many_rows(live: Api, counts: dict[str, Any]) -> None:
    path = f"/v1/jobs/{counts['job_id']}/predictions"
    headers = {"Content-Type": "application/json"}
    for word in ("NaN", "Infinity", "1e999"):
        content = f'{{"x": [[0.1, {word}, 0.3]]}}'
        assert faults(live.post(path, content=content, headers=headers)) == [("/x/0/1", "finite_number")]
    assert faults(live.post(path, content='{"x": ', headers=headers)) == [("", "invalid_json")]
    assert live.post(path, content=b"0.1,0.2,0.3", headers={"Content-Type": "text/csv"}).status_code == 415
    assert live.post(path, json={"x": [[0]] * (predictions.MAX_ROWS + 1)}).status_code == 413


def test_a_model_without_an_offset_takes_none(live: Api) -> None:
    result = result_of(live, document())
    assert faults(asked(live, result["job_id"], [ROW], offset=[0.0])) == [("/offset", "does_not_fit")]


def test_matrices_predict_no_rows(live: Api) -> None:
    result = result_of(live, own_criteria())
    reply = asked(live, result["job_id"], [ROW])
    assert (reply.status_code, reply.json()["code"]) == (409, "no-model")


def test_jobs_without_a_model(api: Api, client: redis.Redis) -> None:
    job_id = api.created(document())["id"]
    early = asked(api, job_id, [ROW])
    assert (early.status_code, early.json()["code"], early.headers["retry-after"]) == (409, "result-not-ready", "1")
    api.post(f"/v1/jobs/{job_id}/cancel")
    late = asked(api, job_id, [ROW])
    assert (late.status_code, late.json()["code"]) == (409, "no-model")
    client.set(f"{keys.JOB}{job_id}:result", b'{"model": null}')
    assert asked(api, job_id, [ROW]).json()["code"] == "no-model"
    client.set(f"{keys.JOB}{job_id}:result", b'{"model": {"kind": "of a later version"}}')
    newer = asked(api, job_id, [ROW])
    assert (newer.status_code, newer.headers["retry-after"]) == (503, "5")
