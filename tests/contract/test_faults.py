"""What a caller is told about a bad spec: the place, the kind, the remedy, and never the input itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.specs import document, faults_of, table
from worker.contract.faults import LONGEST_NAME, LONGEST_SENTENCE, MOST, MOST_LISTS, MOST_MEMBERS
from worker.contract.search_size import MOST_SPLINES
from worker.contract.spec import JobSpec
from worker.contract.spec_faults import faults

GROUPS: dict[str, Any] = {"kind": "per_group", "groups": {"a": ["x0"], "b": ["x1", "x2"]}}


def grouped(groups: Any) -> dict[str, Any]:
    return {"training__penalty": {"kind": "per_group", "groups": groups}}


def folds(*assignment: int) -> dict[str, Any]:
    return {"selection": {"kind": "given_folds", "fold_of_row": list(assignment)}}


def held_out(**settings: Any) -> dict[str, Any]:
    return {"selection": {"kind": "holdout", **settings}}


def k_fold(**settings: Any) -> dict[str, Any]:
    return {"selection": {"kind": "k_fold", **settings}}


def boxed(**bounds: Any) -> dict[str, Any]:
    return {"training__penalty": {"kind": "shared", **bounds}}


def splined(*splines: Any) -> dict[str, Any]:
    return {"training__splines": list(splines)}


WIDE = table()["x"]
INDEFINITE = [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
FAULTS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    # name: (changes to a valid spec, pointer, code, part of the sentence)
    "ragged": ({"data__x": [*WIDE[:5], [1.0], *WIDE[6:]]}, "/data/x/5", "ragged", "1 values, and the first row has 3"),
    "string in x": ({"data__x": [["1", 2.0, 3.0]] * 12}, "/data/x/0/0", "float_type", "valid number"),
    "boolean in x": ({"data__x": [[1.0, True, 3.0]] * 12}, "/data/x/0/1", "float_type", "valid number"),
    "null in x": ({"data__x": [[1.0, 2.0, None]] * 12}, "/data/x/0/2", "float_type", "valid number"),
    "number for a row": ({"data__x": [1.0] * 12}, "/data/x/0", "list_type", "valid array"),
    "object for x": ({"data__x": {"0": [1.0]}}, "/data/x", "list_type", "valid array"),
    "string in y": ({"data__y": ["1"] * 12}, "/data/y", "not_a_number", "ridge predicts numbers; send numbers"),
    "boolean in y": ({"data__y": [1.0, False] * 6}, "/data/y/1", "float_type", "valid number"),
    "null in y": ({"data__y": [None] * 12}, "/data/y/0", "float_type", "valid number"),
    "short y": ({"data__y": [1.0] * 11}, "/data/y", "length", "11 targets for 12 rows"),
    "long y": ({"data__y": [1.0] * 13}, "/data/y", "length", "13 targets for 12 rows"),
    "no rows": ({"data": {"x": [], "y": []}}, "/data/x", "empty", "no rows"),
    "empty rows": ({"data__x": [[]] * 12}, "/data/x/0", "empty", "no columns"),
    "one row": ({"data": {"x": [[1.0]], "y": [1.0]}}, "/data/x", "too_few", "At least 2 rows"),
    "overflow in x": ({"data__x": [*WIDE[:4], [1.0, -1e151, 1.0], *WIDE[5:]]}, "/data/x/4/1", "too_large", "rescale"),
    "overflow in y": ({"data__y": [1.0] * 11 + [1e300]}, "/data/y/11", "too_large", "rescale"),
    "duplicate names": ({"data__features": ["a", "b", "a"]}, "/data/features/2", "duplicate", "Column 0 has the name"),
    "too few names": ({"data__features": ["a", "b"]}, "/data/features", "length", "2 names for 3 columns"),
    "too many names": ({"data__features": ["a", "b", "c", "d"]}, "/data/features", "length", "4 names for 3 columns"),
    "empty name": ({"data__features": ["a", "", "c"]}, "/data/features/1", "string_too_short", "at least 1"),
    "long name": ({"data__features": ["a", "b" * 201, "c"]}, "/data/features/1", "string_too_long", "at most 200"),
    "number for a name": ({"data__features": ["a", 1, "c"]}, "/data/features/1", "string_type", "string"),
    "unknown field": ({"trainig": {}}, "/trainig", "unknown_field", "'trainig' here (did you mean 'training'?)"),
    "unknown in data": ({"data__feature": []}, "/data/feature", "unknown_field", "did you mean 'features'"),
    "unknown in training": (
        {"training__standardise": True}, "/training/standardise", "unknown_field", "did you mean 'standardize'"),
    "unknown named like its kind": ({"training__ridge": 1}, "/training/ridge", "unknown_field", "no field 'ridge'"),
    "unknown in the penalty": (boxed(inital=1.0), "/training/penalty/inital", "unknown_field", "mean 'initial'"),
    "unknown in limits": ({"limits": {"second": 1}}, "/limits/second", "unknown_field", "did you mean 'seconds'"),
    "unknown and far": ({"zzzzzzzz": 1}, "/zzzzzzzz", "unknown_field", "There is no field 'zzzzzzzz' here."),
    "slash and tilde": ({"a/b~c": 1}, "/a~1b~0c", "unknown_field", "no field 'a/b~c'"),
    "unknown kind": ({"training": {"kind": "rigde"}}, "/training/kind", "unknown_kind", "did you mean 'ridge'"),
    "unknown penalty": (boxed(kind="per_feat"), "/training/penalty/kind", "unknown_kind", "known: shared, per_feature"),
    "unknown outer": ({"outer__kind": "newtn"}, "/outer/kind", "unknown_kind", "did you mean 'newton'"),
    "missing kind": ({"training": {}}, "/training/kind", "missing", "required; known: "),
    "missing kind of selection": ({"selection": {"folds": 3}}, "/selection/kind", "missing", "known: "),
    "empty kind": ({"outer__kind": ""}, "/outer/kind", "missing", "required"),
    "list for a kind": ({"training": {"kind": ["ridge"]}}, "/training/kind", "unknown_kind", "known: "),
    "object for a kind": ({"training": {"kind": {"a": 1}}}, "/training/kind", "unknown_kind", "known: "),
    "null for a kind": ({"training": {"kind": None}}, "/training/kind", "unknown_kind", "known: "),
    "string for a family": ({"training": "ridge"}, "/training", "dict_type", "object"),
    "null for a family": ({"training": None}, "/training", "dict_type", "object"),
    "bounds reversed": (
        boxed(lower=2.0, upper=1.0, initial=1.5), "/training/penalty", "value_error", "(2) must be below"),
    "bounds equal": (boxed(lower=1.0, upper=1.0), "/training/penalty", "value_error", "must be below upper (1)"),
    "initial outside": (boxed(initial=1e7, upper=1e6), "/training/penalty", "value_error", "(1e+07) must lie between"),
    "bound of zero": (boxed(lower=0), "/training/penalty/lower", "greater_than", "greater than 0"),
    "string for a bound": (boxed(lower="1"), "/training/penalty/lower", "float_type", "valid number"),
    "number for a flag": ({"training__intercept": 1}, "/training/intercept", "bool_type", "boolean"),
    "weights of no kind": ({"training__weights": {}}, "/training/weights/kind", "missing", "known: exponential_time"),
    "weights of two sources": (
        {"training__weights": {"kind": "per_source"}}, "/training/weights", "does_not_fit", "need a source of each"),
    "indefinite form": (
        boxed(kind="quadratic_forms", forms=[{"kind": "matrix", "name": "m", "matrix": INDEFINITE}]),
        "/training/penalty", "does_not_fit", "not positive semidefinite"),
    "unknown form": (
        boxed(kind="quadratic_forms", forms=[{"kind": "diference", "name": "m"}]),
        "/training/penalty/forms/0/kind", "unknown_kind", "did you mean 'difference'?"),
    "unknown field of a form": (
        boxed(kind="quadratic_forms", forms=[{"kind": "difference", "name": "m", "ordr": 2}]),
        "/training/penalty/forms/0/ordr", "unknown_field", "did you mean 'order'?"),
    "unknown field of a loss": (
        k_fold(loss={"kind": "huber", "dleta": 1.0}), "/selection/loss/dleta", "unknown_field", "mean 'delta'?"),
    "too many split weights": (k_fold(split_weights=[1.0]), "/selection", "does_not_fit", "there are 5 splits"),
    "unknown column of a group": (grouped({"a": ["x9"]}), "/training/penalty", "does_not_fit", "feature 'x9', which"),
    "in two groups of a kind": (
        {"training__penalty": {"kind": "per_feature", "groups": {"a": ["x0", "x1"], "b": ["x1"]}}},
        "/training/penalty", "does_not_fit", "'x1' is in two groups: a penalty has one centre"),
    "unknown in a group of a kind": (
        {"training__penalty": {"kind": "per_feature", "groups": {"a": ["x0", "x9"]}}},
        "/training/penalty", "does_not_fit", "'x9'"),
    "twice in a group": (
        grouped({"a": ["x0", "x1", "x0"], "b": ["x2"]}), "/training/penalty", "does_not_fit", "feature 'x0' twice"),
    "in no group": (grouped({"a": ["x0"]}), "/training/penalty", "does_not_fit", "in none: 'x1', 'x2'"),
    "spline of no feature": (splined({"feature": "x9"}), "/training/splines", "does_not_fit", "feature 'x9', which"),
    "two splines": (
        splined({"feature": "x0"}, {"feature": "x0"}), "/training/splines", "does_not_fit", "two splines of the"),
    "few splines": (
        splined({"feature": "x0", "basis": 3}), "/training/splines/0", "value_error", "at least 4 for degree 3"),
    "too many splines": (
        splined(*({"feature": "x0", "basis": 1000} for _ in range(11))),
        "/training/splines", "does_not_fit", "11000 basis functions in all"),
    "wide spline": (
        splined({"feature": "x0", "lower": -1.7e308, "upper": 1.7e308}), "/training/splines/0", "does_not_fit", "wide"),
    "reversed spline": (
        splined({"feature": "x0", "lower": 2.0, "upper": 1.0}), "/training/splines/0", "value_error", "(2) must be"),
    "unknown field of a spline": (
        splined({"feature": "x0", "bases": 9}), "/training/splines/0/bases", "unknown_field", "did you mean 'basis'"),
    "spline of a constant": (
        {"data__x": [[1.0, float(i), 2.0] for i in range(12)], **splined({"feature": "x0"})},
        "/training/splines/0", "does_not_fit", "'x0' is constant on the rows used"),
    "group with a spline": (
        grouped({"a": ["x0", "x1", "x2"]}) | splined({"feature": "x0"}),
        "/training/penalty", "does_not_fit", "splines have penalties of their own"),
    "no groups": (grouped({}), "/training/penalty/groups", "too_short", "at least 1"),
    "group of numbers": (grouped({"a": [0, 1]}), "/training/penalty/groups/a/0", "string_type", "string"),
    "more folds than rows": (k_fold(folds=13), "/selection", "does_not_fit", "13 folds need"),
    "one fold": (k_fold(folds=1), "/selection/folds", "greater_than_equal", "equal to 2"),
    "boolean for folds": (k_fold(folds=True), "/selection/folds", "int_type", "integer"),
    "half a fold": (k_fold(folds=2.5), "/selection/folds", "int_type", "integer"),
    "huge number of folds": (
        k_fold(folds=10**30), "/selection/folds", "less_than_equal", "1000"),
    "huge seed": ({"seed": 2**63}, "/seed", "less_than", "less than"),
    "negative seed": ({"seed": -1}, "/seed", "greater_than_equal", "equal to 0"),
    "huge seed of folds": (k_fold(seed=10**25), "/selection/seed", "less_than", "less than"),
    "unknown loss": (k_fold(loss="mse"), "/selection/loss", "unknown_kind", "known: squared_error"),
    "short fold_of_row": (folds(0, 1, 0), "/selection", "does_not_fit", "fold_of_row has 3 entries"),
    "gap in fold_of_row": (folds(*[0, 2] * 6), "/selection", "does_not_fit", "Fold 1 has no rows"),
    "one given fold": (folds(*[0] * 12), "/selection", "does_not_fit", "at least two folds"),
    "huge given fold": (folds(*[0, 10**25] * 6), "/selection/fold_of_row/1", "less_than", "less than 1000"),
    "large given fold": (folds(*[0, 10**12] * 6), "/selection/fold_of_row/1", "less_than", "less than 1000"),
    "negative given fold": (folds(*[0, -1] * 6), "/selection/fold_of_row/1", "greater_than_equal", "equal to 0"),
    "row out of range": (held_out(validation_rows=[12]), "/selection", "does_not_fit", "last row is 11"),
    "huge row": (held_out(validation_rows=[10**25]), "/selection/validation_rows/0", "less_than", "less than"),
    "row twice": (held_out(validation_rows=[1, 1]), "/selection", "does_not_fit", "a row twice"),
    "all rows held out": (held_out(validation_rows=[*range(12)]), "/selection", "does_not_fit", "row is left to train"),
    "no rows held out": (held_out(validation_rows=[]), "/selection/validation_rows", "too_short", "at least 1"),
    "fraction too small": (held_out(fraction=0.01), "/selection", "does_not_fit", "holds out no row"),
    "fraction of one": (held_out(fraction=1.0), "/selection/fraction", "less_than", "less than 1"),
    "test part too small": ({"test_fraction": 0.01}, "/test_fraction", "does_not_fit", "holds out no row"),
    "test part of one": ({"test_fraction": 1.0}, "/test_fraction", "less_than", "less than 1"),
    "test part leaves too little": ({"test_fraction": 0.99}, "/selection", "does_not_fit", "there are 0"),
    "test part and its rows": (
        {"test_fraction": 0.5, **held_out(validation_rows=list(range(11)))}, "/selection", "does_not_fit", "test part"),
    "tolerance of zero": ({"outer": {"kind": "newton", "tolerance": 0}}, "/outer/tolerance", "greater_than", "than 0"),
    "too many starts": ({"outer": {"kind": "newton", "starts": 1001}}, "/outer/starts", "less_than_equal", "1000"),
    "no time": ({"limits": {"seconds": 0}}, "/limits/seconds", "greater_than", "greater than 0"),
    "too much time": ({"limits": {"seconds": 1e9}}, "/limits/seconds", "less_than_equal", "604800"),
    "no evaluations": ({"limits": {"evaluations": 0}}, "/limits/evaluations", "greater_than_equal", "equal to 1"),
    "huge evaluations": ({"limits": {"evaluations": 10**25}}, "/limits/evaluations", "less_than", "less than"),
    "reserved warm start": ({"warm_start": {"job_id": "job_1"}}, "/warm_start", "none_required", "null"),
    "reserved webhook": ({"webhook": {"url": "https://x"}}, "/webhook", "none_required", "null"),
    "bad label": ({"labels": {"bad key!": "x"}}, "/labels/bad key!", "string_pattern_mismatch", "pattern"),
    "label that is an object": ({"labels": {"a": {}}}, "/labels/a", "string_type", "string"),
    "label named kind": ({"labels": {"kind": "a", "a": 1}}, "/labels/a", "string_type", "string"),
    "long label": ({"labels": {"a": "b" * 201}}, "/labels/a", "string_too_long", "at most 200"),
    "many labels": ({"labels": {f"a{i}": "" for i in range(33)}}, "/labels", "too_long", "at most 32"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_spec_is_told_where_and_what_to_do(name: str) -> None:
    changes, pointer, code, words = FAULTS[name]
    found = faults_of(json.dumps(document(**changes)).encode())
    assert (found[0].pointer, found[0].code) == (pointer, code)
    assert words in found[0].detail
    assert found[0].detail.endswith(".")
    assert len(found) == 1


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" + "0" * 400])
@pytest.mark.parametrize("place", ["x", "y", "limit", "bound"])
def test_only_finite_numbers(number: str, place: str) -> None:
    text = json.dumps(
        document(limits={"target_value": 4444.5}, training__penalty={"kind": "shared", "lower": 3333.5, "initial": 5e3})
    )
    first = repr(table()[place][0] if place == "y" else table()["x"][0][0])
    spot = {"x": first, "y": first, "limit": "4444.5", "bound": "3333.5"}[place]
    pointer = {
        "x": "/data/x/0/0",
        "y": "/data/y/0",
        "limit": "/limits/target_value",
        "bound": "/training/penalty/lower",
    }
    (fault,) = faults_of(text.replace(spot, number, 1).encode())
    assert fault.pointer == pointer[place]
    assert fault.code == "finite_number"


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"{", b"\xff\xfe{}", b"not json", b"{'data': 1}", b'{"data": 01}', b'{"a": 1}{"b": 2}',
        b"[1" + b"0" * 5_000 + b"]", b"[" * 100_000, b'{"data":' * 5_000,
        b'{"\\ud800": 1}', b'{"labels": {"a": "\\udfff"}}',
        '{"a": 1}'.encode("utf-16"), b"\x00",
    ],
    ids=lambda body: repr(body[:12]),
)  # fmt: skip
def test_a_body_that_is_no_json(body: bytes) -> None:
    (fault,) = faults_of(body)
    assert (fault.pointer, fault.code) == ("", "invalid_json")


@pytest.mark.parametrize("body", [b"[1]", b"null", b"1", b'"spec"', b"true", b"[]"])
def test_a_body_that_is_no_object(body: bytes) -> None:
    (fault,) = faults_of(body)
    assert (fault.pointer, fault.code) == ("", "model_type")


def test_what_is_required_is_named() -> None:
    assert [(fault.pointer, fault.code) for fault in faults_of(b"{}")] == [
        ("/data", "missing"),
        ("/training", "missing"),
    ]


def test_nothing_of_the_data_is_repeated() -> None:
    secret = "confidential-value-of-a-patient"
    given = document(data={"x": [[secret] * 50] * 50, "y": [secret] * 50, "features": [secret], "more": secret})
    found = faults_of(json.dumps({**given, "seed": secret, "limits": secret}).encode())
    assert len(found) == 4
    assert secret not in repr(found)


@pytest.mark.parametrize(
    "given",
    [
        document(data__x=[["a" * 1000] * 100] * 20),
        document(data__y=["a"] * 100_000),
        document(data__features=[1] * 100_000),
        document(selection={"kind": "given_folds", "fold_of_row": [-1] * 100_000}),
        document(**grouped({"g" * 100_000: ["zz" * 100_000]})),
        document(**grouped({"g": ["zz" * 100_000] * 2, "h": ["x0", "x1", "x2"]})),
        document(data__features=["a" * 199 + str(i) for i in range(3)], **grouped({"g": []})),
        {f"field {i}": 0 for i in range(5_000)},
        {f"field {i}": 0 for i in range(50_000)},
        document(training={f"field {i}": 0 for i in range(50_000)} | {"kind": "ridge"}),
        document(labels={f"label {i}": 0 for i in range(50_000)}),
        document(**{"u" * 1_000_000: 1}),
        document(training__kind="k" * 1_000_000),
        document(labels={"~" * 100_000: "x"}),
    ],
)  # fmt: skip
def test_the_reply_to_a_big_bad_spec_is_small(given: dict[str, Any]) -> None:
    found = faults_of(json.dumps(given).encode())
    assert 1 <= len(found) <= MOST
    assert len(json.dumps([[fault.pointer, fault.code, fault.detail] for fault in found])) < 10_000
    assert max(len(fault.detail) for fault in found) <= LONGEST_SENTENCE + 4


def test_an_object_with_too_many_members_is_found_before_each_of_them_is_an_error() -> None:
    members = {str(i): ["x"] for i in range(MOST_MEMBERS + 1)}
    (fault,) = faults_of(json.dumps(document(**grouped(members))).encode())
    assert (fault.pointer, fault.code) == ("/training/penalty/groups", "too_many")
    names = [f"gene:{i}" for i in range(MOST_MEMBERS + 5)]
    colons = document(data={"x": [[0.5] * len(names)] * 2, "y": [1, 2], "features": names})
    assert faults_of(json.dumps({**colons, "selection": {"kind": "k_fold", "folds": 2}}).encode()) == []


def test_too_many_splines_are_not_made() -> None:
    names = [f"x{j}" for j in range(MOST_SPLINES + 1)]
    splines = [{"feature": name, "basis": 6} for name in names]
    data = {**table(12, len(names)), "features": names}
    (fault,) = faults_of(json.dumps(document(data=data, training__splines=splines)).encode())
    assert (fault.pointer, fault.code) == ("/training/splines", "too_many")


def test_a_document_of_too_many_lists_is_not_taken_apart() -> None:
    (fault,) = faults_of(b'{"data":{"x":[[1]' + b",[1]" * MOST_LISTS + b"]}}")
    assert (fault.pointer, fault.code) == ("", "too_many")


def test_a_repeated_name_is_cut() -> None:
    (fault,) = faults_of(json.dumps(document(**{"n" * (LONGEST_NAME + 1): 1})).encode())
    assert fault.pointer == "/" + "n" * LONGEST_NAME
    assert "n" * LONGEST_NAME + "..." in fault.detail
    assert "n" * (LONGEST_NAME + 1) not in fault.detail


def test_all_faults_of_the_data_come_at_once() -> None:
    spec = JobSpec.model_validate_json(json.dumps(document(data__y=[1.0], data__features=["a", "a"])))
    assert [fault.pointer for fault in faults(spec)] == ["/data/y", "/data/features", "/data/features/1"]
    spec = JobSpec.model_validate_json(json.dumps(document(**grouped({"a": ["x0"]}), test_fraction=0.01)))
    assert [fault.pointer for fault in faults(spec)] == ["/training/penalty", "/test_fraction"]
