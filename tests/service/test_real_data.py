"""Real data from their files through the whole service, against the same computation made directly on the core.

`GRADTUNE_DATA` names a folder with `bike_sharing/hour.csv.gz` (Fanaee-T and Gama 2014), `a9a/a9a.gz` with `groups.json`
(Becker and Kohavi 1996, as LIBSVM has it), `twenty_newsgroups/counts_train.npz` with `labels.npz` (Lang 1995) and
`goyal_welch/monthly_2005.csv` (Welch and Goyal 2008).
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import os
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.interpolate import BSpline
from scipy.sparse import csr_array, load_npz

from tests.datasets.test_roles import csv_file
from tests.service.api import Api
from tests.service.tabular import assert_same, plan_of, predicted, upload
from worker.core.rows.problem import Imputation, Problem

FOLDER = os.environ.get("GRADTUNE_DATA")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(FOLDER is None, reason="GRADTUNE_DATA names no folder with the data"),
]


def path_of(name: str) -> Path:
    return Path(FOLDER or "") / name


def finished(api: Api, spec: dict[str, Any]) -> dict[str, Any]:
    job = api.ended(api.created(spec)["id"], seconds=600)
    assert job["status"] == "succeeded", job
    return api.result(job["id"])


def test_smooth_effects_on_bike_sharing_are_better_than_straight_lines(live: Api) -> None:
    compressed = path_of("bike_sharing/hour.csv.gz").read_bytes()
    dataset = upload(live, compressed, "text/csv", **{"Content-Encoding": "gzip"})
    data = {
        "dataset_id": dataset["id"], "target": "cnt",
        "features": ["hr", "temp", "hum", "windspeed", "yr", "workingday"],
    }  # fmt: skip
    splines = [
        {"feature": "hr", "cyclic": True, "lower": 0, "upper": 24, "basis": 24},
        {"feature": "temp"}, {"feature": "hum"},
    ]  # fmt: skip
    training = {"kind": "ridge", "penalty": {"kind": "per_feature", "lower": 1e-9}}
    common = {"data": data, "selection": {"kind": "k_fold", "folds": 5}}
    straight = finished(live, {**common, "training": training})
    smooth = finished(live, {**common, "training": {**training, "splines": splines}})
    assert smooth["selection"]["value"] < 0.75 * straight["selection"]["value"]
    hour, temperature, _ = smooth["model"]["splines"]
    assert (hour["range"], hour["cyclic"], hour["feature"]) == ([0, 24], True, "hr")

    rows = list(csv.DictReader(io.StringIO(gzip.decompress(compressed).decode())))
    table = {name: np.array([float(row[name]) for row in rows]) for name in ("cnt", *data["features"])}
    effect = BSpline(hour["knots"], hour["coefficients"], hour["degree"])(np.arange(24.0))
    assert np.argmax(effect) in {8, 17, 18}  # the rush hours
    eta = predicted(smooth["model"], table)
    assert np.corrcoef(eta, table["cnt"])[0, 1] > 0.8
    assert np.mean((table["cnt"] - eta) ** 2) < smooth["selection"]["value"]
    assert abs(np.mean(eta - table["cnt"])) < 1e-6 * table["cnt"].mean()
    warm = np.argmax(temperature["coefficients"]) / len(temperature["coefficients"])
    assert 0.5 < warm < 0.95  # neither the cold nor the hottest hours


def test_bike_sharing_has_one_penalty_for_each_categorical_column(live: Api) -> None:
    compressed = path_of("bike_sharing/hour.csv.gz").read_bytes()
    dataset = upload(live, compressed, "text/csv", **{"Content-Encoding": "gzip"})
    categories = ["season", "mnth", "hr", "weekday", "weathersit"]
    numbers = ["yr", "holiday", "workingday", "temp", "atemp", "hum", "windspeed"]
    data = {
        "dataset_id": dataset["id"], "target": "cnt", "categorical": categories, "time": "dteday",
        "features": [{"all_but": ["instant", "casual", "registered"]}],
    }  # fmt: skip
    spec = {
        "data": data,
        "training": {"kind": "ridge", "penalty": {"kind": "per_group"}},
        "selection": {"kind": "walk_forward", "initial": 8000, "horizon": 500},
        "test_fraction": 0.2,
    }
    result = finished(live, spec)

    rows = list(csv.DictReader(io.StringIO(gzip.decompress(compressed).decode())))
    columns: dict[str, np.ndarray] = {}
    groups: dict[str, tuple[str, ...]] = {}
    for name in rows[0]:
        if name in categories:
            values = np.array([int(row[name]) for row in rows])
            made = {f"{name}={level}": (values == level).astype(float) for level in sorted(set(values.tolist()))}
        elif name in numbers:
            made = {name: np.array([float(row[name]) for row in rows])}
        else:
            continue
        columns |= made
        groups[name] = tuple(made)
    assert set(groups) == {*categories, *numbers}
    y = np.array([float(row["cnt"]) for row in rows])
    time = np.array([date.fromisoformat(row["dteday"]).toordinal() for row in rows], dtype=float)
    problem = Problem(np.column_stack(list(columns.values())), y, tuple(columns), time=time)
    assert_same(result, problem, plan_of(spec, groups))
    assert len(result["hyperparameters"]) == 12
    hours = next(item for item in result["model"]["columns"] if item["column"] == "hr")
    assert hours["categories"] == [str(hour) for hour in range(24)]


def test_a9a_with_groups_given_as_lists_of_columns(live: Api) -> None:
    compressed = path_of("a9a/a9a.gz").read_bytes()
    ranges = json.loads(path_of("a9a/groups.json").read_text())["groups"]
    dataset = upload(live, compressed, "text/x-libsvm", **{"Content-Encoding": "gzip"})
    groups = {name: [str(j) for j in range(first, last + 1)] for name, (first, last) in ranges.items()}
    spec = {
        "data": {"dataset_id": dataset["id"], "target": "label"},
        "training": {"kind": "ridge", "penalty": {"kind": "per_group", "groups": groups}},
        "test_fraction": 0.1,
    }
    result = finished(live, spec)

    lines = gzip.decompress(compressed).decode().splitlines()
    X, y = np.zeros((len(lines), 123)), np.empty(len(lines))
    for i, line in enumerate(lines):
        label, *entries = line.split()
        y[i] = float(label)
        for entry in entries:
            j, _, value = entry.partition(":")
            X[i, int(j) - 1] = float(value)
    problem = Problem(X, y, tuple(str(j) for j in range(1, 124)))
    assert_same(result, problem, plan_of(spec))
    assert len(result["hyperparameters"]) == 14


def test_two_newsgroups_of_twenty_stay_sparse(live: Api) -> None:
    counts = csr_array(load_npz(path_of("twenty_newsgroups/counts_train.npz"))).astype(float)
    labels = np.load(path_of("twenty_newsgroups/labels.npz"))["y_train"].astype(float)
    file = io.BytesIO()
    parts = {"data": counts.data, "indices": counts.indices, "indptr": counts.indptr, "shape": np.array(counts.shape)}
    np.savez_compressed(file, format=np.array(b"csr"), label=labels, **parts)
    dataset = upload(live, file.getvalue(), "application/x-npz")
    spec = {
        "data": {"dataset_id": dataset["id"], "target": "label", "where": [{"column": "label", "max": 1}]},
        "training": {"kind": "ridge"},
        "selection": {"kind": "k_fold", "folds": 3},
        "outer": {"kind": "auto", "max_iterations": 5},
        "test_fraction": 0.1,
        "limits": {"seconds": 3000},
    }
    result = finished(live, spec)
    assert result["method"]["solver"] == "dual"

    kept = labels <= 1
    sparse = dataset["sparse"]
    names = tuple(f"{sparse['prefix']}{sparse['first'] + j}" for j in range(counts.shape[1]))
    problem = Problem(csr_array(counts[np.flatnonzero(kept)]), labels[kept], names)
    assert_same(result, problem, plan_of(spec))


PREDICTORS = ("d/p", "e/p", "b/m", "tbl", "lty", "ntis", "infl", "svar", "default")


def equity_premium() -> dict[str, list[float | None]]:
    """Next month's premium with this month's predictors, as the paper defines them."""
    with path_of("goyal_welch/monthly_2005.csv").open() as file:
        rows = [{name: float(text) if text else None for name, text in row.items()} for row in csv.DictReader(file)]
    columns: dict[str, list[float | None]] = {name: [] for name in ("month", "premium", *PREDICTORS)}
    for before, row in itertools.pairwise(rows):
        if row["CRSP_SPvw"] is None or row["Rfree"] is None:
            continue
        columns["month"].append(row["yyyymm"])
        columns["premium"].append(float(np.log1p(row["CRSP_SPvw"]) - np.log1p(row["Rfree"])))
        columns["d/p"].append(float(np.log(before["D12"] / before["Index"])))
        columns["e/p"].append(float(np.log(before["E12"] / before["Index"])))
        spread = None if before["BAA"] is None or before["AAA"] is None else before["BAA"] - before["AAA"]
        columns["default"].append(spread)
        for name in PREDICTORS[2:-1]:
            columns[name].append(before[name])
    return columns


def test_goyal_welch_walks_forward_in_time(live: Api) -> None:
    columns = equity_premium()
    order = np.random.default_rng(0).permutation(len(columns["month"]))  # the time column puts the rows in order
    shuffled = {name: [values[i] for i in order] for name, values in columns.items()}
    dataset = upload(live, csv_file(shuffled), "text/csv")
    spec = {
        "data": {
            "dataset_id": dataset["id"], "target": "premium", "features": list(PREDICTORS), "time": "month",
            "missing": {"default": {"fill": "mean"}},
        },
        "training": {"kind": "ridge", "penalty": {"kind": "per_feature"}},
        "selection": {"kind": "walk_forward", "initial": 240, "horizon": 12},
        "test_fraction": 0.1,
    }  # fmt: skip
    result = finished(live, spec)
    X = np.array([[np.nan if v is None else v for v in shuffled[name]] for name in PREDICTORS]).T
    gone = np.flatnonzero(np.isnan(X).any(axis=0))
    imputation = Imputation(gone, ("mean",) * len(gone), np.zeros(len(gone))) if len(gone) else None
    time, y = np.array(shuffled["month"], dtype=float), np.array(shuffled["premium"], dtype=float)
    assert_same(result, Problem(X, y, PREDICTORS, imputation, time=time), plan_of(spec))
