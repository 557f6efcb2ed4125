"""`spread_by`: what a choice of the spread by nested values asks of the rest of a spec."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.specs import document, faults_of, own_criteria, parsed, table
from worker.contract.description import describe, fingerprint, work
from worker.contract.inline import encode_data

PER_FEATURE = {"training__penalty": {"kind": "per_feature"}}
NESTED = {"nested": {"folds": 3}, "spread_by": "nested"}


def penalty(**settings: Any) -> dict[str, Any]:
    return {"training__penalty": {"kind": "per_feature", **settings}}


WRONG: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "without nested": (document(**PER_FEATURE, spread_by="nested"), [("/spread_by", "set nested")]),
    "one penalty": (document(**NESTED), [("/spread_by", "no spread to choose")]),
    "one feature": (document(data=table(columns=1), **PER_FEATURE, **NESTED), [("/spread_by", "no spread to choose")]),
    "plain": (document(**penalty(spread=None), **NESTED), [("/spread_by", "no spread to choose")]),
    "a given spread": (document(**penalty(spread=0.5), **NESTED), [("/spread_by", "no spread to choose")]),
    "several starts": (document(**PER_FEATURE, **NESTED, outer={"kind": "auto", "starts": 2}), [
        ("/outer/starts", "set this to 1"),
    ]),
    "all at once": (document(spread_by="nested", outer={"kind": "newton", "starts": 3}), [
        ("/spread_by", "set nested"), ("/outer/starts", "set this to 1"), ("/spread_by", "no spread to choose"),
    ]),
    "matrices": (own_criteria(spread_by="nested"), [("/spread_by", "Matrices have no rows")]),
    "another word": (document(**PER_FEATURE, nested={"folds": 3}, spread_by="jackknife"), [("/spread_by", "nested")]),
    "null": (document(**PER_FEATURE, nested={"folds": 3}, spread_by=None), [("/spread_by", "nested")]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_it_needs(name: str) -> None:
    spec, expected = WRONG[name]
    found = faults_of(json.dumps(spec).encode())
    assert [fault.pointer for fault in found] == [pointer for pointer, _ in expected]
    for fault, (_, words) in zip(found, expected, strict=True):
        assert words in fault.detail
        assert fault.detail.endswith(".")


def test_what_does_not_fit_the_columns_is_told_once() -> None:
    groups = {"kind": "per_group", "groups": {"a": ["x0"], "b": ["nowhere"]}}
    found = faults_of(json.dumps(document(training__penalty=groups, **NESTED)).encode())
    assert found
    assert not any(fault.pointer == "/spread_by" for fault in found)


@pytest.mark.parametrize("training", [
    {"kind": "ridge", "penalty": {"kind": "per_feature", "spread": "auto"}},
    {"kind": "ridge", "penalty": {"kind": "per_group", "groups": {"a": ["x0"], "b": ["x1", "x2"]}}},
    {"kind": "kernel_ridge", "kernel": {"kind": "rbf", "widths": {"kind": "per_feature"}}},
], ids=["features", "groups", "widths"])  # fmt: skip
def test_families_of_like_hyperparameters_have_it(training: dict[str, Any]) -> None:
    parsed(document(training=training, **NESTED))


def test_a_worker_reads_it_and_the_default_leaves_fingerprints_as_they_were() -> None:
    default, chosen = (parsed(document(**PER_FEATURE, nested={"folds": 3}, spread_by=by)) for by in ("auto", "nested"))
    data = encode_data(default.problem())
    auto, nested = (describe(spec, data) for spec in (default, chosen))
    earlier = {name: value for name, value in auto.items() if name != "spread_by"}
    assert fingerprint(auto) == fingerprint(earlier) != fingerprint(nested)
    assert [work(json.dumps(one).encode(), data).plan.spread_by for one in (auto, earlier, nested)] == [
        "auto", "auto", "nested",
    ]  # fmt: skip
