"""Kernel machines through the whole stack: jobs, datasets, results, predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose

from tests.service.api import Api
from tests.service.tabular import upload
from worker.core.kernels import Rbf, WidthPerFeature
from worker.core.rows.problem import Problem
from worker.core.training import KernelSvm

RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(90, 3)) * [1.0, 10.0, 0.1] + [0.0, 50.0, 0.0]
T = np.sin(2.0 * X[:, 0]) + (X[:, 1] - 50.0) ** 2 / 200.0 + 0.1 * RANDOM.normal(size=90)
LABEL = np.where(T > 0.4, "hot", "cold")
NEW = RANDOM.normal(size=(7, 3)) * [1.0, 10.0, 0.1] + [0.0, 50.0, 0.0]
ARD = {"kind": "rbf", "widths": "per_feature"}


def solved(api: Api, training: dict[str, Any], selection: dict[str, Any], y: Any, **rest: Any) -> dict[str, Any]:
    data = rest.pop("data", {"x": X.tolist(), "y": np.asarray(y).tolist(), "features": ["a", "b", "c"]})
    outer = {"kind": "auto", "max_iterations": 40, "tolerance": 1e-4}
    spec = {"data": data, "training": training, "selection": selection, "outer": outer, **rest}
    job = api.ended(api.created(spec)["id"])
    assert job["status"] == "succeeded", job
    return api.result(job["id"])


def predicted(api: Api, result: dict[str, Any], x: Any) -> dict[str, Any]:
    reply = api.post(f"/v1/jobs/{result['job_id']}/predictions", json={"x": np.asarray(x).tolist()})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def rbf(model: dict[str, Any], x: Any) -> Any:
    """The predictor from what the document says, by hand."""
    widths = np.array(model["scale"]) * [model["values"][f"width[{name}]"] for name in model["features"]]
    gaps = (np.asarray(x)[:, None, :] - np.array(model["support"])) / widths
    return np.exp(-(gaps**2).sum(-1) / 2) @ model["coefficients"] + model["intercept"]


def test_a_gaussian_process(live: Api) -> None:
    result = solved(live, {"kind": "kernel_ridge", "kernel": ARD}, {"kind": "evidence"}, T, test_fraction=0.2)
    widths = {one["name"]: one for one in result["hyperparameters"]}
    assert widths["width[c]"]["value"] > 20.0 * max(widths["width[a]"]["value"], widths["width[b]"]["value"])
    assert 0.005 < result["selection"]["noise_variance"] < 0.02
    assert result["test"]["value"] < 0.2 * np.var(T)
    assert result["certificates"]["finite_difference_error"] < 1e-6
    assert result["certificates"]["adjoint_residual"] < 1e-8
    assert result["method"]["solver"] == "kernel_matrix"
    model = result["model"]
    assert (model["kind"], len(model["support"]), model["bytes"]) == ("kernel", 72, 72 * 4 * 8)
    answer = predicted(live, result, NEW)
    assert_allclose(answer["predictions"], rbf(model, NEW), rtol=1e-8, atol=1e-8)
    assert answer["probabilities"] is None


def test_a_support_vector_machine_with_probabilities(live: Api) -> None:
    selection = {"kind": "stratified_k_fold", "folds": 3, "loss": "platt_log_loss"}
    result = solved(live, {"kind": "kernel_svm", "kernel": ARD, "class_weights": "balanced"}, selection, LABEL)
    assert result["selection"]["value"] < 0.6 * result["selection"]["initial_value"]
    assert result["selection"]["measures"]["error_rate"] < 0.2
    model = result["model"]
    assert 0 < len(model["support"]) < 90
    lam = np.array([one["value"] for one in result["hyperparameters"]])
    training = KernelSvm(Rbf(widths=WidthPerFeature()), class_weights="balanced")
    problem = Problem(X, (LABEL == "hot").astype(float), ("a", "b", "c"), classes=("cold", "hot"))
    again = training.model(problem, np.arange(90), lam)
    assert again is not None
    answer = predicted(live, result, NEW)
    assert_allclose(answer["predictor"], again.predict(NEW), rtol=1e-7, atol=1e-7)
    line = model["calibration"]
    p = 1.0 / (1.0 + np.exp(-(line["slope"] * np.array(answer["predictor"]) + line["offset"])))
    assert_allclose(answer["probabilities"]["hot"], p, rtol=1e-12)
    assert answer["predictions"] == np.where(np.array(answer["predictor"]) > 0, "hot", "cold").tolist()


def test_landmarks_of_an_uploaded_table_with_missing_values(live: Api) -> None:
    rows = X.copy()
    rows[5, 1] = np.nan
    table = np.column_stack([rows, T > 0.4]).tolist()
    lines = [",".join("" if np.isnan(v) else repr(v) for v in row) for row in table]
    dataset = upload(live, ("a,b,c,y\n" + "\n".join(lines) + "\n").encode(), "text/csv")
    data = {"dataset_id": dataset["id"], "target": "y", "features": ["a", "b", "c"], "missing": {"default": {}}}
    training = {
        "kind": "kernel_logistic",
        "kernel": {"kind": "matern", "widths": "per_feature"},
        "landmarks": {"count": 20},
    }
    result = solved(live, training, {"kind": "k_fold", "folds": 3}, T, data=data)
    assert result["method"]["solver"] == "landmarks"
    assert len(result["model"]["support"]) == 20
    assert result["model"]["link"] == "logit"
    assert result["selection"]["value"] < result["selection"]["initial_value"]
    assert sum(predicted(live, result, NEW)["probabilities"]["1"]) > 0
    answer = live.post(f"/v1/jobs/{result['job_id']}/predictions", json={"x": [[0.0, None, 0.0]]})
    assert answer.status_code == 200, answer.text


def test_what_it_would_cost(live: Api) -> None:
    spec = {"data": {"x": X.tolist(), "y": T.tolist()}, "training": {"kind": "kernel_ridge", "kernel": ARD}}
    view = live.post("/v1/jobs?validate_only=true", json=spec).json()
    assert view["method"] == {"hypergradient": "implicit", "outer": "lbfgs", "solver": "kernel_matrix"}
    assert view["names"] == ["penalty", "width[x0]", "width[x1]", "width[x2]"]
    assert view["cost"]["bytes"] > 5 * 8 * 72**2
