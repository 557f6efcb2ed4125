"""Matrices in a request: what is wrong with them is said with its place; what is right arrives with the same bits."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import orjson
import pytest

from tests.contract.specs import document, faults_of, own_criteria, parsed
from worker.contract.description import describe, fingerprint, hyperparameter_names, work
from worker.contract.faults import Fault
from worker.contract.inline import encode_data
from worker.core.search.plan import prepare
from worker.core.search.tune import tune
from worker.core.selection import QuadraticSelection

GIVEN = own_criteria()["data"]
DENSE, SPARSE = GIVEN["matrices"][:2]


def entries(**changes: Any) -> dict[str, Any]:
    return {"data__matrices": [DENSE, {**SPARSE, **changes}]}


def terms(**changes: Any) -> dict[str, Any]:
    return {"data__selection": {**GIVEN["selection"], **changes}}


def multipliers(*items: dict[str, Any]) -> dict[str, Any]:
    return {"training": {"kind": "quadratic", "multipliers": list(items)}}


FAULTS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "no vectors": ({"data__vectors": []}, "/data/vectors", "missing", "b_0 is missing"),
    "null for b_0": ({"data__vectors": [None, [1.0]]}, "/data/vectors/0", "missing", "one entry for each parameter"),
    "nothing to tune": (
        {"data__matrices": [DENSE], "data__vectors": [[1, 2, 3]]}, "/data/matrices", "too_few", "nothing to tune"),
    "terms": ({"data__matrices": [DENSE] * 1001}, "/data", "too_many", "1001 matrices or vectors in a list"),
    "rows": ({"data__matrices": [DENSE, DENSE[:2]]}, "/data/matrices/1", "shape", "2 rows for 3 parameters"),
    "columns": (
        {"data__matrices": [DENSE, [*DENSE[:2], [0, 0]]]}, "/data/matrices/1/2", "shape", "2 entries for 3"),
    "unsymmetric": (
        {"data__matrices": [DENSE, [[1, 2, 0], [2, 1, 3], [0, 4, 1]]]},
        "/data/matrices/1/1/2", "not_symmetric", "(1, 2) and (2, 1) differ; send (A + A^T) / 2"),
    "one triangle": (
        entries(rows=[0, 1, 2], columns=[0, 0, 2], values=[1, 1, 1]),
        "/data/matrices/1", "not_symmetric", "both triangles"),
    "ragged entries": (entries(rows=[0, 1, 2]), "/data/matrices/1/rows", "length", "3 of them for 4 values"),
    "entry outside": (
        entries(columns=[1, 0, 3, 1]), "/data/matrices/1/columns/2", "out_of_range", "the last one is 2"),
    "entry before": (
        entries(rows=[0, 1, -2, 1]), "/data/matrices/1/rows/2", "greater_than_equal", "equal to 0"),
    "unknown field of entries": (
        {"data__matrices": [DENSE, {"rows": [], "cols": [], "values": []}]}, "/data/matrices/1/columns", "missing", ""),
    "text in a matrix": (
        {"data__matrices": [DENSE, [["a", 0, 0]]]}, "/data/matrices/1/0/0", "float_type", "number"),
    "large": (
        {"data__matrices": [DENSE, [[1e200, 0, 0], [0, 1, 0], [0, 0, 1]]]}, "/data/matrices/1/0/0", "too_large", ""),
    "large entry": (entries(values=[-0.5, -0.5, 1e200, 1]), "/data/matrices/1/values/2", "too_large", "larger units"),
    "large in a vector": ({"data__vectors": [[1, 1e300, 0]]}, "/data/vectors/0/1", "too_large", "larger units"),
    "vector too long": ({"data__vectors": [[1, 2, 3], [1, 2]]}, "/data/vectors/1", "length", "2 entries for 3"),
    "idle": (
        {"data__matrices": [DENSE, SPARSE, None], "data__vectors": [[1, 2, 3], None, [0, 0, 0]]},
        "/data/matrices/2", "no_effect", "hyperparameter 2 has no effect"),
    "nothing to minimize": (
        {"data__selection": {"constant": 1.0}}, "/data/selection", "no_effect", "E does not depend on theta"),
    "selection matrix": (terms(matrix=[[1.0]]), "/data/selection/matrix", "shape", "1 rows for 3"),
    "selection vector": (terms(vector=[1.0]), "/data/selection/vector", "length", "1 entries for 3"),
    "unknown field of the selection": (
        terms(vectr=[1.0]), "/data/selection/vectr", "unknown_field", "did you mean 'vector'?"),
    "unknown field of the data": ({"data__matrice": []}, "/data/matrice", "unknown_field", "mean 'matrices'?"),
    "too few multipliers": (
        multipliers({"name": "a"}), "/training/multipliers", "does_not_fit", "1 multipliers for 2 matrices"),
    "a name twice": (
        multipliers({"name": "a"}, {"name": "a"}), "/training/multipliers", "does_not_fit", "have the name 'a'"),
    "zero on the log scale": (
        multipliers({"name": "a", "lower": 0.0}, {"name": "b"}),
        "/training/multipliers/0", "value_error", "use the scale linear"),
    "unknown scale": (
        multipliers({"name": "a", "scale": "lin"}, {"name": "b"}),
        "/training/multipliers/0/scale", "literal_error", "'linear'"),
    "box reversed": (
        multipliers({"name": "a", "lower": 2.0, "upper": 1.0}, {"name": "b"}),
        "/training/multipliers/0", "value_error", "must be below upper"),
    "ridge on matrices": ({"training": {"kind": "ridge"}}, "/training/kind", "does_not_fit", "set this to quadratic"),
    "folds of matrices": ({"selection": {"kind": "k_fold"}}, "/selection/kind", "does_not_fit", "no rows to choose"),
    "test part of matrices": ({"test_fraction": 0.2}, "/test_fraction", "does_not_fit", "no rows to hold out"),
    "nested on matrices": ({"nested": {"folds": 3}}, "/nested", "does_not_fit", "no rows to leave out"),
    "weights of matrices": (
        {"training": {"kind": "quadratic", "weights": {"kind": "per_source"}}},
        "/training/weights", "unknown_field", "no field 'weights'"),
    "splines of matrices": (
        {"training": {"kind": "quadratic", "splines": []}}, "/training/splines", "unknown_field", "no field 'splines'"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_wrong_matrices_are_told_where_and_what_to_do(name: str) -> None:
    changes, pointer, code, words = FAULTS[name]
    found = faults_of(json.dumps(own_criteria(**changes)).encode())
    assert (found[0].pointer, found[0].code) == (pointer, code)
    assert words in found[0].detail
    assert found[0].detail.endswith(".")


def test_a_table_where_matrices_belong_and_the_other_way_round() -> None:
    def told(given: dict[str, Any]) -> Fault:
        (fault,) = faults_of(json.dumps(given).encode())
        return fault

    assert told(document(training={"kind": "quadratic"})).pointer == "/data"
    assert told(document(selection={"kind": "quadratic"})).pointer == "/selection/kind"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_only_finite_numbers_in_matrices(number: str) -> None:
    given = own_criteria(**entries(values=[-0.5, -0.5, 77.25, 1.0]))
    (fault,) = faults_of(json.dumps(given).replace("77.25", number).encode())
    assert (fault.pointer, fault.code) == ("/data/matrices/1/values/2", "finite_number")


def test_the_worker_sees_the_same_criteria() -> None:
    given = own_criteria(outer={"kind": "newton", "starts": 2})
    spec = parsed(given)
    data = encode_data(spec.problem())
    description = orjson.dumps(describe(spec, data))
    task = work(description, data)
    assert task.plan == spec.plan()
    assert encode_data(task.problem) == data
    one, other = task.problem.criteria, spec.problem().criteria
    assert one is not None
    assert other is not None
    for A, B in zip((*one.matrices, one.Q), (*other.matrices, other.Q), strict=True):
        assert A.toarray().tobytes() == B.toarray().tobytes()
    assert (one.vectors.tobytes(), one.e.tobytes(), one.constant) == (
        other.vectors.tobytes(), other.e.tobytes(), other.constant)  # fmt: skip
    assert hyperparameter_names(description) == ("h[1]", "h[2]")
    assert work(description, b"").plan == spec.plan()  # as where a work-horse had to be killed
    ends = [list(tune(prepare(problem, spec.plan())))[-1] for problem in (task.problem, spec.problem())]
    assert ends[0].best.best.rho.tobytes() == ends[1].best.best.rho.tobytes()


def test_ways_to_write_the_same_matrices_have_one_fingerprint() -> None:
    def print_of(given: dict[str, Any]) -> str:
        spec = parsed(given)
        return fingerprint(describe(spec, encode_data(spec.problem())))

    base = print_of(own_criteria())
    entered = np.argwhere(np.array(DENSE))
    sparse = {
        "rows": entered[:, 0].tolist(),
        "columns": entered[:, 1].tolist(),
        "values": [DENSE[i][j] for i, j in entered],
    }
    assert print_of(own_criteria(data__matrices=[sparse, SPARSE])) == base
    halves = {name: SPARSE[name] * 2 for name in ("rows", "columns")}
    halves["values"] = [value / 2 for value in SPARSE["values"]] * 2
    assert print_of(own_criteria(data__matrices=[DENSE, halves, None])) == base
    without = own_criteria()
    del without["selection"]
    assert print_of(without) == base
    named = own_criteria(**multipliers({"name": "h[1]"}, {"name": "h[2]"}))
    assert print_of(named) == base
    assert print_of(own_criteria(**multipliers({"name": "h[1]"}, {"name": "b"}))) != base
    assert print_of(own_criteria(**terms(constant=0.08))) != base
    assert print_of(own_criteria(data__vectors=[[1.0, -1.0, 0.25], None, [0.0, 1.0, 0.0]])) != base


def test_the_default_selection_criterion_of_quadratic() -> None:
    given = own_criteria()
    del given["selection"]
    assert parsed(given).selection == QuadraticSelection()
    changed = copy.deepcopy(given)
    changed["selection"] = {"kind": "k_fold"}
    assert faults_of(json.dumps(changed).encode())[0].pointer == "/selection/kind"


def test_the_symmetric_part_of_what_rounding_left() -> None:
    uneven = [[2.0, 0.5 + 1e-12, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]]
    criteria = parsed(own_criteria(data__matrices=[uneven, SPARSE])).problem().criteria
    assert criteria is not None
    A = criteria.matrices[0].toarray()
    assert (A == A.T).all()
    assert A[0, 1] == 0.5 + 0.5e-12
