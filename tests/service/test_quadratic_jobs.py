"""Criteria of the caller's own, over HTTP with a real worker."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.testing import assert_allclose

from service.cli import main
from service.requests import MAX_VALUES
from service.show import result_table
from tests.contract.specs import document, own_criteria
from tests.service.api import Api, faults


def chain(p: int) -> dict[str, Any]:
    """Smoothing of a long series: second differences, every third value left out and scored."""
    t = np.arange(p)
    y = np.sin(t / 40.0) + 0.3 * np.cos(t * t)
    held = t % 3 == 0
    steps = np.tile([1.0, -2.0, 1.0], (p - 2, 1))
    pairs = [(a, b) for a in range(3) for b in range(3)]
    rows, columns = (np.concatenate([t[: p - 2] + pair[axis] for pair in pairs]) for axis in (0, 1))
    values = np.concatenate([steps[:, a] * steps[:, b] for a, b in pairs])

    def diagonal(where: np.ndarray, value: float) -> dict[str, list[float]]:
        return {"rows": t[where].tolist(), "columns": t[where].tolist(), "values": [value] * int(where.sum())}

    return {
        "matrices": [
            diagonal(~held, 1.0),
            {"rows": rows.tolist(), "columns": columns.tolist(), "values": values.tolist()},
        ],
        "vectors": [np.where(held, 0.0, y).tolist()],
        "selection": {
            "matrix": diagonal(held, 2.0 / held.sum()),
            "vector": np.where(held, -2.0 * y / held.sum(), 0.0).tolist(),
            "constant": float(np.mean(y[held] ** 2)),
        },
    }


def dense(sent: Any, p: int) -> np.ndarray:
    if not isinstance(sent, dict):
        return np.zeros((p, p)) if sent is None else np.array(sent, float)
    A = np.zeros((p, p))
    np.add.at(A, (sent["rows"], sent["columns"]), sent["values"])
    return A


def test_a_job_with_the_callers_own_criteria(live: Api) -> None:
    spec = own_criteria(outer={"kind": "auto", "starts": 2, "tolerance": 1e-9})
    spec["training"] = {
        "kind": "quadratic",
        "multipliers": [{"name": "stiffness"}, {"name": "load", "scale": "linear", "lower": -9.0, "upper": 9.0}],
    }
    job = live.created(spec, Prefer="wait=60")
    assert (job["status"], job["error"]) == ("succeeded", None)
    assert set(job["spec"]["data"]) == {"parameters", "matrices", "entries", "sha256"}
    result = live.result(job["id"])
    assert [item["name"] for item in result["hyperparameters"]] == ["stiffness", "load"]
    assert [item["interval"] for item in result["hyperparameters"]] == [None, None]
    h = [1.0, *(item["value"] for item in result["hyperparameters"])]
    data = spec["data"]
    H = sum(x * dense(A, 3) for x, A in zip(h, data["matrices"], strict=True))
    b = sum(x * np.array(v or [0.0] * 3) for x, v in zip(h, data["vectors"], strict=True))
    theta = np.array(result["model"]["theta"])
    assert result["model"]["kind"] == "quadratic"
    assert_allclose(theta, np.linalg.solve(H, b), rtol=1e-9)
    E = data["selection"]
    value = E["constant"] + np.array(E["vector"]) @ theta + theta @ np.array(E["matrix"]) @ theta / 2
    assert_allclose(result["selection"]["value"], value, rtol=1e-9, atol=1e-12)
    assert result["selection"]["value"] < result["selection"]["initial_value"]
    assert (result["test"], result["nested"], result["selection"]["standard_error"]) == (None, None, None)
    assert result["certificates"]["inner_gradient_norm"] < 1e-12
    assert result["certificates"]["finite_difference_error"] < 1e-7
    # A_1 is indefinite; the second start makes much of it, and so do points of the scan, which the first one survives
    assert [start["outcome"] for start in result["starts"]] == ["converged", "indefinite"]
    assert result["starts"][0]["refused"] < result["counts"]["scan"]
    assert result["starts"][1]["refused"] == 1
    assert {step["start"] for step in live.steps(job["id"])} == {0}
    shown = result_table(result)
    assert "theta[2]" in shown
    assert "(intercept)" not in shown


def test_a_band_of_thousands_of_parameters(live: Api) -> None:
    p = 6_000
    spec = document(training={"kind": "quadratic"})
    spec["data"] = chain(p)
    checked = live.post("/v1/jobs?validate_only=true", json=spec)
    assert checked.status_code == 200, checked.text
    assert checked.json()["method"]["solver"] == "banded"
    assert checked.json()["spec"]["selection"] == {"kind": "quadratic"}
    assert checked.json()["names"] == ["h[1]"]
    assert checked.json()["cost"]["bytes"] < 8 * p * 1000
    job = live.created(spec, Prefer="wait=60")
    result = live.result(job["id"])
    assert job["stop_reason"] == "converged"
    assert result["method"]["solver"] == "banded"
    assert result["method"]["why"][0].startswith("H is factored as a band matrix")
    assert len(result["model"]["theta"]) == p
    swept = live.created({**spec, "hypergradient": {"kind": "cholesky_backprop"}, "data": chain(300)}, Prefer="wait=60")
    assert live.result(swept["id"])["method"]["solver"] == "dense"


def test_without_a_minimizer_at_the_start_the_job_says_so(live: Api) -> None:
    spec = own_criteria(data__matrices=[None, [[1, 2, 0], [2, 1, 0], [0, 0, 1]]])
    job = live.created(spec, Prefer="wait=60")
    assert (job["status"], job["error"]["code"]) == ("failed", "indefinite")
    assert "no minimizer" in job["error"]["detail"]
    assert live.get(f"/v1/jobs/{job['id']}/result").status_code == 404


def test_points_behind_which_there_is_no_minimizer_are_counted(live: Api) -> None:
    eye = [[1, 0], [0, 1]]
    spec = document(training={
        "kind": "quadratic",
        "multipliers": [{"name": "h", "scale": "linear", "lower": -5.0, "upper": 5.0}]})  # fmt: skip
    spec["data"] = {
        "matrices": [eye, eye], "vectors": [[1, 1]],
        "selection": {"matrix": [[0.01, 0], [0, 0.01]], "vector": [-1, -1]},
    }  # fmt: skip
    job = live.created(spec, Prefer="wait=60")
    result = live.result(job["id"])
    assert result["starts"][0]["refused"] > 0
    assert_allclose(result["hyperparameters"][0]["value"], -0.99, atol=1e-5)
    assert_allclose(result["model"]["theta"], [100.0, 100.0], rtol=1e-3)


def test_too_many_numbers_are_refused_with_the_remedy(api: Api) -> None:
    p = int(MAX_VALUES**0.5) + 1
    spec = document(training={"kind": "quadratic"})
    row = [0] * p
    spec["data"] = {"matrices": [[row] * p, None], "vectors": [row, row], "selection": {"vector": row}}
    reply = api.create(spec)
    assert reply.status_code == 413
    assert "by their entries" in reply.json()["detail"]
    assert faults(api.create({**spec, "data": {**spec["data"], "matrices": []}}))[0] == ("/data/vectors/1", "no_effect")


@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_line_takes_matrices_as_it_takes_tables(live: Api, tmp_path: Any, as_json: bool) -> None:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(own_criteria()))
    arguments = ["submit", str(path), "--wait", "--url", str(live.base_url)] + (["--json"] if as_json else [])
    ran = CliRunner().invoke(main, arguments)
    assert ran.exit_code == 0, ran.output
    assert ('"theta"' if as_json else "theta[0]") in ran.output
