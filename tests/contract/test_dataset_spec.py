"""Specs that name a dataset: their faults, their description, and what a worker reads back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contract.specs import faults_of, parsed
from worker.contract.columns import Selected, select
from worker.contract.data import ROLES
from worker.contract.dataset import Column, DatasetBody, SparseColumns
from worker.contract.description import StoredJob, describe, encoded_names, fingerprint, hyperparameter_names, work
from worker.contract.feature_columns import FeatureColumns
from worker.contract.feature_list import read_features, write_features
from worker.contract.inline import encode_data
from worker.contract.name_runs import decode_names
from worker.contract.spec import JobSpec
from worker.contract.spec_faults import faults

ID = "ds_" + "0" * 64
NUMBER = {"min": 0.0, "max": 5.0, "mean": 2.5, "std": 1.0, "distinct": 2, "values": [0.0, 5.0], "categories": None}
TEXT = {"min": None, "max": None, "mean": None, "std": None, "distinct": 2, "categories": ["n", "y"]}


def record(rows: int = 100, sparse: int = 0) -> DatasetBody:
    columns = [Column(name=name, type="number", missing=0, **NUMBER) for name in ("y", "x1", "x2", "shop")]
    columns.append(Column(name="open", type="category", missing=0, **TEXT))
    part = SparseColumns(columns=sparse, prefix="w", first=1, nonzeros=sparse, min=0.0, max=1.0) if sparse else None
    return DatasetBody(
        id=ID, format="csv", bytes=1, stored_bytes=1, sha256="0" * 64, rows=rows, created_at=datetime.now(UTC),
        columns=columns, sparse=part,
    )  # fmt: skip


def spec_of(data: dict[str, Any], **rest: Any) -> JobSpec:
    document = {"data": {"dataset_id": ID, "target": "y", **data}, "training": {"kind": "ridge"}, **rest}
    return JobSpec.model_validate_json(json.dumps(document))


def selected_of(spec: JobSpec, **changes: Any) -> Selected:
    selected = select(spec.data, record(**changes), spec.training)
    assert isinstance(selected, Selected), selected
    return selected


@pytest.mark.parametrize(
    ("data", "pointer", "words"),
    [
        ({"dataset_id": ID}, "/data/target", "equired"),
        ({"dataset_id": "ds_0", "target": "y"}, "/data/dataset_id", "pattern"),
        ({"dataset": ID, "target": "y"}, "/data/dataset_id", "equired"),
        ({"dataset_id": ID, "target": "y", "featurs": []}, "/data/featurs", "did you mean 'features'"),
        ({"dataset_id": ID, "target": "y", "x": [[1.0]]}, "/data/x", "There is no field 'x'"),
        ({"dataset_id": ID, "target": "y", "features": ["a", 3]}, "/data/features/1", "string"),
        ({"dataset_id": ID, "target": "y", "features": [{"all_butt": ["a"]}]}, "/data/features/0/all_but", "equired"),
        (
            {"dataset_id": ID, "target": "y", "missing": {"default": {"fill": "mode"}}},
            "/data/missing/default/fill", "'mean'",
        ),
        ({"dataset_id": ID, "target": "y", "dates": {"d": ["months"]}}, "/data/dates/d/0", "'month'"),
        ({"dataset_id": ID, "target": "y", "where": [{"min": 1}]}, "/data/where/0/column", "equired"),
        ({"x": [[1.0], [2.0]], "y": [1.0, 2.0], "target": "y"}, "/data/target", "There is no field 'target'"),
        ({"x": [[1.0], [2.0]], "y": [1.0, 2.0], "weights": [-1, 1]}, "/data/weights/0", "greater than or equal"),
        ({"x": [[1.0], [2.0]], "y": [1.0, 2.0], "scoring": [0, 0]}, "/data/scoring", "Every weight is zero"),
        ({"x": [[1.0], [2.0]], "y": [1.0, 2.0], "time": [1.0]}, "/data/time", "1 entries for 2 rows"),
    ],
)  # fmt: skip
def test_a_bad_data_part_is_told_where(data: dict[str, Any], pointer: str, words: str) -> None:
    found = faults_of(json.dumps({"data": data, "training": {"kind": "ridge"}}).encode())
    assert pointer in [fault.pointer for fault in found]
    assert words in " ".join(fault.detail for fault in found)


@pytest.mark.parametrize(
    ("rest", "pointer", "words"),
    [
        ({"selection": {"kind": "k_fold", "folds": 101}}, "/selection", "101 folds need"),
        ({"selection": {"kind": "group_k_fold"}}, "/selection", "name a column in the field groups"),
        ({"selection": {"kind": "walk_forward", "initial": 100}}, "/selection", "leave none of the 100 rows"),
        ({"selection": {"kind": "given_folds", "fold_of_row": [0, 1]}}, "/selection", "has 2 entries"),
        ({"test_fraction": 1e-6}, "/test_fraction", "holds out no row"),
        (
            {"training": {"kind": "ridge", "penalty": {"kind": "per_group", "groups": {"a": ["x1"]}}}},
            "/training/penalty", "in none: 'x2', 'shop', 'open=n', 'open=y'",
        ),
    ],
)  # fmt: skip
def test_a_plan_that_does_not_fit_the_record_is_told(rest: dict[str, Any], pointer: str, words: str) -> None:
    spec = spec_of({}, **rest)
    (fault,) = faults(spec, selected_of(spec))
    assert fault.pointer == pointer
    assert words in fault.detail


def test_the_columns_of_large_tables_are_not_needed_to_check_a_plan() -> None:
    for selection in ({"kind": "k_fold"}, {"kind": "given_folds"}, {"kind": "group_k_fold"}, {"kind": "leave_one_out"}):
        spec = spec_of({"groups": "shop", "fold": "x2"}, selection=selection)
        assert faults(spec, selected_of(spec, rows=10**12)) == []


@pytest.mark.parametrize("sparse", [0, 13_000])
def test_what_a_worker_reads_back(sparse: int) -> None:
    groups = {"numbers": ["x?"], "rest": ["shop", "open", *(["w*"] if sparse else [])]}
    some = {"numbers": ["x?"], "texts": ["open"]}
    for penalty in (
        {"kind": "shared"}, {"kind": "per_group"}, {"kind": "per_group", "groups": groups},
        {"kind": "per_feature", "groups": some},
    ):  # fmt: skip
        spec = spec_of({"features": ["*"]}, training={"kind": "ridge", "penalty": penalty})
        selected = selected_of(spec, sparse=sparse)
        description = describe(spec, b"", selected)
        stored = orjson.dumps(description)
        assert len(stored) < 3000
        task = work(stored, b"")
        assert task.problem.features == selected.features
        assert task.plan == spec.plan(selected.groups)
        assert StoredJob(stored).dataset.model_dump() == spec.data.model_dump()
        names = hyperparameter_names(stored)
        assert names == task.plan.hyperparameters(task.problem).names
        assert decode_names(encoded_names(spec, selected)) == list(names)
        assert len(encoded_names(spec, selected)) < 200
        if penalty == {"kind": "per_group"}:
            assert names[:4] == ("penalty[x1]", "penalty[x2]", "penalty[shop]", "penalty[open]")
            assert len(names) == 4 + sparse
        if penalty["kind"] == "per_feature":
            kinds = task.plan.hyperparameters(task.problem).families
            members = [[names[j].removeprefix("penalty")[1:-1] for j in kind.members] for kind in kinds]
            assert members[0] == ["x1", "x2"]
            assert members[1] == ["open=n", "open=y"]
            assert len(members[2:]) == (sparse > 0)


def test_the_fingerprint_sees_the_roles() -> None:
    prints = set()
    for data in ({}, {"features": ["x1"]}, {"categorical": ["shop"]}, {"where": [{"column": "x1"}]}, {"time": "x1"}):
        spec = spec_of({"features": ["x1", "shop"], **data})
        prints.add(fingerprint(describe(spec, b"", selected_of(spec))))
    assert len(prints) == 5


@given(st.lists(st.from_regex(r"[ab]?(0|[1-9][0-9]{0,2}|01)?", fullmatch=True), unique=True, min_size=1))
def test_any_names_are_written_out_and_read_back(names: list[str]) -> None:
    groups = {name: (name,) if len(name) != 2 else (f"{name}=1", f"{name}=2") for name in names if name}

    items = orjson.loads(orjson.dumps(write_features(FeatureColumns(groups.items()))))
    assert read_features(items) == groups
    assert list(read_features(items)) == list(groups)


def test_roles_of_inline_rows_wait_with_the_table() -> None:
    data = {
        "x": [[1.0], [2.0], [3.0], [5.0]], "y": [1.0, 2.0, 3.0, 4.0],
        "time": [4.0, 3.0, 2.0, 1.5], "groups": [7, -3, 7, 7],
        "weights": [1.0, 0.25, 2.0, 0.5], "source": ["b", "a", "b", "c"], "fold": [0, 1, 1, 0],
    }  # fmt: skip
    spec = parsed({"data": data, "training": {"kind": "ridge"}, "selection": {"kind": "given_folds"}})
    encoded = encode_data(spec.problem())
    problem = work(orjson.dumps(describe(spec, encoded)), encoded).problem
    assert problem.time.tolist() == data["time"]
    assert problem.weights.tolist() == data["weights"]
    assert problem.groups.tolist() == [1, 0, 1, 1]
    assert [problem.source_names[code] for code in problem.source] == data["source"]
    assert problem.fold.tolist() == data["fold"]
    assert (np.asarray(problem.X) == data["x"]).all()
    without = spec_of({}).model_copy(update={"data": spec.data.model_copy(update=dict.fromkeys(ROLES))})
    assert "roles" not in describe(without, encode_data(without.problem()))["data"]
