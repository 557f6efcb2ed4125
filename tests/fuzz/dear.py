"""Requests that are as dear as the documented limits allow, one for each thing that is bounded."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from service.requests import MAX_BODY, MAX_VALUES
from tests.fuzz.messages import JSON, Message

PER_FEATURE = {"kind": "per_feature"}
SPARSE_COLUMNS = 2_000_000
WIDE = 20_000


def sparse_file() -> bytes:
    """A LIBSVM file of few bytes and `SPARSE_COLUMNS` columns."""
    return b"".join(b"%d 1:1 %d:2 %d:%d\n" % (i % 2, 2 + i, SPARSE_COLUMNS, i) for i in range(60))


def wide_file() -> bytes:
    """A CSV file of `WIDE` columns."""
    names = [f"column number {j}" for j in range(WIDE - 1)]
    rows = np.random.default_rng(0).integers(0, 9, size=(12, WIDE))
    lines = [",".join([*names, "y"]), *(",".join(map(str, row)) for row in rows.tolist())]
    return ("\n".join(lines) + "\n").encode()


def small_job() -> dict[str, Any]:
    """A job with four features that ends at once and has a model."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 4)).round(3)
    return {"data": {"x": x.tolist(), "y": x.sum(1).tolist(), "features": list("abcd")}, "training": {"kind": "ridge"}}


def machine_job() -> dict[str, Any]:
    """A job whose model has many support rows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 4)).round(3)
    data = {"x": x.tolist(), "y": np.sin(x.sum(1)).round(3).tolist(), "features": list("abcd")}
    outer = {"kind": "auto", "max_iterations": 1}
    return {"data": data, "training": {"kind": "kernel_ridge"}, "outer": outer, "limits": {"evaluations": 2}}


@functools.cache
def _table(columns: int) -> dict[str, Any]:
    rows = max(8, MAX_VALUES // (columns + 1))
    rng = np.random.default_rng(columns)
    x = rng.normal(size=(rows, columns)).round(6)
    y = np.exp(x[:, 0]) + rng.uniform(0.5, 1.0, size=rows)
    return {"x": x.tolist(), "y": y.round(6).tolist(), "time": list(range(rows))}


def messages(sparse: str, wide: str, small: str, machine: str) -> Iterator[Message]:
    """All of them. `sparse` and `wide` are the datasets of the files, `small` and `machine` the jobs, above."""
    for columns in (1, 30, 999, 9_999):
        data = _table(columns)
        names = [f"x{j}" for j in range(columns)]
        for training in (
            {"kind": "ridge", "penalty": PER_FEATURE},
            {"kind": "gamma", "penalty": PER_FEATURE},
            {"kind": "kernel_ridge", "kernel": {"kind": "rbf", "widths": PER_FEATURE}, "landmarks": {"count": 100}},
            {"kind": "ridge", "splines": [{"feature": name, "basis": 6} for name in names]},
        ):
            for selection in (
                {"kind": "k_fold"},
                {"kind": "walk_forward", "initial": 3, "horizon": 1 + len(data["y"]) // 900},
            ):
                spec = {"data": {**data, "features": names}, "training": training, "selection": selection}
                yield _checked(f"{columns} columns, {training['kind']}, {selection['kind']}", spec)
    names = [f"f{j}" for j in range(9_999)]
    grouped = {"data": {**_table(9_999), "features": names}}
    groups = {f"g{j}": names[j : j + 100] for j in range(9_000)}
    yield _checked(
        "groups", {**grouped, "training": {"kind": "ridge", "penalty": {"kind": "per_group", "groups": groups}}}
    )
    folds = {"kind": "given_folds", "fold_of_row": [i % 1000 for i in range(MAX_VALUES // 2)]}
    yield _checked("folds", {"data": _table(1), "training": {"kind": "ridge"}, "selection": folds})
    yield from _bodies()
    yield from _datasets(sparse, wide)
    yield from _predictions(small, machine)


def _bodies() -> Iterator[Message]:
    """Bodies of the size limit that are not what they should be."""
    fill = {
        "opened": (b"[", b""),
        "objects": (b'{"a":', b""),
        "empty rows": (b'{"data":{"x":[' + b"[],", b"[]"),
        "one number": (b'{"data":{"x":[[1', b"1"),
        "texts": (b'{"data":{"y":["a",', b'"a",'),
        "escapes": (b'{"data":{"features":["', b"\\u0041"),
        "names": (b'{"data":{"features":["a"', b',"a"'),
        "rows": (b'{"data":{"x":[[1]', b",[1]"),
        "nulls": (b'{"data":{"y":[null', b",null"),
        "members": (b'{"data":{"x":1', b',"x":1'),
    }
    for name, (start, given) in fill.items():
        piece = given or start
        body = start + piece * ((MAX_BODY - len(start)) // len(piece))
        yield Message(f"body of {name}", "POST", "/v1/jobs", JSON, body)
    rows = {"x": [[1.0]] * 90_000, "y": [1.0] * 9_000}
    yield _checked("lengths", {"data": rows, "training": {"kind": "ridge"}})
    labels = {f"l{j}": "x" for j in range(9_999)}
    yield _checked("labels", {"data": _table(1), "training": {"kind": "ridge"}, "labels": labels})


def _datasets(sparse: str, wide: str) -> Iterator[Message]:
    for training in ({"kind": "ridge"}, {"kind": "ridge", "penalty": PER_FEATURE}, {"kind": "logistic"}):
        data = {"dataset_id": sparse, "target": "label"}
        yield _checked("sparse columns", {"data": data, "training": training})
    every: dict[str, Any] = {"dataset_id": wide, "target": "y"}
    for count in (1, 100, 1_000, 10_000):
        patterns = [f"*{j}*{j + 1}*{j}*x" for j in range(count)]
        for features in ([{"all_but": patterns}], patterns):
            for dataset in (
                {**every, "features": features},
                {"dataset_id": sparse, "target": "label", "features": features},
            ):
                yield _checked(f"{count} patterns", {"data": dataset, "training": {"kind": "ridge"}})
    names = [f"column number {j}" for j in range(WIDE - 1)]
    yield _checked("names of columns", {"data": {**every, "features": names}, "training": {"kind": "ridge"}})
    unknown = [f"column numbr {j}" for j in range(WIDE - 1)]
    yield _checked("unknown columns", {"data": {**every, "features": unknown}, "training": {"kind": "ridge"}})
    per_feature = {"kind": "ridge", "penalty": PER_FEATURE}
    yield _checked("wide", {"data": every, "training": per_feature, "outer": {"kind": "auto", "starts": 50}})
    where = [{"column": f"column number {j}", "min": 0} for j in range(100)]
    yield _checked("conditions", {"data": {**every, "where": where}, "training": {"kind": "ridge"}})
    among = [{"column": "column number 1", "in": list(range(10_000))}]
    yield _checked("values of a condition", {"data": {**every, "where": among}, "training": {"kind": "ridge"}})
    for path in (
        f"/v1/datasets/{wide}",
        f"/v1/datasets/{wide}/preview",
        f"/v1/datasets/{sparse}",
        "/v1/datasets?limit=200",
    ):
        yield Message(f"read {path.partition('?')[0].rpartition('/')[2][:8]}", "GET", path)
    for path in ("/v1/jobs?limit=200", "/v1/jobs?limit=200&view=full", "/v1/catalog", "/openapi.json"):
        yield Message(f"read {path}", "GET", path)


def _predictions(small: str, machine: str) -> Iterator[Message]:
    rows = [[1.5, 2.0, -0.25, 4.0]]
    for job, count in ((small, 100_000), (small, 100_001), (machine, 10_000), (machine, 50_000), (machine, 100_000)):
        yield Message(
            f"{count} rows", "POST", f"/v1/jobs/{job}/predictions", JSON, json.dumps({"x": rows * count}).encode()
        )
    short = {"x": [[1.0]] * 500_000}
    yield Message("short rows", "POST", f"/v1/jobs/{small}/predictions", JSON, json.dumps(short).encode())
    gaps = {"x": [[None] * 4] * 100_000}
    yield Message("missing rows", "POST", f"/v1/jobs/{small}/predictions", JSON, json.dumps(gaps).encode())


def _checked(kind: str, spec: dict[str, Any]) -> Message:
    return Message(kind, "POST", "/v1/jobs?validate_only=true", JSON, json.dumps(spec).encode())
