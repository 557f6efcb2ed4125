"""A spec from the request to the worker: defaults, what is stored, what identifies it."""

from __future__ import annotations

import json
from dataclasses import MISSING, Field, fields, replace
from typing import Any

import numpy as np
import orjson
import pytest

from service.catalog import FAMILIES, catalog
from tests.contract.specs import document, own_criteria, parsed
from worker.contract.description import describe, fingerprint, hyperparameter_names, work
from worker.contract.inline import encode_data
from worker.contract.spec import JobSpec
from worker.core.family import kind_of, members
from worker.core.kernels import Linear, Matern, Periodic, Rbf
from worker.core.penalties import Difference
from worker.core.training import Quadratic

EVERY_KIND = [(name, member) for name, family in FAMILIES.items() for member in members(family)]
REQUIRED: dict[str, dict[str, Any]] = {
    "per_group": {"groups": {"first": ["x0"], "rest": ["x1", "x2"]}},
    "given_folds": {"fold_of_row": [0, 1, 2] * 4},
    "group_k_fold": {"group_of_row": [7, 7, 8, 9, 10, 11] * 2},
    "stratified_group_k_fold": {"group_of_row": list(range(12)), "folds": 3},
    "walk_forward": {"initial": 6},
    "quadratic_forms": {"forms": [{"kind": "difference", "name": "smooth"}]},
    "identity": {"name": "all"},
    "difference": {"name": "smooth"},
    "matrix": {"name": "own", "matrix": [[2.0, -1.0, 0.0], [-1.0, 2.0, 0.0], [0.0, 0.0, 0.0]]},
    "product": {"factors": [{"kind": "periodic"}, {"kind": "rbf"}]},
    "sum": {"terms": [{"kind": "linear"}, {"kind": "matern"}]},
    "banded": {"name": "own", "bands": [[2.0, 2.0, 2.0], [-1.0, -1.0]]},
}


TARGETS: dict[str, list[Any]] = {
    "logistic": ["no", "yes"] * 6,
    "squared_hinge": [0, 1] * 6,
    "kernel_svm": ["no", "yes"] * 6,
    "kernel_logistic": [0, 1] * 6,
    "multinomial": ["a", "b", "c"] * 4,
    "poisson": [0, 1, 2, 5] * 3,
    "gamma": [0.5, 1, 2, 5] * 3,
}
FITTING = {
    "per_class": "multinomial",
    "per_coefficient": "multinomial",
    "stratified_k_fold": "logistic",
    "stratified_group_k_fold": "logistic",
    "approximate_leave_one_out": "poisson",
    "laplace_evidence": "logistic",
    "log_loss": "logistic",
    "brier": "logistic",
    "deviance": "poisson",
    "smoothed_error": "squared_hinge",
    "smoothed_auc": "logistic",
    "smoothed_f": "logistic",
    "platt_log_loss": "kernel_svm",
}


def required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def as_tuples(value: Any) -> Any:
    """What JSON says, as the core's records hold it."""
    if isinstance(value, dict) and "kind" in value:
        settings = {name: as_tuples(item) for name, item in value.items() if name != "kind"}
        kinds = {"difference": Difference, "periodic": Periodic, "rbf": Rbf, "linear": Linear, "matern": Matern}
        return kinds[value["kind"]](**settings)
    if isinstance(value, dict):
        return {name: as_tuples(item) for name, item in value.items()}
    return tuple(as_tuples(item) for item in value) if isinstance(value, list) else value


def stored(given: dict[str, Any]) -> dict[str, Any]:
    spec = parsed(given)
    return describe(spec, encode_data(spec.problem()))


def print_of(**changes: Any) -> str:
    return fingerprint(stored(document(**changes)))


def test_every_default() -> None:
    filled = stored(document())
    digest = filled["data"].pop("sha256")
    assert len(digest) == 64
    assert filled == {
        "data": {"rows": 12, "columns": 3, "features": ["x0", "x1", "x2"]},
        "training": {
            "kind": "ridge",
            "intercept": True,
            "standardize": True,
            "penalty": {"kind": "shared", "initial": None, "lower": None, "upper": None},
            "weights": None,
            "splines": [],
        },
        "selection": {
            "kind": "k_fold",
            "folds": 5,
            "seed": 0,
            "shuffle": True,
            "loss": "squared_error",
            "split_weights": None,
        },
        "hypergradient": {"kind": "auto"},
        "outer": {"kind": "auto", "max_iterations": None, "tolerance": 1e-6, "starts": 1},
        "test_fraction": 0.0,
        "nested": None,
        "spread_by": "auto",
        "seed": 0,
        "limits": {"seconds": 600.0, "evaluations": None, "target_value": None},
        "warm_start": None,
        "labels": {},
        "webhook": None,
    }


def test_saying_every_default_changes_nothing() -> None:
    filled = stored(document())
    filled["data"] = document()["data"]
    assert stored(filled) == stored(document())


def test_the_worker_sees_the_same_plan_and_the_same_bits() -> None:
    values = [[0.1, 1e-300, -0.0], [1 / 3, 5e-324, 1e150], [2.0, -1e-7, 123456789.123456789], [4, 5, 6]]
    given = document(
        data={"x": values, "y": [0.1, 0.2, 0.30000000000000004, 4], "features": ["größe", "b", 'c"\\/']},
        training__penalty={"kind": "per_feature", "initial": 0.1, "lower": 1e-300, "upper": 1e300},
        selection={"kind": "holdout", "validation_rows": [3, 1], "seed": 2**63 - 1},
        hypergradient__kind="cholesky_backprop",
        outer={"kind": "lbfgs", "starts": 3, "tolerance": 1e-9, "max_iterations": 7},
        seed=2**63 - 1,
        limits={"evaluations": 2**53 - 1, "target_value": -0.1, "seconds": 0.5},
    )
    spec = parsed(given)
    data = encode_data(spec.problem())
    description = orjson.dumps(describe(spec, data))
    task = work(description, data)
    assert task.plan == spec.plan()
    assert task.problem.features == spec.problem().features == ("größe", "b", 'c"\\/')
    assert task.problem.X.tobytes() == np.array(values, float).tobytes()
    assert task.problem.y.tobytes() == np.array(given["data"]["y"], float).tobytes()
    assert encode_data(task.problem) == data
    assert hyperparameter_names(description) == ("penalty[größe]", "penalty[b]", 'penalty[c"\\/]')


def test_the_fingerprint_is_that_of_the_numbers() -> None:
    same = [
        {"labels": {"team": "a"}},
        {"limits__seconds": 5.0},
        {"webhook": None},
        {"training__intercept": True},
        {"data__features": ["x0", "x1", "x2"]},
    ]
    changed_y = document()["data"]["y"]
    changed_y[3] = np.nextafter(changed_y[3], np.inf)
    other = [
        {"data__y": changed_y},
        {"data__features": ["a", "b", "c"]},
        {"seed": 1},
        {"test_fraction": 0.25},
        {"training__intercept": False},
        {"training__penalty": {"kind": "shared", "initial": 2.0}},
        {"selection": {"kind": "k_fold", "seed": 1}},
        {"hypergradient__kind": "implicit"},
        {"outer__kind": "newton"},
        {"outer": {"kind": "auto", "tolerance": 1e-7}},
        {"limits__evaluations": 10},
        {"limits__target_value": 0.0},
    ]
    base = print_of()
    assert {print_of(**changes) for changes in same} == {base}
    assert len({base, *(print_of(**changes) for changes in other)}) == 1 + len(other)


def in_place(name: str, member: type) -> dict[str, Any]:
    """A spec that names an algorithm and says no more about it than it must."""
    part = {"kind": kind_of(member), **REQUIRED.get(kind_of(member), {})}
    if kind_of(member) == "quadratic":
        return own_criteria()
    if name == "training":
        return document(training=part, data__y=TARGETS.get(kind_of(member), document()["data"]["y"]))
    if kind_of(member) in FITTING:
        training, part = FITTING[kind_of(member)], {"kind": kind_of(member)}
        kind = "k_fold" if training == "poisson" else "stratified_k_fold"
        rest = {"training__penalty": part} if name == "penalty" else {"selection": {"kind": kind, "loss": part}}
        if name == "selection":
            rest = {"selection": part | REQUIRED.get(kind_of(member), {})}
        return document(training={"kind": training}, data__y=TARGETS[training], **rest)
    places = {
        "penalty": {"training__penalty": part},
        "weights": {"training__weights": part},
        "form": {"training__penalty": {"kind": "quadratic_forms", "forms": [part]}},
        "kernel": {"training": {"kind": "kernel_ridge", "kernel": part}},
        "widths": {"training": {"kind": "kernel_ridge", "kernel": {"kind": "rbf", "widths": part}}},
        "loss": {"selection": {"kind": "k_fold", "loss": part}},
    }
    data = {"data__source": ["old", "new"] * 6} if kind_of(member) == "per_source" else {}
    return document(**places.get(name, {name: part}), **data)


def chosen(name: str, spec: JobSpec) -> Any:
    """Where `in_place` put it."""
    if isinstance(spec.training, Quadratic) and name == "training":
        return replace(spec.training, multipliers=None)  # they are written out
    if name in {"penalty", "weights"}:
        return getattr(spec.training, name)
    if name in {"kernel", "widths"}:
        return spec.training.kernel if name == "kernel" else spec.training.kernel.widths
    if name == "form":
        return spec.training.penalty.forms[0]
    return spec.selection.loss if name == "loss" else getattr(spec, name)


@pytest.mark.parametrize(("name", "member"), EVERY_KIND, ids=lambda value: str(getattr(value, "__name__", value)))
def test_every_kind_of_every_family(name: str, member: type) -> None:
    kind = kind_of(member)
    spec = parsed(in_place(name, member))
    assert type(chosen(name, spec)) is member
    made = member(**as_tuples(REQUIRED.get(kind, {})))
    if getattr(made, "loss", ...) is None:
        made = replace(made, loss=spec.training.score(None))
    assert chosen(name, spec) == made
    data = encode_data(spec.problem())
    assert work(orjson.dumps(describe(spec, data)), data).plan == spec.plan()

    (entry,) = [entry for entry in catalog()[name] if entry["kind"] == kind]
    assert len(entry["help"]) > 40
    assert set(entry["json_schema"]["properties"]) == {field.name for field in fields(member)}
    assert entry["json_schema"]["additionalProperties"] is False
    needed = {field.name for field in fields(member) if required(field)}
    assert set(entry["json_schema"]["required"]) == {"kind", *needed}


def test_every_required_setting_is_listed_above() -> None:
    needing = [member for _, member in EVERY_KIND if any(required(field) for field in fields(member))]
    assert {kind_of(member) for member in needing} <= set(REQUIRED)


def test_numbers_may_be_written_as_integers() -> None:
    spec = parsed(document(training__penalty={"kind": "shared", "initial": 2, "lower": 1, "upper": 3}, test_fraction=0))
    assert spec.training.penalty.initial == 2.0
    assert json.loads(json.dumps(stored(document())))["seed"] == 0


def test_the_spec_alone_is_a_complete_description() -> None:
    """Nothing but data and training has to be said, and the schema says so, too."""
    schema = JobSpec.model_json_schema()
    assert schema["required"] == ["data", "training"]
