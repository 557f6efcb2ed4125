"""Splines through the whole service: sent inline or from a dataset, in nested cross-validation, with missing values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.testing import assert_allclose

from service.cli import main
from tests.datasets.test_roles import AGE, AREA, COLUMNS, PRICE, csv_file
from tests.service.api import Api, faults
from tests.service.tabular import plan_of, predicted, upload
from worker.core.penalties.splines import Spline
from worker.core.rows.problem import Imputation, Problem
from worker.core.search.plan import prepare
from worker.core.search.procedure import carry_out

RNG = np.random.default_rng(0)
X = np.column_stack([RNG.uniform(-1, 1, 60), RNG.uniform(0, 24, 60), RNG.normal(size=60)])
Y = np.sin(3 * X[:, 0]) + np.cos(X[:, 1] * np.pi / 12) + 0.5 * X[:, 2] + 0.2 * RNG.normal(size=60)
SPLINES = [{"feature": "a", "basis": 8}, {"feature": "hour", "basis": 9, "cyclic": True, "lower": 0, "upper": 24}]
INLINE = {
    "data": {"x": X.tolist(), "y": Y.tolist(), "features": ["a", "hour", "c"]},
    "training": {"kind": "ridge", "splines": SPLINES},
    "selection": {"kind": "generalized_cv"},
}


def finished(api: Api, spec: dict[str, Any]) -> dict[str, Any]:
    job = api.created(spec, Prefer="wait=60")
    assert job["status"] == "succeeded", job
    return api.result(job["id"])


def test_inline_data_with_splines_give_an_additive_model(live: Api) -> None:
    result = finished(live, INLINE)
    model = result["model"]
    assert model["kind"] == "additive"
    assert [item["name"] for item in result["hyperparameters"]] == [
        "penalty",
        "penalty[spline(a)]",
        "penalty[spline(hour)]",
    ]
    table = dict(zip(("a", "hour", "c"), X.T, strict=True))
    assert np.corrcoef(predicted(model, table), Y)[0, 1] > 0.95
    later = {**table, "hour": X[:, 1] + 24}
    assert_allclose(predicted(model, later), predicted(model, table), atol=1e-9)


@pytest.mark.parametrize(
    "selection", [{"kind": "k_fold", "folds": 4}, {"kind": "leave_one_out"}], ids=lambda selection: selection["kind"]
)
def test_splines_of_a_dataset_whose_values_are_missing(live: Api, selection: dict[str, Any]) -> None:
    dataset = upload(live, csv_file(COLUMNS), "text/csv")
    spec = {
        "data": {
            "dataset_id": dataset["id"], "target": "price", "features": ["area", "age"],
            "missing": {"columns": {"age": {"fill": "median"}}},
        },
        "training": {"kind": "ridge", "splines": [{"feature": "age", "basis": 6}]},
        "selection": selection,
    }  # fmt: skip
    result = finished(live, spec)
    age = np.array([np.nan if one is None else float(one) for one in AGE])
    imputation = Imputation(np.array([1]), ("median",), np.array([0.0]))
    problem = Problem(np.column_stack([AREA, age]).astype(float), PRICE, ("area", "age"), imputation)
    plan = plan_of(spec, {"area": ("area",), "age": ("age",)})
    assert plan.training.splines == (Spline(feature="age", basis=6),)
    prepared = prepare(problem, plan)
    *_, last = carry_out(prepared)
    assert_allclose(result["selection"]["value"], last.best.best.value, rtol=1e-12)
    names = prepared.objective.hyperparameters
    found = [item["value"] for item in result["hyperparameters"]]
    assert_allclose(found, names.natural(last.best.best.rho), rtol=1e-9)
    (fill,) = result["model"]["fills"]
    assert (fill["feature"], fill["value"]) == ("age", np.nanmedian(age))
    assert [term["feature"] for term in result["model"]["splines"]] == ["age"]
    assert result["model"]["splines"][0]["range"] == [np.nanmin(age), np.nanmax(age)]


def test_splines_in_nested_cross_validation(live: Api) -> None:
    spec = {**INLINE, "selection": {"kind": "k_fold", "folds": 3}, "nested": {"folds": 3}}
    result = finished(live, spec)
    assert len(result["nested"]["folds"]) == 3
    assert 0 < result["nested"]["value"] < np.var(Y)
    assert_allclose(
        result["nested"]["optimism"],
        result["nested"]["value"]
        - np.average(
            [fold["selection_value"] for fold in result["nested"]["folds"]],
            weights=[fold["rows"] for fold in result["nested"]["folds"]],
        ),
    )


def test_a_spline_needs_a_feature_of_numbers_that_vary(live: Api) -> None:
    dataset = upload(live, csv_file(COLUMNS), "text/csv")
    data = {"dataset_id": dataset["id"], "target": "price", "features": ["area", "town"]}

    def told(feature: str) -> Any:
        return live.create({"data": data, "training": {"kind": "ridge", "splines": [{"feature": feature}]}})

    assert faults(told("age")) == [("/training/splines", "does_not_fit")]
    assert faults(told("town")) == [("/training/splines", "does_not_fit")]


def test_the_command_line_shows_the_smooth_functions(live: Api, tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(INLINE))
    ran = CliRunner().invoke(main, ["submit", str(path), "--wait", "--url", str(live.base_url)])
    assert ran.exit_code == 0, ran.output
    assert "spline of" in ran.output
    (row,) = [line for line in ran.output.splitlines() if line.startswith("hour ")]
    assert "0 to 24, cyclic" in row
