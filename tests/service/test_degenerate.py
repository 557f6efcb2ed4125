"""Flat, singular and contradictory jobs over HTTP: each ends with a sentence that names what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.contract.specs import document
from tests.service.api import Api

ROWS = 24
RNG = np.random.default_rng(3)
X = RNG.normal(size=(ROWS, 3))
Y = X @ [1.0, 2.0, 0.0] + RNG.normal(size=ROWS)
WIDE = RNG.normal(size=(ROWS, 8))
ONES = np.ones((ROWS, 1))
PER_FEATURE = {"training__penalty": {"kind": "per_feature", "spread": None}}
LIKE = {"training__penalty": {"kind": "per_feature"}}
TINY = {"training__penalty": {"kind": "shared", "initial": 1e-300, "lower": 1e-305, "upper": 1e-290}}
WINDOW = {"selection": {"kind": "walk_forward", "initial": 6, "window": 3}}
FORM = {"kind": "matrix", "name": "m", "matrix": [[1, 2, 0], [2, 1, 0], [0, 0, 1]]}


def given(x: Any = X, y: Any = Y, **roles: Any) -> dict[str, Any]:
    return {"data": {"x": np.asarray(x).tolist(), "y": np.asarray(y).tolist(), **roles}}


def halves(weight: list[float], **roles: Any) -> dict[str, Any]:
    fold = [0] * 12 + [1] * 12
    return given(weights=[weight[i] for i in fold], fold=fold, **roles) | {"selection": {"kind": "given_folds"}}


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "more folds than rows": (
        {"selection": {"kind": "k_fold", "folds": ROWS + 1}} | given(), "/selection", "25 folds need at least 25 rows"),
    "more folds than groups": (
        given(groups=[0, 1, 2] * 8) | {"selection": {"kind": "group_k_fold", "folds": 4}},
        "/selection", "4 folds need at least 4 groups, and there are 3"),
    "a nested fold with fewer groups than folds": (
        given(groups=[0, 1, 2] * 8) | {"selection": {"kind": "group_k_fold", "folds": 3}, "nested": {"folds": 3}},
        "/nested", "3 folds need at least 3 groups, and there are 2"),
    "one time only": (
        given(time=[1.0] * ROWS) | {"selection": {"kind": "walk_forward", "initial": 12}},
        "/selection", "none of the 24 rows to score, as rows of equal time stay together"),
    "a form that is not semidefinite": (
        given() | {"training__penalty": {"kind": "quadratic_forms", "forms": [FORM]}},
        "/training/penalty", "not positive semidefinite: its smallest eigenvalue is -1"),
    "no weight at all": (given(weights=[0] * ROWS), "/data/weights", "Every weight is zero"),
    "no scoring at all": (given(scoring=[0] * ROWS), "/data/scoring", "Every weight is zero"),
    "no weight in a training part": (
        halves([1, 0], scoring=[1] * 24), "/data/weights", "All rows that split 1 of 2 trains on have weight 0"),
    "a fold of rows that are left out": (halves([1, 0]), "/selection", "Every row of fold 1 has weight 0"),
    "one weight": (
        given(weights=[1] + [0] * 23) | {"selection": {"kind": "leave_one_out"}},
        "/data/weights", "All rows but one have weight 0"),
    "one weight of scored rows": (
        given(weights=[1] + [0] * 23, scoring=[1] * 24) | {"selection": {"kind": "leave_one_out"}},
        "/data/weights", "All rows but one that split 1 of 1 trains on have weight 0"),
    "nothing that is scored": (
        given(scoring=[1] * 6 + [0] * 18) | {"selection": {"kind": "walk_forward", "initial": 12}},
        "/data/scoring", "Every row that would be scored has weight 0"),
    "nothing that is scored in a split that counts": (
        given(scoring=[1] * 12 + [0] * 12, fold=[0] * 12 + [1] * 12)
        | {"selection": {"kind": "given_folds", "split_weights": [0, 1]}},
        "/data/scoring", "Every row that would be scored has weight 0, or its split has"),
    "columns whose squares vanish": (given(X * [1.0, 1e-200, 1.0]), "/data/x/0/1", "too small; rescale the column"),
    "a spline of a constant": (
        given(np.hstack([X, ONES])) | {"training__splines": [{"feature": "x3"}]},
        "/training/splines/0", "'x3' is constant on the rows used"),
    "a spline of fewer values than its order": (
        given(np.hstack([X, np.arange(24)[:, None] % 2]))
        | {"training__splines": [{"feature": "x0"}, {"feature": "x3", "order": 3}]},
        "/training/splines/1", "'x3' has 2 distinct values on the rows used, and a spline of order 3 needs at least 3"),
    "a number where a delta is an object": (
        given() | {"training": {"kind": "huber", "delta": {"relative": 0}}},
        "/training/delta/relative", "greater than 0"),
    "a spline that no value reaches": (
        given() | {"training__splines": [{"feature": "x0", "lower": 50.0, "upper": 60.0}]},
        "/training/splines/0", "is inside the range of spline(x0)"),
    "a training part without a count": (
        given(y=[0] * 12 + [1, 2] * 6, fold=[0] * 12 + [1] * 12)
        | {"training": {"kind": "poisson"}, "selection": {"kind": "given_folds"}},
        "/selection", "All counts that split 2 of 2 trains on are zero"),
    "an AUC of rows without a weight": (
        given(y=["a", "b"] * 12, scoring=[1] * 12 + [0] * 12, fold=[0] * 12 + [1] * 12)
        | {"training": {"kind": "logistic"}, "selection": {"kind": "given_folds", "loss": "smoothed_auc"}},
        "/selection", "no validation row has a weight"),
}  # fmt: skip

FAILED: dict[str, tuple[dict[str, Any], str, str]] = {
    "duplicates almost without penalty": (
        given(np.hstack([X, X[:, :1]])) | TINY, "singular", "remove linearly dependent features"),
    "the likelihood of a constant target": (
        given(y=np.full(ROWS, 2.0)) | {"selection": {"kind": "evidence"}}, "non_finite", "of a constant target"),
}  # fmt: skip

TOLD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a constant column": (
        given(np.hstack([X, 5.0 * ONES])) | PER_FEATURE,
        ["Feature 'x3' is constant on the rows used", "does not depend on penalty[x3] around the result: nearby"]),
    "constant columns only": (
        given(np.hstack([ONES, 2.0 * ONES])) | PER_FEATURE,
        ["'x0' is constant", "'x1' is constant", "does not depend on penalty[x0] and penalty[x1]"]),
    "a constant column whose penalty is like the others": (
        given(np.hstack([X, 5.0 * ONES])) | LIKE,
        ["Feature 'x3' is constant on the rows used", "one shared value was chosen"]),
    "duplicate columns": (
        given(np.hstack([X, X[:, :1]])) | PER_FEATURE, ["Feature 'x3' equals 'x0': the data", "is flat"]),
    "a constant target": (given(y=np.full(ROWS, 2.0)), ["The target is constant", "does not depend on penalty around"]),
    "a window shorter than the features": (
        given(WIDE) | PER_FEATURE | WINDOW, ["A split trains on 3 rows, fewer than the 8 features"]),
    "more features than rows": (
        given(WIDE[:5], Y[:5]) | {"selection": {"kind": "leave_one_out"}}, ["fewer than the 8 features"]),
    "times that are all the same": (
        given(time=[1.0] * ROWS)
        | {"training__weights": {"kind": "sigmoid_time"}, "selection": {"kind": "k_fold"}},
        ["does not depend on weights[steepness] and weights[midpoint]"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_contradiction_is_refused(api: Api, name: str) -> None:
    changes, pointer, words = REFUSED[name]
    reply = api.create(document(**changes))
    assert reply.status_code == 422, reply.text
    (fault,) = reply.json()["errors"]
    assert fault["pointer"] == pointer
    assert words in fault["detail"]
    assert fault["detail"].endswith(".")


@pytest.mark.parametrize("name", FAILED)
def test_what_cannot_be_started_fails_with_a_sentence(live: Api, name: str) -> None:
    changes, code, words = FAILED[name]
    job = live.created(document(**changes), Prefer="wait=60")
    assert (job["status"], job["attempt"], job["error"]["code"]) == ("failed", 1, code)
    assert words in job["error"]["detail"]
    assert job["error"]["detail"].endswith(".")


@pytest.mark.parametrize("name", TOLD)
def test_what_is_flat_is_told_by_name(live: Api, name: str) -> None:
    changes, words = TOLD[name]
    job = live.created(document(**changes), Prefer="wait=60")
    assert (job["status"], job["attempt"]) == ("succeeded", 1)
    messages = live.result(job["id"])["messages"]
    for word in words:
        assert any(word in message for message in messages), messages
    assert all(message.endswith(".") for message in messages)


@pytest.mark.parametrize("training", ["ridge", "huber", "kernel_ridge"])
def test_a_fold_without_scoring_weights_has_no_score(live: Api, training: str) -> None:
    third = [0] * 8 + [1] * 8 + [2] * 8
    data = given(scoring=[1.0] * 8 + [0.0] * 8 + [2.0] * 8, fold=third)
    spec = document(**data, selection={"kind": "given_folds"}, training={"kind": training})
    job = live.created(spec, Prefer="wait=60")
    assert (job["status"], job["attempt"]) == ("succeeded", 1)
    selection = live.result(job["id"])["selection"]
    first, missing, last = selection["per_fold"]
    assert missing is None
    assert selection["value"] == pytest.approx((8 * first + 16 * last) / 24)


def test_a_nested_fold_without_scoring_weights_has_no_score(live: Api) -> None:
    spec = document(**given(scoring=[1.0] * 8 + [0.0] * 8 + [1.0] * 8), nested={"folds": 2})
    spec["selection"] = {"kind": "walk_forward", "initial": 4, "horizon": 2}
    nested = live.result(live.created(spec, Prefer="wait=60")["id"])["nested"]
    assert nested["folds"][0]["value"] is None
    assert nested["value"] == nested["folds"][1]["value"] > 0


def test_a_nested_fold_that_cannot_be_tuned_leaves_the_result(live: Api) -> None:
    spec = document(**given(y=(np.arange(ROWS) == 4).astype(float)), selection={"kind": "reml"}, nested={"folds": 4})
    job = live.ended(live.created(spec, Prefer="wait=60")["id"])
    assert job["status"] == "succeeded", job
    result = live.result(job["id"])
    folds = result["nested"]["folds"]
    (failed,) = [number for number, fold in enumerate(folds, start=1) if fold["value"] is None]
    assert folds[failed - 1]["selection_value"] is None
    assert result["nested"]["value"] is None
    assert any(f"Without the rows of outer fold {failed} of 4" in message for message in result["messages"])


def test_test_rows_without_weights_have_no_score(live: Api) -> None:
    spec = document(**given(scoring=[1.0] * 18 + [0.0] * 6, time=list(range(ROWS))), test_fraction=0.25)
    spec["selection"] = {"kind": "walk_forward", "initial": 9}
    result = live.result(live.created(spec, Prefer="wait=60")["id"])
    assert result["test"] is None
    assert any("All test rows have the weight 0" in message for message in result["messages"])


def test_a_slope_that_does_not_bend_is_not_called_flat(live: Api) -> None:
    spec = {
        "data": {
            "matrices": [[[2.0, 0.0], [0.0, 2.0]], None],
            "vectors": [[1.0, 1.0], [1.0, 0.0]],
            "selection": {"vector": [1.0, 0.0], "constant": 50.0},
        },
        "training": {
            "kind": "quadratic",
            "multipliers": [{"name": "a", "scale": "linear", "lower": -1e9, "upper": 1e9}],
        },
        "outer": {"kind": "newton", "max_iterations": 3},
    }
    result = live.result(live.created(spec, Prefer="wait=60")["id"])
    assert result["stop_reason"] == "max_iterations"
    assert not any("does not depend" in message or "is flat" in message for message in result["messages"])


def test_two_penalties_of_one_column_are_flat_and_no_saddle(live: Api) -> None:
    groups = {"g": ["x0", "x1"], "h": ["x0", "x1"], "rest": ["x2"]}
    spec = document(
        **given(), training={"kind": "ridge", "penalty": {"kind": "per_group", "groups": groups, "spread": None}}
    )
    result = live.result(live.created(spec, Prefer="wait=60")["id"])
    assert result["certificates"]["point"] == "flat"
    assert any("penalty[g] and penalty[h]" in message for message in result["messages"]), result["messages"]


def test_a_budget_that_a_later_start_spent_is_told_as_that(live: Api) -> None:
    spec = document(**given(), **PER_FEATURE, outer={"kind": "newton", "starts": 50}, limits={"evaluations": 60})
    result = live.result(live.created(spec, Prefer="wait=60")["id"])
    assert result["stop_reason"] == "max_evaluations"
    assert result["message"].endswith("the budget was spent in a later one."), result["message"]


@pytest.mark.parametrize(
    ("rows", "changes", "solver"),
    [
        (5, {"selection": {"kind": "leave_one_out"}}, "dual"),
        (5, {"selection": {"kind": "reml"}}, "dual"),
        (5, {"selection": {"kind": "reml"}, "hypergradient": {"kind": "cholesky_backprop"}}, "primal"),
        (5, {"selection": {"kind": "generalized_cv"}}, "dual"),
        (ROWS, {"outer": {"kind": "newton", "starts": 3}}, "spectral"),
        (ROWS, {"selection": {"kind": "leave_one_out"}, "outer": {"kind": "newton", "starts": 3}}, "spectral"),
        (ROWS, {"outer": {"kind": "newton", "starts": 3}, "hypergradient": {"kind": "cholesky_backprop"}}, "spectral"),
    ],
)
def test_the_solver_that_is_promised_is_the_one_that_is_used(live: Api, rows: int, changes: Any, solver: str) -> None:
    spec = document(**given(np.hstack([WIDE, X])[:rows], Y[:rows]), training={"kind": "ridge"}, **changes)
    promised = live.post("/v1/jobs?validate_only=true", json=spec).json()["method"]["solver"]
    used = live.result(live.created(spec, Prefer="wait=60")["id"])["method"]["solver"]
    assert promised == used == solver
