"""Specs of generalized linear models: classes, what does not fit, and what is stored."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.contract.specs import document, faults_of, parsed
from worker.contract.data import InlineData
from worker.contract.description import describe, fingerprint, hyperparameter_names, work
from worker.contract.inline import encode_data
from worker.contract.inline_table import InlineTable

AB = ["a", "b"] * 6
COUNTS = [0, 1, 2, 5] * 3


def of(kind: str, y: list[Any], **changes: Any) -> dict[str, Any]:
    return document(training__kind=kind, data__y=y, **changes)


def classes_of(y: list[float] | list[str]) -> tuple[tuple[str, ...], list[int]]:
    names, numbers = InlineTable(InlineData(x=[[0.0]] * len(y), y=y)).classes
    return names, numbers.tolist()


def test_classes_are_the_sorted_distinct_values() -> None:
    assert classes_of([10.0, 2.0, 10.0, -0.0, 0.0, 0.25]) == (("0", "0.25", "2", "10"), [3, 2, 3, 0, 0, 1])
    assert classes_of(["b", "a", "B", "a\0"]) == (("B", "a", "a\0", "b"), [3, 1, 0, 2])
    assert classes_of([1e16, 0.1])[0] == ("0.1", "1e+16")


def test_the_worker_sees_the_same_classes_and_offsets() -> None:
    changes = {"data__offset": [0.5] * 12, "training__class_weights": {"b": 2.0}}
    spec = parsed(of("logistic", AB, **changes))
    data = encode_data(spec.problem())
    described = describe(spec, data)
    assert described["data"]["classes"] == ["a", "b"]
    task = work(json.dumps(described).encode(), data)
    assert task.plan == spec.plan()
    assert task.problem.classes == ("a", "b")
    assert task.problem.y.tolist() == [0.0, 1.0] * 6
    assert task.problem.offset is not None
    assert task.problem.offset.tolist() == [0.5] * 12
    assert work(json.dumps(described).encode(), b"").problem.classes == ("a", "b")


def test_hyperparameters_of_classes_have_their_names() -> None:
    spec = parsed(of("multinomial", ["x", "y", "z"] * 4, training__penalty={"kind": "per_class"}))
    description = json.dumps(describe(spec, encode_data(spec.problem()))).encode()
    assert hyperparameter_names(description) == ("penalty[x]", "penalty[y]", "penalty[z]")


@pytest.mark.parametrize(
    ("kind", "y", "loss"),
    [
        ("ridge", COUNTS, "squared_error"),
        ("logistic", AB, "log_loss"),
        ("multinomial", AB, "log_loss"),
        ("squared_hinge", AB, "smoothed_error"),
        ("poisson", COUNTS, "deviance"),
        ("gamma", [1, 2] * 6, "deviance"),
        ("huber", COUNTS, "huber"),
    ],
)
def test_the_loss_that_is_not_named_follows_from_training(kind: str, y: list[Any], loss: str) -> None:
    def stored(**changes: Any) -> dict[str, Any]:
        spec = parsed(of(kind, y, **changes))
        return describe(spec, encode_data(spec.problem()))

    silent, said = stored(), stored(selection={"kind": "k_fold", "loss": loss})
    assert silent["selection"]["loss"] == loss
    assert silent == said
    assert fingerprint(silent) == fingerprint(stored(selection={"kind": "k_fold", "loss": None}))


def test_the_default_of_huber_has_the_delta_of_training() -> None:
    spec = parsed(of("huber", COUNTS, training__delta=0.5))
    assert describe(spec, b"")["selection"]["loss"] == {"kind": "huber", "delta": 0.5}


FAULTS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "names for numbers": (of("huber", AB), "/data/y", "not_a_number", "use logistic or multinomial"),
    "names and a number": (of("logistic", [*AB[:11], 1]), "/data/y/11", "string_type", "valid string"),
    "a name among numbers": (of("logistic", [*([0, 1] * 5), 1, "a"]), "/data/y/11", "float_type", "valid number"),
    "three for two": (of("logistic", ["a", "b", "c"] * 4), "/data/y", "too_many_classes", "3 classes"),
    "three for a hinge": (of("squared_hinge", [1, 2, 3] * 4), "/data/y", "too_many_classes", "use multinomial"),
    "one class": (of("multinomial", ["a"] * 12), "/data/y", "one_class", "add rows of another"),
    "no row of another class": (of("multinomial", ["a"] * 11 + ["b"]), "/data/y/11", "single_row", "two are needed"),
    "a quantity": (
        document(training__kind="multinomial", data={"x": [[1.0]] * 101, "y": [float(i) for i in range(101)]}),
        "/data/y", "too_many_classes", "more than 100 different values; to predict a number, use ridge"),
    "unknown class": (
        of("logistic", AB, training__class_weights={"c": 2.0}),
        "/training/class_weights/c", "unknown_class", "its classes are 'a', 'b'"),
    "weight of no size": (
        of("logistic", AB, training__class_weights={"a": 0.0}),
        "/training/class_weights/a", "greater_than", "greater than 0"),
    "negative count": (of("poisson", [*COUNTS[:11], -1]), "/data/y/11", "out_of_range", "zero or more"),
    "amount of zero": (of("gamma", [1] * 3 + [0] + [1] * 8), "/data/y/3", "out_of_range", "drop or shift"),
    "offset for ridge": (
        document(data__offset=[0.0] * 12), "/data/offset", "does_not_fit", "subtract it from the target"),
    "offset for all classes": (
        of("multinomial", AB, data__offset=[0.0] * 12), "/data/offset", "does_not_fit", "same for every class"),
    "short offset": (of("poisson", COUNTS, data__offset=[0.0]), "/data/offset", "length", "1 entries for 12 rows"),
    "huge offset": (
        of("poisson", COUNTS, data__offset=[0.0] * 11 + [1e200]), "/data/offset/11", "too_large", "rescale"),
    "sweep": (
        of("logistic", AB, hypergradient__kind="cholesky_backprop"),
        "/hypergradient/kind", "does_not_fit", "use implicit"),
    "exact leave-one-out": (
        of("logistic", AB, selection={"kind": "leave_one_out"}),
        "/selection/kind", "does_not_fit", "k_fold or approximate_leave_one_out"),
    "exact evidence": (
        of("poisson", COUNTS, selection={"kind": "evidence"}),
        "/selection/kind", "does_not_fit", "k_fold or laplace_evidence"),
    "loss of numbers": (
        of("logistic", AB, selection={"kind": "k_fold", "loss": "squared_error"}),
        "/selection/loss", "does_not_fit", "use one of log_loss, brier"),
    "loss of classes": (
        document(selection={"kind": "k_fold", "loss": "log_loss"}),
        "/selection/loss", "does_not_fit", "use squared_error"),
    "strata of numbers": (
        of("huber", COUNTS, selection={"kind": "stratified_k_fold"}), "/selection", "does_not_fit", "use k_fold"),
    "penalty of classes": (
        document(training__penalty={"kind": "per_class"}), "/training/penalty/kind", "unknown_kind", "per_feature"),
    "splines of classes": (
        of("multinomial", AB, training__splines=[{"feature": "x0"}]),
        "/training/splines", "does_not_fit", "takes no splines"),
    "a class that is never trained on": (
        of("logistic", ["a"] * 6 + ["b"] * 6, selection={"kind": "walk_forward", "initial": 4, "horizon": 4}),
        "/selection", "does_not_fit", "class 'b' has no row to train on in split 1 of 2; use stratified_k_fold"),
    "nothing to rank": (
        of("logistic", AB, selection={"kind": "holdout", "validation_rows": [0, 2], "loss": "smoothed_auc"}),
        "/selection", "does_not_fit", "all validation rows are of class 0"),
    "too few for strata": (
        of("logistic", ["a"] * 3 + ["b"] * 9, selection={"kind": "stratified_k_fold"}),
        "/selection", "does_not_fit", "class 'a' has 3 rows, too few for 5 folds"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_what_does_not_fit_is_told_with_place_and_remedy(name: str) -> None:
    spec, pointer, code, words = FAULTS[name]
    found = faults_of(json.dumps(spec).encode())
    assert [(fault.pointer, fault.code) for fault in found] == [(pointer, code)], found
    assert words.lower() in found[0].detail.lower()


def test_a_long_target_is_read_fast_enough_to_be_counted() -> None:
    y = np.arange(100_000.0).tolist()
    spec = parsed(document(data={"x": [[value] for value in y], "y": y}))
    assert spec.problem().y.tolist() == y
