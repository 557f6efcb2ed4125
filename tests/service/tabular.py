"""Uploading files and comparing what the service makes of them with the same computation made directly on the core."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose
from scipy.interpolate import BSpline

from tests.service.api import Api
from worker.contract.feature_columns import FeatureColumns
from worker.contract.spec import JobSpec
from worker.core.rows.problem import Problem
from worker.core.search.descents import Descents
from worker.core.search.plan import Plan, Prepared, prepare
from worker.core.search.tune import tune
from worker.core.verdict.conclude import Conclusion, conclude


def upload(api: Api, content: bytes, media_type: str, **headers: str) -> dict[str, Any]:
    """The dataset that a file becomes."""
    reply = api.post("/v1/datasets", content=content, headers={"Content-Type": media_type, **headers})
    assert reply.status_code in {200, 201}, reply.text
    return dict(reply.json())


def plan_of(spec: dict[str, Any], groups: dict[str, tuple[str, ...]] | None = None) -> Plan:
    """The core's view of a spec, penalty groups written out by the caller."""
    table = {"x": [[0.0]], "y": [0.0]}
    columns = None if groups is None else FeatureColumns(groups.items())
    return JobSpec.model_validate({**spec, "data": table}, strict=False).plan(columns)


def predicted(model: dict[str, Any], table: dict[str, np.ndarray]) -> np.ndarray:
    """What the document of an additive model says of features that have no missing values."""
    eta = np.full(len(next(iter(table.values()))), model["intercept"])
    for item in model["coefficients"]:
        eta += item["value"] * table[item["feature"]]
    for term in model["splines"]:
        low, high = term["range"]
        x = table[term["feature"]]
        x = low + (x - low) % (high - low) if term["cyclic"] else np.clip(x, low, high)
        eta += BSpline(np.array(term["knots"]), np.array(term["coefficients"]), term["degree"])(x)
    return eta


def direct(problem: Problem, plan: Plan) -> tuple[Prepared, Any, Conclusion]:
    """The same computation without a service."""
    prepared = prepare(problem, plan)
    *_, last = tune(prepared)
    return prepared, last, conclude(prepared, last.best, Descents(prepared).of(last.best, last.starts))


def assert_same(result: dict[str, Any], problem: Problem, plan: Plan, rtol: float = 1e-12) -> None:
    """Every number of a result equals that of the core."""
    prepared, last, conclusion = direct(problem, plan)
    best = last.best.best
    box = prepared.objective.hyperparameters
    assert [item["name"] for item in result["hyperparameters"]] == list(box.names)
    assert_allclose([item["value"] for item in result["hyperparameters"]], box.natural(best.rho), rtol=rtol)
    assert_allclose(result["selection"]["value"], best.selection, rtol=rtol)
    assert_allclose(result["selection"]["per_fold"], best.per_split, rtol=rtol)
    assert_allclose(result["selection"]["standard_error"], conclusion.standard_error, rtol=rtol)
    assert (result["stop_reason"], result["counts"]["evaluations"]) == (last.ended.code, last.evaluations)
    assert [item["feature"] for item in result["model"]["coefficients"]] == list(problem.features)
    slopes = np.array([item["value"] for item in result["model"]["coefficients"]])
    assert_allclose(slopes, conclusion.model.coefficients, rtol=rtol, atol=rtol * np.abs(slopes).max())
    assert_allclose(result["model"]["intercept"], conclusion.model.intercept, rtol=rtol)
    assert_allclose([item["value"] for item in result["model"]["fills"]], conclusion.fills, rtol=rtol)
    assert (result["test"] is None) == (conclusion.test_value is None)
    if result["test"]:
        assert_allclose(result["test"]["value"], conclusion.test_value, rtol=rtol)
