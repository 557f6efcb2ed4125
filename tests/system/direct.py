"""Runs the core alone on a spec from standard input, without service, queue or checkpoint, and prints the numbers."""

from __future__ import annotations

import json
import sys

from worker.contract.spec import JobSpec
from worker.core.search.descents import Descents
from worker.core.search.plan import prepare
from worker.core.search.tune import tune
from worker.core.verdict.conclude import conclude


def main() -> None:
    spec = JobSpec.model_validate_json(sys.stdin.buffer.read())
    prepared = prepare(spec.problem(), spec.plan())
    *_, last = tune(prepared)
    conclusion = conclude(prepared, last.best, Descents(prepared).of(last.best, last.starts))
    assert conclusion.model is not None
    assert last.ended is not None
    print(json.dumps({
        "hyperparameters": prepared.objective.hyperparameters.natural(last.best.best.rho).tolist(),
        "value": last.best.best.selection,
        "coefficients": conclusion.model.coefficients.tolist(),
        "intercept": conclusion.model.intercept,
        "stop_reason": last.ended.code,
        "evaluations": last.evaluations,
        "iterations": last.iterations,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
