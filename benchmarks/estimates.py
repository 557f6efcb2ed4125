"""How far the estimates of jobs are from what the jobs take: evaluations of J, and CPU seconds of one core.

A job is prepared, carried out and concluded in this process, with one BLAS thread. What a service adds (reading the
data, checkpoints, the report) is not counted: it does not grow with the search.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from service.estimate import estimate
from worker.contract.spec import JobSpec
from worker.core.search.descents import Descents
from worker.core.search.plan import prepare
from worker.core.search.procedure import carry_out
from worker.core.verdict.conclude import conclude

Document = dict[str, Any]
PER_FEATURE = {"penalty": {"kind": "per_feature"}}
STARTS = {"kind": "auto", "starts": 3}
GROUPS = {"penalty": {"kind": "per_group", "groups": {"a": ["x0", "x1", "x2"], "b": [f"x{j}" for j in range(3, 10)]}}}
WIDTHS = {"kernel": {"kind": "rbf", "widths": {"kind": "per_feature"}}}


def table(n: int, p: int, target: str = "number") -> Document:
    """A table of n rows and p features, of which a third matters."""
    rng = np.random.default_rng(n + p)
    X = rng.normal(size=(n, p))
    eta = X @ np.where(np.arange(p) % 3 == 0, rng.normal(size=p), 0.0) / np.sqrt(p / 3)
    y = {
        "number": eta + 0.5 * rng.normal(size=n),
        "two": (eta + rng.logistic(size=n) > 0).astype(float),
        "five": np.digitize(eta + 0.3 * rng.normal(size=n), [-1.0, -0.3, 0.3, 1.0]),
        "count": rng.poisson(np.exp(0.5 * eta)).astype(float),
    }[target]
    return {"x": X.tolist(), "y": np.array(list("abcde"))[y].tolist() if target == "five" else y.tolist()}


def matrices(p: int, k: int) -> Document:
    """Criteria of the caller's own: tridiagonal matrices on parts of a line."""
    rng = np.random.default_rng(p)
    line = np.arange(p)
    first = {"rows": line.tolist(), "columns": line.tolist(), "values": [1.0] * p}
    parts = np.array_split(np.arange(p - 1), k)
    others = [
        {
            "rows": np.concatenate([j, j + 1, j, j + 1]).tolist(),
            "columns": np.concatenate([j, j + 1, j + 1, j]).tolist(),
            "values": [1.0] * (2 * len(j)) + [-1.0] * (2 * len(j)),
        }
        for j in parts
    ]
    b = np.sin(line / p * 9) + 0.3 * rng.normal(size=p)
    vectors = [b.tolist(), *([[0.0] * p] * k)]
    identity = {**first}
    truth = np.sin(line / p * 9)
    return {
        "matrices": [first, *others], "vectors": vectors,
        "selection": {"matrix": identity, "vector": (-truth).tolist(), "constant": float(truth @ truth) / 2},
    }  # fmt: skip


def job(data: Document, training: str, **rest: Any) -> Document:
    """A spec; settings of training stand in `training_`."""
    settings = rest.pop("training_", {})
    return {"data": data, "training": {"kind": training, **settings}, **rest}


def jobs(*, short: bool) -> Iterator[tuple[str, Document]]:
    """A job of each kind that costs differently, by its name."""
    large = 1 if short else 3
    folds = {"nested": {"folds": 5}}
    yield "ridge, small", job(table(100, 5), "ridge")
    yield "ridge, large", job(table(2000 * large, 100 * large), "ridge")
    yield "ridge, wide", job(table(100, 700 * large), "ridge")
    yield "ridge, per feature", job(table(600, 100 * large), "ridge", training_=PER_FEATURE)
    yield "ridge, lbfgs", job(table(600, 60 * large), "ridge", training_=PER_FEATURE, outer={"kind": "lbfgs"})
    yield "ridge, 3 starts", job(table(600, 60), "ridge", training_=PER_FEATURE, outer=STARTS)
    yield "ridge, nested", job(table(600, 60), "ridge", training_=PER_FEATURE, **folds)
    yield "ridge, small, nested", job(table(100, 5), "ridge", **folds)
    yield "ridge, leave one out", job(table(400 * large, 60 * large), "ridge", selection={"kind": "leave_one_out"})
    yield "ridge, two penalties", job(table(300, 10), "ridge", training_=GROUPS)
    yield (
        "ridge, example weights",
        job(
            table(300 * large, 20),
            "ridge",
            training_={"weights": {"kind": "exponential_time"}},
            selection={"kind": "k_fold"},
        ),
    )
    yield "ridge, evidence", job(table(600, 200), "ridge", training_=PER_FEATURE, selection={"kind": "evidence"})
    yield "logistic, small", job(table(200, 5, "two"), "logistic")
    yield "logistic, per feature", job(table(800 * large, 30 * large, "two"), "logistic", training_=PER_FEATURE)
    yield "logistic, nested", job(table(600, 20, "two"), "logistic", training_=PER_FEATURE, **folds)
    yield (
        "logistic, alo",
        job(table(600, 60, "two"), "logistic", selection={"kind": "approximate_leave_one_out"}),
    )
    yield "logistic, cg", job(table(400, 100 * large, "two"), "logistic", training_={"solver": "newton_cg"})
    yield "logistic, 3 starts", job(table(400, 10, "two"), "logistic", training_=PER_FEATURE, outer=STARTS)
    yield "multinomial, cg", job(table(500 * large, 240, "five"), "multinomial")
    yield "multinomial", job(table(400, 20, "five"), "multinomial")
    yield "poisson", job(table(800, 30, "count"), "poisson", training_=PER_FEATURE)
    yield "kernel ridge", job(table(200 * large, 5), "kernel_ridge")
    yield "kernel ridge, widths", job(table(150, 6), "kernel_ridge", training_=WIDTHS)
    yield "kernel ridge, evidence", job(table(200 * large, 5), "kernel_ridge", selection={"kind": "evidence"})
    yield "kernel ridge, nested", job(table(150, 5), "kernel_ridge", **folds)
    yield "kernel svm", job(table(300, 5, "two"), "kernel_svm")
    yield "kernel logistic", job(table(200, 5, "two"), "kernel_logistic")
    yield "landmarks", job(table(2000, 5), "kernel_ridge", training_={"landmarks": {"count": 100}})
    yield "svm, landmarks", job(table(2000, 5, "two"), "kernel_svm", training_={"landmarks": {"count": 100}})
    yield "quadratic", job(matrices(2000 * large, 4), "quadratic")


def carried_out(spec: JobSpec) -> tuple[int, float]:
    """Evaluations of the search, and CPU seconds of all of the job."""
    problem, plan = spec.problem(), spec.plan()
    began = time.process_time()
    prepared = prepare(problem, plan)
    *_, step = carry_out(prepared)
    conclude(prepared, step.best, Descents(prepared).of(step.best, step.starts))
    return step.evaluations, time.process_time() - began


def main(*, short: bool) -> None:
    print(f"{'':24s} evaluations    seconds: estimated  measured  estimated / measured")
    ratios = []
    for name, document in jobs(short=short):
        spec = JobSpec.model_validate_json(json.dumps(document))
        cost = estimate(spec, None)
        evaluations, seconds = carried_out(spec)
        ratios.append(cost.seconds / seconds)
        counts = f"{cost.evaluations:5.0f} {evaluations:5d}"
        shown = f"{cost.seconds:19.3f} {seconds:9.3f} {ratios[-1]:9.2f}"
        print(f"{name:24s} {counts}    {shown}", flush=True)
    logs = np.abs(np.log(ratios))
    print(f"within a factor of 3: {np.mean(logs <= np.log(3)):.0%}; median factor {np.exp(np.median(logs)):.2f}")
