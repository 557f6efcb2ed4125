"""Jobs on datasets with very many sparse columns: the right features, without an object for each, under bounds."""

from __future__ import annotations

import fnmatch
import json
import re
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.estimate import validation_view
from service.fitting import of_dataset
from service.problems import InvalidRequest
from service.settings import Settings
from worker.contract.columns import Selected, select
from worker.contract.dataset import Column, Dataset, Layout, SparseColumns
from worker.contract.description import describe, hyperparameter_names, row_layout, work
from worker.contract.faults import Fault
from worker.contract.feature_list import read_features, write_features
from worker.contract.prediction import PredictionRequest, rows_of
from worker.contract.spec import JobSpec
from worker.contract.spec_faults import faults

WIDE = 2_000_000
SETTINGS = Settings(dataset_max_sparse_columns=WIDE)
ID = "ds_" + "0" * 64


def number(name: str) -> Column:
    return Column(name=name, type="number", missing=0, min=0, max=9, mean=4, std=1, distinct=None, categories=None)


def record(columns: int, dense: tuple[str, ...] = ("label",), *, prefix: str = "", first: int = 1) -> Dataset:
    sparse = SparseColumns(columns=columns, prefix=prefix, first=first, nonzeros=4000, min=0.1, max=1)
    return Dataset(
        id=ID, format="libsvm", bytes=1, stored_bytes=1, sha256="0" * 64, rows=200, created_at=datetime.now(UTC),
        columns=[number(name) for name in dense], sparse=sparse if columns else None,
        layout=Layout(dense=None, sparse=None, files={}),
    )  # fmt: skip


def spec_of(training: dict[str, Any] | None = None, **data: Any) -> JobSpec:
    document = {"data": {"dataset_id": ID, "target": "label", **data}, "training": training or {"kind": "ridge"}}
    return JobSpec.model_validate_json(json.dumps(document))


def found(spec: JobSpec, dataset: Dataset) -> list[tuple[str, str]]:
    """Pointers and codes of what the API refuses."""
    try:
        of_dataset(spec, dataset.model_dump_json().encode(), SETTINGS)
    except InvalidRequest as problem:
        return [(fault.pointer, fault.code) for fault in problem.errors or []]
    return []


CASES: dict[str, dict[str, Any]] = {
    "all": {},
    "all but some": {"features": [{"all_but": ["1*", "??7*", "12", "?"]}]},
    "patterns": {"features": ["2*", "15", "1[0-4]*"]},
    "iterative": {"training": {"kind": "poisson", "solver": "newton_cg"}},
}


LAST = {"all": "2000000", "all but some": "2000000", "patterns": "1499999", "iterative": "2000000"}


@pytest.mark.unchecked
@pytest.mark.parametrize("case", CASES)
def test_two_million_columns_take_no_object_each(case: str) -> None:
    """All that POST, validate, GET steps and predictions do with the columns, in less than 50 MB."""
    data = dict(CASES[case])
    spec, manifest = spec_of(data.pop("training", None), **data), record(WIDE).model_dump_json().encode()
    tracemalloc.start()
    try:
        checked = of_dataset(spec, manifest, SETTINGS)
        selected, stored = checked.selected, checked.stored
        view = validation_view(spec, selected, checked.description, checked.fingerprint)
        names = hyperparameter_names(stored)
        layout = row_layout(stored)
        wrong = rows_of(PredictionRequest(x=[[0.0]], features=["17"]), layout, [])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50e6 + 3 * len(stored)
    assert view["names"] == names
    assert isinstance(wrong, list)
    assert layout.features[-1] == LAST[case]
    assert selected is not None
    assert len(layout.features) == len(selected.features)
    assert case != "all" or len(layout.features) == WIDE


DENSE = ("label", "x0", "x1", "town", "a", "a2", "a3", "a4")
ITEMS = st.sampled_from(
    ["x3", "x7", "x1*", "x?", "a*", "*", "town", "x1[02]", "x0", "a3", {"all_but": ["x?"]}, {"all_but": ["a*", "x12"]}]
)


@settings(max_examples=50)
@given(st.lists(ITEMS, min_size=1, max_size=5) | st.none(), st.integers(0, 30))
def test_the_features_are_those_of_columns_taken_one_by_one(features: list[Any] | None, columns: int) -> None:
    dataset = record(columns, DENSE, prefix="x", first=2)
    spec = spec_of(features=features, time="town")
    wanted = _one_by_one(features, [*DENSE, *(f"x{2 + j}" for j in range(columns))])
    selected = select(spec.data, dataset, spec.training)
    if not wanted or isinstance(wanted, Fault):
        assert isinstance(selected, list)
        return
    assert isinstance(selected, Selected)
    assert selected.features == tuple(wanted)
    items = write_features(selected.groups)
    assert items == list(_written(wanted))  # part of the fingerprint
    assert read_features(items).features == tuple(wanted)
    grouped = spec_of({"kind": "ridge", "penalty": {"kind": "per_group"}}, features=features, time="town")
    assert work(orjson.dumps(describe(grouped, b"", selected)), b"").plan.training.penalty.groups == {
        name: (name,) for name in wanted
    }


def _one_by_one(features: list[Any] | None, names: list[str]) -> list[str] | None:
    """The names of the features; None where an item matches no column."""
    free = [name for name in names if name not in {"label", "town"}]
    if features is None:
        return free
    chosen: dict[str, None] = {}
    for item in features:
        patterns = item["all_but"] if isinstance(item, dict) else [item]
        matches = [[name for name in names if fnmatch.fnmatchcase(name, text)] for text in patterns]
        if not all(matches):
            return None
        if isinstance(item, dict):
            left_out = {name for names_ in matches for name in names_}
            chosen |= dict.fromkeys(name for name in free if name not in left_out)
        elif item in names:
            chosen[item] = None
        else:
            chosen |= dict.fromkeys(name for name in matches[0] if name in free)
    return list(chosen)


def _written(names: list[str]) -> Iterator[Any]:
    """Names, of which three or more that are numbered in order are written by their ends."""
    run: list[str] = []
    for name in [*names, ""]:
        split = [re.fullmatch(r"(.*?)(0|[1-9][0-9]*)", one) for one in (run[-1] if run else "", name)]
        if split[0] and split[1] and split[1][1] == split[0][1] and int(split[1][2]) == int(split[0][2]) + 1:
            run.append(name)
            continue
        yield from run if len(run) < 3 else [{"from": run[0], "to": run[-1]}]
        run = [name]


GROUPS = {"kind": "per_group", "groups": {"few": ["1", "2"], "rest": ["*"]}}
KERNEL = {"kind": "rbf", "widths": {"kind": "per_feature"}}
LONG = "?" * 61
TOO_MUCH: dict[str, tuple[int, dict[str, Any] | None, dict[str, Any], list[tuple[str, str]]]] = {
    "splines": (
        600,
        {"kind": "ridge", "splines": [{"feature": f"{j + 1}", "basis": 6} for j in range(501)]},
        {},
        [("/training/splines", "too_many")],
    ),
    "columns": (WIDE + 1, None, {}, [("/data/dataset_id", "too_many_columns")]),
    "penalties": (
        100_001, {"kind": "ridge", "penalty": "per_feature"}, {}, [("/training/penalty", "too_many_hyperparameters")]
    ),
    "as many penalties as may be": (100_000, {"kind": "ridge", "penalty": "per_feature"}, {}, []),
    "groups of a column": (
        100_001, {"kind": "ridge", "penalty": "per_group"}, {}, [("/training/penalty", "too_many_hyperparameters")]
    ),
    "members of groups": (
        100_000, {"kind": "ridge", "penalty": GROUPS}, {},
        [("/training/penalty/groups/rest/0", "too_many_members")],
    ),
    "widths": (
        100_001, {"kind": "kernel_ridge", "kernel": KERNEL}, {},
        [("/training/kernel/widths", "too_many_hyperparameters")],
    ),
    "kernels": (
        700_000, {"kind": "kernel_ridge", "kernel": {"kind": "sum", "terms": ["rbf", "linear", "matern"]}}, {},
        [("/training/kernel", "too_large")],
    ),
    "a kernel": (WIDE, {"kind": "kernel_ridge"}, {}, [("/training/landmarks", "too_large")]),
    "forms": (
        1001,
        {"kind": "ridge", "penalty": {"kind": "quadratic_forms", "forms": [{"kind": "difference", "name": "d"}]}}, {},
        [("/training/penalty/forms/0", "too_large")],
    ),
    "runs": (WIDE, None, {"features": ["*[13579]"]}, [("/data/features", "too_scattered")]),
    "names": (WIDE, None, {"features": ["1"] * 100_001}, [("/data/features", "too_many_names")]),
    "given forms": (
        301,
        {"kind": "ridge", "penalty": {"kind": "quadratic_forms", "forms": [
            {"kind": "banded", "name": "b", "bands": [[1.0] * 301]}
        ]}}, {},
        [("/training/penalty/forms/0", "too_large")],
    ),
    "patterns": (5000, None, {"features": [{"all_but": [f"*{i}*" for i in range(101)]}]}, [
        ("/data/features/0/all_but/100", "too_many_patterns")
    ]),
    "patterns of groups": (
        5000,
        {"kind": "ridge", "penalty": {"kind": "per_group", "groups": {f"g{i}": [f"*{i}*"] for i in range(101)}}}, {},
        [("/training/penalty/groups/g100/0", "too_many_patterns")],
    ),
    "a long pattern": (50, None, {"features": ["1*", LONG]}, [("/data/features/1", "long_pattern")]),
    "unknown names": (
        50, None, {"categorical": [f"no{i}" for i in range(50_000)]},
        [(f"/data/categorical/{i}", "unknown_column") for i in range(20)],
    ),
    "unknown features": (
        50, None, {"features": [{"all_but": [f"no{i}" for i in range(50_000)]}]},
        [(f"/data/features/0/all_but/{i}", "unknown_column") for i in range(20)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TOO_MUCH)
def test_what_is_too_much_is_told_where(name: str) -> None:
    columns, training, data, wanted = TOO_MUCH[name]
    for part in ("penalty", "kernel"):
        if training and isinstance(training.get(part), str):
            training = {**training, part: {"kind": training[part]}}
    if training and name == "kernels":
        terms = [{"kind": kind} for kind in training["kernel"]["terms"]]
        training = {**training, "kernel": {"kind": "sum", "terms": terms}}
    assert found(spec_of(training, **data), record(columns)) == wanted


def test_a_job_of_an_older_version_keeps_its_patterns() -> None:
    """The bounds are for what comes in: workers still read what is stored."""
    spec, dataset = spec_of(features=[{"all_but": [f"*{i}*" for i in range(500, 700)]}]), record(1000)
    selected = select(spec.data, dataset, spec.training)
    assert isinstance(selected, Selected)
    assert faults(spec, selected) == []
    assert len(selected.features) == 800
