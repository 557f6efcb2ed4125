"""Small jobs of every kind whose numbers do not hang on the last digits: one optimum inside the box, bent both ways.

The data come from whole numbers and have two digits: the same bytes on every machine. The seeds were chosen for the
sake of the optimum: where J has corners, it is in none. A hyper-prior is in the cases of `spread` alone; the others are
plain tuning, whose numbers are those of algorithm 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

ROWS = 30
TOLERANCE = 1e-9  # of the search
CURVATURE = 5e-3  # of J over its unit, the least in any direction at the optimum of each case


def draws(seed: int) -> Iterator[float]:
    """Between -2 and 2, about normal: the multiplicative generator of Park and Miller."""
    while True:
        total = 0
        for _ in range(3):
            seed = 48271 * seed % (2**31 - 1)
            total += seed
        yield round(4 * total / (3 * (2**31 - 1)) - 2, 2)


def linear(x: list[float], e: float) -> float:
    return x[0] - 0.7 * x[1] + 0.4 * x[2] + e


def curved(x: list[float], e: float) -> float:
    return x[0] ** 2 - x[1] + 0.7 * e


TARGETS: dict[str, Callable[[list[float], float], float | str]] = {
    "ridge": lambda x, e: round(linear(x, e), 2),
    "logistic": lambda x, e: "yes" if linear(x, e) > 0 else "no",
    "multinomial": lambda x, e: "abc"[(linear(x, e) > -0.5) + (linear(x, e) > 0.5)],
    "poisson": lambda x, e: max(0, math.floor(1.5 + linear(x, e))),
    "gamma": lambda x, e: round(max(0.1, 2.5 + linear(x, e)), 2),
    "kernel_ridge": lambda x, e: round(curved(x, e), 2),
    "kernel_logistic": lambda x, e: "yes" if curved(x, e) > 0.5 else "no",
}
TARGETS |= {"huber": TARGETS["ridge"], "squared_hinge": TARGETS["logistic"], "kernel_svm": TARGETS["kernel_logistic"]}


def table(kind: str, seed: int) -> dict[str, Any]:
    """Inline data for a training criterion."""
    random = draws(seed)
    x = [[next(random) for _ in range(3)] for _ in range(ROWS)]
    return {"x": x, "y": [TARGETS[kind](row, next(random)) for row in x]}


def job(training: dict[str, Any] | str, seed: int, **parts: Any) -> dict[str, Any]:
    """The request of a case: three folds and a tight search unless `parts` say otherwise."""
    given = {"kind": training} if isinstance(training, str) else training
    outer = {"kind": "auto", "tolerance": TOLERANCE, "max_iterations": 1000, **parts.pop("outer", {})}
    data = table(given["kind"], seed)
    return {"data": data, "training": given, "selection": {"kind": "k_fold", "folds": 3}, "outer": outer, **parts}


def selected(kind: str, seed: int, training: dict[str, Any] | str = "ridge", **settings: Any) -> dict[str, Any]:
    return job(training, seed, selection={"kind": kind, **settings})


PENALTIES = {"kind": "ridge", "penalty": {"kind": "per_feature", "spread": None}}
CRITERIA: dict[str, Any] = {
    "matrices": [
        [[2.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]],
        {"rows": [0, 1, 2, 1], "columns": [1, 0, 2, 1], "values": [-0.5, -0.5, 1.0, 1.0]},
        None,
    ],
    "vectors": [[1.0, -1.0, 0.5], None, [0.0, 1.0, 0.0]],
    "selection": {"matrix": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "vector": [-0.3, -0.2, -0.1], "constant": 0.5},
}
QUADRATIC = {"data": CRITERIA, "training": {"kind": "quadratic"}, "outer": {"kind": "auto", "tolerance": TOLERANCE}}
TRAINING: dict[str, dict[str, Any]] = {
    "ridge": job(PENALTIES, 7),
    "logistic": job("logistic", 3),
    "multinomial": job("multinomial", 1),
    "poisson": job("poisson", 1),
    "gamma": job("gamma", 1),
    "huber": job("huber", 2),
    "squared_hinge": job("squared_hinge", 1),
    "kernel_ridge": job("kernel_ridge", 29),
    "kernel_svm": job("kernel_svm", 8),  # the squared hinge, which is the default
    "kernel_svm, huberized": job({"kind": "kernel_svm", "hinge": "huberized"}, 14),
    "kernel_logistic": job("kernel_logistic", 1),
    "quadratic": QUADRATIC,
}
SELECTION: dict[str, dict[str, Any]] = {
    "k_fold": job("ridge", 3),
    "holdout": selected("holdout", 6, fraction=0.4),
    "given_folds": selected("given_folds", 3, fold_of_row=[i % 4 for i in range(ROWS)]),
    "group_k_fold": selected("group_k_fold", 4, group_of_row=[i // 4 for i in range(ROWS)], folds=3),
    "stratified_k_fold": selected("stratified_k_fold", 3, "logistic", folds=3),
    "stratified_group_k_fold": selected(
        "stratified_group_k_fold", 3, "logistic", group_of_row=[i // 3 for i in range(ROWS)], folds=3
    ),
    "walk_forward": selected("walk_forward", 3, initial=12, horizon=6),
    "leave_one_out": selected("leave_one_out", 3),
    "approximate_leave_one_out": selected("approximate_leave_one_out", 3, "logistic"),
    "generalized_cv": selected("generalized_cv", 5),
    "evidence": selected("evidence", 3),
    "marginal_likelihood": selected("marginal_likelihood", 3),
    "reml": selected("reml", 3),
    "laplace_evidence": selected("laplace_evidence", 3, "logistic"),
    "leave_one_out of kernel_ridge": selected("leave_one_out", 18, "kernel_ridge"),
    "evidence of kernel_ridge": selected("evidence", 4, "kernel_ridge"),
    "quadratic": QUADRATIC,
}
OUTER: dict[str, dict[str, Any]] = {
    "newton": job("ridge", 5, outer={"kind": "newton"}),
    "lbfgs": job(PENALTIES, 7, outer={"kind": "lbfgs"}),
    "inexact": job("logistic", 3, outer={"kind": "inexact"}),
    "hoag": job("logistic", 3, outer={"kind": "hoag", "tolerance": 1e-4}),  # it has no finer steps
}
LIKE_PENALTIES = {"kind": "ridge", "penalty": {"kind": "per_feature"}}
LIKE_WIDTHS = {"kind": "kernel_ridge", "kernel": {"kind": "rbf", "widths": {"kind": "per_feature", "spread": 0.5}}}
SPREAD: dict[str, dict[str, Any]] = {
    "auto": job(LIKE_PENALTIES, 7),
    "auto, lbfgs": job(LIKE_PENALTIES, 7, outer={"kind": "lbfgs"}),
    "auto, of classes": job({"kind": "multinomial", "penalty": {"kind": "per_class"}}, 2),
    "given, of widths": job(LIKE_WIDTHS, 31),
    "auto, without a choice": selected("evidence", 1, LIKE_PENALTIES),
    "given": job({"kind": "logistic", "penalty": {"kind": "per_feature", "spread": 0.5}}, 5),
    "given, several starts": job(
        {"kind": "poisson", "penalty": {"kind": "per_feature", "spread": 1.0}}, 4, outer={"starts": 2}
    ),
}
HYPERGRADIENT = {"cholesky_backprop": job(PENALTIES, 7, hypergradient={"kind": "cholesky_backprop"})}
CASES = {
    f"{family}: {name}": request
    for family, requests in {
        "training": TRAINING, "selection": SELECTION, "outer": OUTER, "hypergradient": HYPERGRADIENT, "spread": SPREAD,
    }.items()
    for name, request in requests.items()
}  # fmt: skip
