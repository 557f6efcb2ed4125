"""What a spec would do, without doing it."""

from __future__ import annotations

from typing import Any

import numpy as np

from worker.contract.spec import JobSpec
from worker.core.tune import resolve, split_rows

RATE = 1e10  # flops a second that one core reaches in the factorizations of mid-sized problems
OVERHEAD = 1e-4  # seconds for each split of an evaluation, whatever its size
EVALUATIONS = {"newton": 25, "lbfgs": 120}  # typical of one start


def validation_view(spec: JobSpec, description: dict[str, Any], fingerprint: str) -> dict[str, Any]:
    """The spec with every default, the hyperparameters, the methods that `auto` picks, and the cost."""
    names = spec.plan().hyperparameters(spec.problem()).names
    hypergradient, outer = resolve(spec.plan(), len(names))
    dual, cost = _cost(spec, len(names), outer.kind)
    return {
        "spec": description,
        "hyperparameters": len(names),
        "names": names[:1000],
        "method": {
            "hypergradient": hypergradient.kind,
            "outer": outer.kind,
            "solver": "dual" if dual else "primal",
        },
        "cost": cost,
        "fingerprint": fingerprint,
    }


def _cost(spec: JobSpec, k: int, outer: str) -> tuple[bool, dict[str, float]]:
    """Flops of statistics, factorizations and Hessians; bytes of what is held at once; seconds on one core."""
    n, p = len(spec.data.x), len(spec.data.x[0])
    rows, _ = split_rows(n, spec.plan())
    partition = spec.selection.partition(rows, n)
    splits = len(partition.splits)
    sizes = np.bincount(partition.block_of_row + 1)[1:]
    train = max(int(sizes[list(blocks)].sum()) for blocks, _ in partition.splits)
    closed = spec.selection.closed_form
    forms = spec.training.penalty.matrices(spec.features())[1]
    dual = not closed and spec.training.prefers_dual(train, forms)
    size = train if dual else p
    evaluation = splits * (
        size**3 / 3 + 8 * size * p + (train**2 * p if dual else 0) + (2 * n * p * p if closed else 0)
    )
    hessian = splits * (4 * size * p * k + 2 * size * k * k) + 9 * k**3 if outer == "newton" else 0.0
    evaluations = spec.outer.starts * min(EVALUATIONS[outer], spec.outer.max_iterations + 1)
    evaluations = min(evaluations, spec.limits.evaluations or evaluations)
    flops = n * p * p + evaluations * (evaluation + hessian)
    held = splits * (3 * size * size + (2 * n * p if dual else 0)) + 2 * n * p
    seconds = flops / RATE + evaluations * splits * OVERHEAD
    return dual, {"evaluations": evaluations, "flops": float(flops), "bytes": 8.0 * held, "seconds": seconds}
