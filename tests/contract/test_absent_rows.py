"""Rows of weight 0 are as good as absent: every number is that of the job without them."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from worker.contract.description import describe, work
from worker.contract.inline import encode_data
from worker.contract.spec import JobSpec
from worker.contract.spec_faults import faults
from worker.core.search.plan import Prepared, prepare
from worker.core.search.procedure import carry_out
from worker.core.verdict.conclude import Conclusion, conclude

N, ABSENT = 36, (0, 7, 8, 20, 39)  # rows that are there, and places among all of rows that are not
ALL = N + len(ABSENT)
PRESENT = np.setdiff1d(np.arange(ALL), ABSENT)
TARGETS = {
    "logistic": "classes", "squared_hinge": "classes", "multinomial": "many", "kernel_svm": "classes",
    "kernel_logistic": "classes", "poisson": "counts", "gamma": "positive",
}  # fmt: skip
RESAMPLED: dict[str, dict[str, Any]] = {
    "k_fold": {"folds": 3, "seed": 3},
    "holdout": {"validation_rows": [1, 4, 11, 7, 23, 38, 39]},
    "given_folds": {"fold_of_row": [(i * i) % 3 for i in range(ALL)]},
    "group_k_fold": {"folds": 3, "group_of_row": [i % 8 for i in range(ALL)]},
    "walk_forward": {"initial": 20, "horizon": 5},
}
OF_RIDGE = ("leave_one_out", "generalized_cv", "evidence", "reml")
CASES = [
    *[("ridge", kind) for kind in (*RESAMPLED, *OF_RIDGE)],
    *[("kernel_ridge", kind) for kind in ("k_fold", "leave_one_out", "evidence", "reml")],
    *[(kind, "k_fold") for kind in (*TARGETS, "huber")],
    *[(kind, "holdout") for kind in ("logistic", "huber", "kernel_svm")],
    *[(kind, "approximate_leave_one_out") for kind in ("logistic", "poisson", "huber")],
    *[(kind, "laplace_evidence") for kind in ("logistic", "gamma", "multinomial")],
    ("logistic", "stratified_k_fold"),
]


def target(kind: str, rows: np.ndarray) -> list[Any]:
    random = np.random.default_rng(2)
    eta = rows @ [1.0, -0.7] + 0.4 * random.normal(size=len(rows))
    of: dict[str, Any] = {
        "classes": np.where(eta > 0, "yes", "no"), "many": np.array(["a", "b", "c"])[np.digitize(eta, [-0.6, 0.6])],
        "counts": random.poisson(np.exp(eta / 2)), "positive": np.exp(eta) * random.gamma(2.0, size=len(rows)),
    }  # fmt: skip
    return of.get(kind, eta).tolist()


def documents(training: str, selection: str, value: float = 1e9) -> tuple[dict[str, Any], dict[str, Any]]:
    """A job with absent rows that hold sentinels, and the job without them."""
    random = np.random.default_rng(5)
    X, kind = random.normal(size=(N, 2)), TARGETS.get(training, "")
    settings: dict[str, Any] = {"kind": training}
    if training in ("ridge", "huber", "logistic", "poisson"):
        settings["splines"] = [{"feature": "x0", "basis": 6}]
    weights, time = random.uniform(0.5, 2.0, N), np.arange(N) / 7
    without: dict[str, Any] = {
        "x": X.tolist(),
        "y": target(kind, X),
        "weights": weights.tolist(),
        "time": time.tolist(),
    }
    filled: dict[str, Any] = {
        "x": [[value, -value]] * ALL, "y": ["extra" if kind in ("classes", "many") else -value] * ALL,
        "weights": [0.0] * ALL, "time": [value] * ALL,
    }  # fmt: skip
    for role, values in filled.items():
        for place, row in zip(PRESENT, without[role], strict=True):
            values[place] = row
    chosen = {"kind": selection, **RESAMPLED.get(selection, {})}
    of_present = dict(chosen)
    for name in ("fold_of_row", "group_of_row"):
        if name in chosen:
            of_present[name] = [chosen[name][place] for place in PRESENT]
    if "validation_rows" in chosen:
        position = {int(place): i for i, place in enumerate(PRESENT)}
        of_present["validation_rows"] = [position[row] for row in chosen["validation_rows"] if row in position]
    common = {"training": settings, "limits": {"evaluations": 2 if "kernel" in training else 6}}
    return {"data": filled, "selection": chosen, **common}, {"data": without, "selection": of_present, **common}


def outcome(document: dict[str, Any]) -> tuple[Prepared, Any, Conclusion]:
    """As API and worker do it."""
    spec = JobSpec.model_validate_json(orjson.dumps(document))
    assert faults(spec) == []
    encoded = encode_data(spec.problem())
    task = work(orjson.dumps(describe(spec, encoded)), encoded)
    prepared = prepare(task.problem, task.plan)
    *_, last = carry_out(prepared)
    return prepared, last, conclude(prepared, last.best)


def numbers(prepared: Prepared, last: Any, concluded: Conclusion) -> np.ndarray:
    best = last.best.best
    model = concluded.model
    parts = [[best.value, concluded.standard_error or 0.0], prepared.objective.natural(best.rho), best.per_split]
    return np.concatenate([*parts, np.ravel(model.intercept), np.ravel(model.coefficients)])


@pytest.mark.unchecked
@pytest.mark.parametrize(("training", "selection"), CASES)
def test_a_job_with_rows_of_weight_0_gives_the_numbers_of_the_job_without_them(training: str, selection: str) -> None:
    found, wanted = (outcome(document) for document in documents(training, selection))
    np.testing.assert_allclose(numbers(*found), numbers(*wanted), rtol=1e-9, atol=1e-9)
    assert "5 rows of weight 0 were left out, as if not there." in found[2].messages
    assert set(found[2].messages) - set(wanted[2].messages) == {"5 rows of weight 0 were left out, as if not there."}


@pytest.mark.parametrize("nested", [False, True])
def test_test_rows_and_outer_folds_are_cut_from_the_rows_that_are_there(*, nested: bool) -> None:
    more: dict[str, Any] = {"nested": {"folds": 3, "seed": 1}} if nested else {"test_fraction": 0.25, "seed": 4}
    found, wanted = (outcome(document | more) for document in documents("ridge", "k_fold"))
    if nested:
        assert found[1].folds == wanted[1].folds != ()
    else:
        assert found[2].test_value == wanted[2].test_value is not None
    assert (numbers(*found) == numbers(*wanted)).all()


@pytest.mark.unchecked
@pytest.mark.parametrize("training", ["ridge", "huber", "logistic", "kernel_ridge", "kernel_svm"])
def test_a_row_that_is_scored_only_moves_no_statistic_of_training(training: str) -> None:
    """Its scoring weight is too small to be seen in J."""
    document, wanted = documents(training, "given_folds")
    classes = training in TARGETS
    data = document["data"]
    data["scoring"] = [weight or 1e-200 for weight in data["weights"]]
    data["y"] = [y if y != "extra" else "yes" for y in data["y"]] if classes else data["y"]
    found = outcome(document)
    np.testing.assert_allclose(found[1].best.best.value, outcome(wanted)[1].best.best.value, rtol=1e-9)
    assert not any("weight 0" in message for message in found[2].messages)


def test_a_window_of_time_weights_ends_at_the_last_row_that_trains() -> None:
    document, wanted = documents("ridge", "given_folds")
    for spec in (document, wanted):
        spec["training"] = {"kind": "ridge", "weights": {"kind": "exponential_time", "decay_time": 0.3}}
    document["data"]["scoring"] = [weight or 1e-200 for weight in document["data"]["weights"]]
    found = outcome(document)[1].best.best
    np.testing.assert_allclose(found.value, outcome(wanted)[1].best.best.value, rtol=1e-9)


@pytest.mark.parametrize(
    ("selection", "detail"),
    [
        ({"kind": "given_folds", "fold_of_row": [0, 1] * 20}, "Fold_of_row has 40 entries, and the data has 41 rows"),
        ({"kind": "holdout", "validation_rows": [41]}, "names row 41, and the last row is 40"),
        ({"kind": "holdout", "validation_rows": [0, 39]}, "very row that validation_rows names has weight 0"),
        ({"kind": "given_folds", "fold_of_row": [2 * (i == 0) + (i % 2) * (i > 0) for i in range(ALL)]},
         "very row of fold 2 has weight 0"),
    ],
)  # fmt: skip
def test_rows_that_a_setting_lists_are_those_of_the_caller(selection: dict[str, Any], detail: str) -> None:
    document = documents("ridge", "k_fold")[0] | {"selection": selection}
    (fault,) = faults(JobSpec.model_validate_json(orjson.dumps(document)))
    assert fault.pointer == "/selection"
    assert detail.lower() in fault.detail.lower()


def test_a_wrong_target_is_named_by_its_row_and_may_stand_where_nothing_counts() -> None:
    document = documents("poisson", "k_fold")[0]
    assert faults(JobSpec.model_validate_json(orjson.dumps(document))) == []
    document["data"]["y"][21] = -1.0
    (fault,) = faults(JobSpec.model_validate_json(orjson.dumps(document)))
    assert fault.pointer == "/data/y/21"


def test_a_class_with_one_row_that_counts_is_refused_at_that_row() -> None:
    document = documents("multinomial", "k_fold")[0]
    document["data"]["y"][21] = "extra"
    (fault,) = faults(JobSpec.model_validate_json(orjson.dumps(document)))
    assert (fault.pointer, fault.code) == ("/data/y/21", "single_row")
