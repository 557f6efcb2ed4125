"""Sparse tables and iterative solvers through the whole stack: the same numbers as from dense rows and factors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_array

from tests.datasets.test_roles import libsvm
from tests.service.api import Api, faults
from tests.service.tabular import plan_of, upload
from worker.core.rows.problem import Problem
from worker.core.search.plan import prepare

N, P = 120, 40
RNG = np.random.default_rng(8)
X = np.where(RNG.random((N, P)) < 0.06, RNG.normal(size=(N, P)).round(3), 0.0)
X[0, P - 1] = 1.0
ETA = X[:, :10].sum(axis=1)
TARGETS = {
    "logistic": (RNG.logistic(size=N) < ETA) + 1.0,
    "squared_hinge": (RNG.logistic(size=N) < ETA) + 1.0,
    "multinomial": np.digitize(ETA + RNG.logistic(size=N), [-0.7, 0.7]) + 1.0,
    "poisson": RNG.poisson(np.exp(ETA / 2)).astype(float),
    "gamma": RNG.gamma(3.0, np.exp(ETA / 2) / 3.0).round(6),
    "huber": ETA + RNG.standard_t(2, size=N).round(6),
}
FAST = {"logistic", "multinomial", "huber"}  # the others go through the same code for many seconds
GROUPS = {"low": ["?"], "high": ["??"]}
BOX = {"initial": 0.05, "lower": 1e-3, "upper": 10.0}
FOLDS = {"kind": "k_fold", "folds": 3}


@pytest.fixture(scope="module")
def stored(live: Api) -> dict[str, str]:
    """A dataset for each target."""
    return {kind: str(upload(live, libsvm(X, y), "text/x-libsvm")["id"]) for kind, y in TARGETS.items()}


def sparse(dataset: str, kind: str, training: dict[str, Any], **rest: Any) -> dict[str, Any]:
    penalty = {"kind": "per_group", "groups": GROUPS, "spread": None, **BOX}
    data = {"dataset_id": dataset, "target": "label"}
    return {"data": data, "training": {"kind": kind, "penalty": penalty, **training}, "selection": FOLDS, **rest}


def solved(api: Api, spec: dict[str, Any]) -> dict[str, Any]:
    job = api.ended(api.created(spec)["id"])
    assert job["status"] == "succeeded", job
    result = api.result(job["id"])
    # with the squared hinge the gradient of J jumps where a row reaches the margin, and a minimum can be at a jump
    ends = {"converged", "at_bounds"} | ({"stalled"} if spec["training"]["kind"] == "squared_hinge" else set())
    assert result["stop_reason"] in ends, result["message"]
    return result


def slopes(model: dict[str, Any]) -> np.ndarray:
    parts = model["classes"] if model["kind"] == "multinomial" else [model]
    return np.array([[one["intercept"], *(item["value"] for item in one["coefficients"])] for one in parts])


def assert_alike(result: dict[str, Any], other: dict[str, Any], digits: float = 1e-6) -> None:
    """J, the hyperparameters and the model."""
    assert result["selection"]["value"] == pytest.approx(other["selection"]["value"], rel=digits**1.5)
    values = [[item["value"] for item in one["hyperparameters"]] for one in (result, other)]
    assert_allclose(values[0], values[1], rtol=100 * digits)
    ours, theirs = slopes(result["model"]), slopes(other["model"])
    assert_allclose(ours, theirs, atol=10 * digits * np.abs(theirs).max())


@pytest.mark.parametrize(
    "kind", [kind if kind in FAST else pytest.param(kind, marks=pytest.mark.slow) for kind in TARGETS]
)
def test_sparse_rows_with_conjugate_gradients_give_what_dense_rows_with_factors_give(
    live: Api, stored: dict[str, str], kind: str
) -> None:
    tight = {"tolerance": 1e-8}
    first = solved(live, sparse(stored[kind], kind, {"solver": "newton_cg"}, outer={"kind": "newton", **tight}))
    assert first["method"]["solver"] == "newton_cg"
    assert first["certificates"]["inner_gradient_norm"] < 1e-10
    names = {"low": [str(j) for j in range(1, 10)], "high": [str(j) for j in range(10, P + 1)]}
    rows = {"x": X.tolist(), "y": TARGETS[kind].tolist(), "features": [str(j) for j in range(1, P + 1)]}
    penalty = {"kind": "per_group", "groups": names, "spread": None, **BOX}
    dense = sparse("", kind, {"penalty": penalty}, outer={"kind": "newton", **tight})
    second = solved(live, {**dense, "data": rows})
    assert second["method"]["solver"] == "newton_cholesky"
    assert_alike(first, second, 1e-5 if kind in {"huber", "squared_hinge"} else 1e-6)
    assert first["selection"]["measures"] == pytest.approx(second["selection"]["measures"])


@pytest.mark.parametrize("outer", ["inexact", "hoag", "lbfgs"])
def test_every_descent_of_sparse_rows_ends_at_the_same_place(live: Api, stored: dict[str, str], outer: str) -> None:
    exact = solved(live, sparse(stored["logistic"], "logistic", {}, outer={"kind": "newton", "tolerance": 1e-8}))
    settings = {"kind": outer, "tolerance": 1e-5, "max_iterations": 3000}
    other = solved(live, sparse(stored["logistic"], "logistic", {"solver": "newton_cg"}, outer=settings))
    assert_alike(other, exact, 1e-4)
    # hoag ends by an inexact gradient, and the certificate is the exact one
    assert other["certificates"]["outer_gradient_norm"] <= (2e-5 if outer == "hoag" else 1e-5)
    assert other["certificates"]["finite_difference_error"] < 1e-7


def test_an_estimate_counts_the_values_that_are_stored(live: Api, stored: dict[str, str]) -> None:
    rows = {"x": X.tolist(), "y": TARGETS["logistic"].tolist()}
    for training in ({"solver": "newton_cg"}, {"solver": "newton_cholesky"}):
        spec = sparse(stored["logistic"], "logistic", {**training, "penalty": {"kind": "shared"}})
        few, many = (
            live.post("/v1/jobs?validate_only=true", json={**spec, "data": data}).json()["cost"]
            for data in (spec["data"], rows)
        )
        assert few["bytes"] < many["bytes"]
        assert few["flops"] < many["flops"]


def test_many_sparse_columns_are_taken_and_what_needs_their_factor_is_refused(live: Api) -> None:
    p, rng = 25_000, np.random.default_rng(1)
    places = np.sort(rng.integers(0, p, (60, 5)), axis=1)
    values = rng.normal(size=(60, 5)).round(3) + 2.0
    y = rng.integers(0, 2, 60)
    lines = [
        f"{label} " + " ".join(f"{j + 1}:{x}" for j, x in dict(zip(row, one, strict=True)).items())
        for label, row, one in zip(y, places.tolist(), values.tolist(), strict=True)
    ]
    dataset = str(upload(live, ("\n".join(lines) + "\n").encode(), "text/x-libsvm")["id"])
    spec = sparse(dataset, "logistic", {"penalty": {"kind": "shared"}}, outer={"kind": "auto", "max_iterations": 3})
    view = live.post("/v1/jobs?validate_only=true", json=spec).json()
    assert (view["method"]["solver"], view["method"]["outer"]) == ("newton_cg", "inexact")
    assert view["cost"]["bytes"] < 1e9
    for changes, pointer in (
        ({"training": {**spec["training"], "solver": "newton_cholesky"}}, "/training/solver"),
        ({"selection": {"kind": "laplace_evidence"}}, "/selection/kind"),
    ):
        reply = live.create({**spec, **changes})
        assert faults(reply) == [(pointer, "too_large")]
        assert "GB" in reply.text
        assert "newton_cg" in reply.text
    job = live.ended(live.created(spec)["id"])
    assert job["status"] == "succeeded", job


def test_sparse_rows_give_the_gradient_of_the_core(live: Api, stored: dict[str, str]) -> None:
    spec = sparse(stored["poisson"], "poisson", {"solver": "newton_cg", "penalty": {"kind": "shared", **BOX}})
    result = solved(live, spec)
    features = tuple(str(j) for j in range(1, P + 1))
    prepared = prepare(Problem(csr_array(X), TARGETS["poisson"], features), plan_of(spec))
    at = prepared.objective.evaluate(np.log([result["hyperparameters"][0]["value"]]))
    assert result["selection"]["value"] == pytest.approx(at.value, rel=1e-9)
    assert result["hyperparameters"][0]["gradient"] == pytest.approx(at.gradient[0], abs=1e-7)
