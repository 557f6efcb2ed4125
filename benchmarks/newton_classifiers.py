"""Newton, L-BFGS-B and inexact descent of classifiers with many penalties: CPU seconds until all have the same value.

The tasks of `many_penalties`, and a penalty for each of a9a's 123 columns. A search that fits its selection rows better
and better has no end, so each has a number of iterations.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.many_penalties import BOX, Task, tasks
from worker.core.hypergradient import Implicit
from worker.core.outer import ConcreteOuter, Inexact, Lbfgs, Newton
from worker.core.penalties import ClassPenalty, PerCoefficient, PerFeature
from worker.core.search.plan import prepare
from worker.core.search.tune import tune

Trace = list[tuple[float, int, float]]  # CPU seconds, evaluations, best value
LIMIT = 60.0  # CPU seconds of one search


def trace(task: Task, penalty: ClassPenalty, outer: ConcreteOuter) -> Trace:
    plan = replace(task.prepare(penalty).plan, outer=outer, hypergradient=Implicit())
    prepared, out = prepare(task.problem, plan), []
    began = time.process_time()
    for step in tune(prepared):
        out.append((time.process_time() - began, step.evaluations, step.best.best.value))
        if out[-1][0] > LIMIT:
            break
    return out


def reached(run: Trace, target: float) -> str:
    """The first that is no worse."""
    for seconds, evaluations, value in run:
        if value <= target:
            return f"{seconds:7.2f} s {evaluations:4d}"
    return "          never"


def cases(short: bool, data: Path | None) -> Iterator[tuple[Task, ClassPenalty]]:
    for task in tasks(short, data):
        if task.name == "a9a":
            yield task, PerFeature(**BOX)
        for penalty in task.penalties:
            yield task, penalty


def main(*, short: bool, data: Path | None) -> None:
    if data is None:
        print("a9a and spambase need --data DIR or GRADTUNE_DATA: left out")
    for task, penalty in cases(short, data):
        most = 60 if isinstance(penalty, PerCoefficient) else 1000
        runs = {outer.kind: trace(task, penalty, outer) for outer in (Newton(most), Lbfgs(5 * most), Inexact(5 * most))}
        best = min(run[-1][2] for run in runs.values())
        count = len(task.prepare(penalty).objective.hyperparameters.names)
        print(f"-- {task.name}, {penalty.kind}: {count} penalties, best J {best:.6g}", flush=True)
        goals = best * (1 + np.array([1e-2, 1e-3, 1e-6]))
        for kind, run in runs.items():
            marks = ", ".join(reached(run, goal) for goal in goals)
            print(f"{kind:>8}: {marks}; ends {run[-1][2]:.6g} after {run[-1][0]:.1f} s, {run[-1][1]}", flush=True)
