"""Specs of kernel machines: what does not fit, and what is stored."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.specs import document, faults_of, parsed
from worker.contract.description import describe, hyperparameter_names, work
from worker.contract.feature_columns import FeatureColumns
from worker.contract.grouping import grouped
from worker.contract.inline import encode_data
from worker.contract.spec import JobSpec
from worker.core.training import KernelRidge

AB = ["a", "b"] * 6


def of(kind: str, **changes: Any) -> dict[str, Any]:
    classes = {} if kind == "kernel_ridge" else {"data__y": AB}
    return document(training__kind=kind, **{**classes, **changes})


def test_names_of_hyperparameters() -> None:
    terms = [
        {"kind": "rbf", "widths": {"kind": "per_group", "groups": {"g": ["x0", "x2"], "h": ["x1"]}}},
        {"kind": "product", "name": "cycle", "factors": [{"kind": "periodic", "features": ["x1"]}, {"kind": "linear"}]},
        {"kind": "rational_quadratic", "features": ["x1"], "widths": "per_feature"},
    ]
    spec = parsed(of("kernel_ridge", training__kernel={"kind": "sum", "terms": terms}))
    data = encode_data(spec.problem())
    description = json.dumps(describe(spec, data)).encode()
    assert work(description, data).plan == spec.plan()
    assert hyperparameter_names(description) == (
        "penalty",
        "rbf.width[g]",
        "rbf.width[h]",
        "cycle.periodic.width",
        "cycle.periodic.period",
        "rational_quadratic.width[x1]",
        "rational_quadratic.alpha",
        "cycle.weight",
        "rational_quadratic.weight",
    )


def test_columns_and_patterns_of_a_dataset_are_written_out() -> None:
    kernel = {
        "kind": "sum",
        "terms": [
            {"kind": "rbf", "widths": {"kind": "per_group", "groups": {"size": ["width", "h*"], "kind": ["colour"]}}},
            {"kind": "linear", "features": ["colour", "width"]},
        ],
    }
    training = JobSpec.model_validate_json(json.dumps(of("kernel_ridge", training__kernel=kernel))).training
    assert isinstance(training, KernelRidge)
    columns = {"width": ("width",), "height": ("height",), "colour": ("colour=red", "colour=blue")}
    written: Any = grouped(training, FeatureColumns(columns.items()))
    rbf, linear = written.kernel.terms
    assert rbf.widths.groups == {"size": ("width", "height"), "kind": ("colour=red", "colour=blue")}
    assert linear.features == ("colour=red", "colour=blue", "width")
    assert len(written.kernel.over(("width", "height", "colour=red", "colour=blue")).box.names) == 3


def test_a_column_stands_for_its_features_but_those_named_themselves() -> None:
    groups = {"level": ["size"], "gone": ["size=missing"], "kind": ["colour"]}
    penalty = {"kind": "per_group", "groups": groups}
    spec = document(training={"kind": "ridge", "penalty": penalty})
    training = JobSpec.model_validate_json(json.dumps(spec)).training
    columns = {"size": ("size", "size=missing"), "colour": ("colour", "colour=missing")}
    written: Any = grouped(training, FeatureColumns(columns.items()))
    assert written.penalty.groups == {
        "level": ("size",),
        "gone": ("size=missing",),
        "kind": ("colour", "colour=missing"),
    }


FAULTS: list[tuple[dict[str, Any], str, str]] = [
    (of("kernel_ridge", training__kernel={"kind": "rbf", "features": ["zz"]}), "/training/kernel", "zz"),
    (of("kernel_ridge", training__kernel={"kind": "sum", "terms": [{"kind": "rbf"}] * 2}), "/training/kernel", "rbf"),
    (of("kernel_ridge", training__kernel={"kind": "sum", "terms": [{"kind": "rbf"}]}), "/training/kernel/terms", "2"),
    (of("kernel_ridge", training__kernel="gauss"), "/training/kernel", "rbf"),
    (of("kernel_ridge", training__kernel="sum"), "/training/kernel", "settings without a default"),
    (
        of("kernel_ridge", training__kernel={"kind": "rbf", "widths": "per_group"}),
        "/training/kernel/widths",
        "'per_group' has",
    ),
    (
        of("kernel_logistic", selection={"kind": "approximate_leave_one_out"}),
        "/selection/kind",
        "with kernel_logistic use k_fold",
    ),
    (
        of("kernel_ridge", training__kernel={"kind": "rbf", "widths": {"kind": "per_feature", "lower": 3, "upper": 2}}),
        "/training/kernel/widths",
        "below upper",
    ),
    (of("kernel_ridge", training__kernel={"kind": "matern", "nu": "2"}), "/training/kernel/nu", "5/2"),
    (of("kernel_ridge", data__y=AB), "/data/y", "names"),
    (of("kernel_svm", data__y=["a", "b", "c"] * 4), "/data/y", "two"),
    (of("kernel_svm", data__y=["a"] * 12), "/data/y", "one class"),
    (of("kernel_svm", selection={"kind": "k_fold", "loss": "log_loss"}), "/selection/loss", "platt_log_loss"),
    (of("kernel_svm", selection={"kind": "leave_one_out"}), "/selection/kind", "kernel_ridge"),
    (of("kernel_logistic", selection={"kind": "evidence"}), "/selection/kind", "kernel_ridge"),
    (of("kernel_ridge", selection={"kind": "generalized_cv"}), "/selection/kind", "leave_one_out"),
    (of("kernel_logistic", selection={"kind": "laplace_evidence"}), "/selection/kind", "is for logistic"),
    (
        of("kernel_ridge", selection={"kind": "evidence"}, training__landmarks={"count": 5}),
        "/training/landmarks",
        "exact kernel matrix",
    ),
    (of("kernel_ridge", outer={"kind": "newton"}), "/outer/kind", "lbfgs"),
    (
        of("kernel_ridge", selection={"kind": "leave_one_out"}, data__weights=[0] + [1] * 11, data__scoring=[1] * 12),
        "/data/scoring",
        "training rows only",
    ),
    (of("kernel_ridge", hypergradient={"kind": "cholesky_backprop"}), "/hypergradient/kind", "implicit"),
    (of("kernel_ridge", data__offset=[0.0] * 12), "/data/offset", "offset"),
    (of("kernel_svm", training__class_weights={"q": 2.0}), "/training/class_weights/q", "classes are"),
]


@pytest.mark.parametrize(("given", "pointer", "told"), FAULTS)
def test_what_does_not_fit(given: dict[str, Any], pointer: str, told: str) -> None:
    (found,) = faults_of(json.dumps(given).encode())
    assert found.pointer == pointer
    assert told in found.detail


def test_too_many_rows_for_the_exact_matrix() -> None:
    rows = {"x": [[float(i), 1.0] for i in range(10_001)], "y": [float(i % 7) for i in range(10_001)]}
    given = {"data": rows, "training": {"kind": "kernel_ridge"}}
    (found,) = faults_of(json.dumps(given).encode())
    assert (found.pointer, found.code) == ("/training/landmarks", "too_large")
    assert "4 GB" in found.detail
    assert not faults_of(json.dumps(given | {"training": {"kind": "kernel_ridge", "landmarks": {}}}).encode())
