"""CPU seconds until each method is within 1e-3 and 1e-6 of the best objective that any of them finds.

Every method has a process of its own and one BLAS thread; loading and a tiny warm-up are not counted, building moments
is. Every point that a method finds is evaluated by one and the same objective.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.peers.tasks import SIZES, Task, build

SECONDS, SHORT_SECONDS = 30, 1  # CPU seconds of a method
REPEATS = 3
LONG = {"1000 single penalties": 300}  # where the peers need more
TOLERANCES = (1e-3, 1e-6)
RIDGE_PEERS = ("gradtune_lbfgs", "best_shared", "optuna_tpe", "cma_es", "torch_lbfgs")
PEERS = {
    "one penalty": (
        "gradtune_lbfgs", "best_shared", "eigendecomposition", "grid_search", "himalaya_ridge", "optuna_tpe",
        "torch_lbfgs",
    ),
    "20 groups": (*RIDGE_PEERS, "himalaya_random", "himalaya_gradient"),
    "100 single penalties": RIDGE_PEERS,
    "1000 single penalties": RIDGE_PEERS,
    "20 spline terms, GCV": ("gradtune_lbfgs", "best_shared", "cma_es", "pygam", "mgcv_gcv", "mgcv_magic"),
}  # fmt: skip
NEEDS = {
    "grid_search": "sklearn", "himalaya_ridge": "himalaya", "himalaya_random": "himalaya",
    "himalaya_gradient": "himalaya", "optuna_tpe": "optuna", "cma_es": "cmaes", "torch_lbfgs": "torch",
    "pygam": "pygam",
}  # fmt: skip
SHORT = ("gradtune", "eigendecomposition", "himalaya_random", "cma_es", "pygam")
SHORT_TASKS = ("one penalty", "20 groups", "20 spline terms, GCV")


@dataclass(frozen=True)
class Trace:
    """CPU seconds and value, by the common objective, of each point found; a note where there is none."""

    seconds: list[float]
    values: list[float]
    note: str = ""

    def reached(self, target: float) -> float | None:
        """CPU seconds until the target, None if it was not reached."""
        return next((s for s, value in zip(self.seconds, self.values, strict=True) if value <= target), None)


def available(method: str) -> bool:
    if method.startswith("mgcv"):
        return shutil.which("Rscript") is not None
    return method not in NEEDS or importlib.util.find_spec(NEEDS[method]) is not None


def run(name: str, method: str, size: str, seconds: int, task: Task) -> Trace:
    """The fastest of three runs where they are short: the first one often meets memory that was never touched."""
    traces = [once(name, method, size, seconds, task)]
    while traces[0].seconds and traces[0].seconds[-1] < seconds / 10 and len(traces) < REPEATS:
        traces.append(once(name, method, size, seconds, task))
    return min(traces, key=lambda trace: trace.seconds[-1:])


def once(name: str, method: str, size: str, seconds: int, task: Task) -> Trace:
    command = [sys.executable, "-m", "benchmarks.peers.child", name, method, size, str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20 * seconds + 600, check=False)
    lines: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines() if line.endswith("}")]
    found = [(line["seconds"], task.value(np.array(line["rho"]))) for line in lines if "rho" in line]
    if not found:
        cause = done.stderr.strip().splitlines()[-1:] or [f"nothing found in {seconds} s"]
        return Trace([], [], cause[0][:80] if done.returncode > 0 else f"nothing found in {seconds} s")
    return Trace([s for s, _ in found], [value for _, value in found])


def show(traces: dict[str, Trace]) -> None:
    best = min(value for trace in traces.values() for value in trace.values)
    targets = [best + tolerance * abs(best) for tolerance in TOLERANCES]
    ours = [traces["gradtune"].reached(target) for target in targets]
    for method, trace in traces.items():
        if not trace.values:
            print(f"{method:>20}: {trace.note}", flush=True)
            continue
        cells = []
        for mine, target in zip(ours, targets, strict=True):
            took = trace.reached(target)
            ratio = f"({took / mine:6.1f} x)" if took is not None and mine else ""
            cells.append(f"{took:8.3f} s {ratio:11}" if took is not None else f"{'-':>8} {'':13}")
        print(f"{method:>20}: {'  '.join(cells)}  best found {min(trace.values) / best - 1:8.1e} off", flush=True)


def main(*, short: bool) -> None:
    size = "short" if short else "full"
    within = ", ".join(f"{tolerance:g}" for tolerance in TOLERANCES)
    print(f"CPU seconds to within {within} (relative) of the best found by anyone")
    for name in SHORT_TASKS if short else SIZES:
        task, seconds = build(name, size), SHORT_SECONDS if short else LONG.get(name, SECONDS)
        about = f"X {task.X.shape[0]} x {task.X.shape[1]}, {task.k} penalties; limit {seconds} CPU s a method"
        print(f"-- {name}: {about}", flush=True)
        methods = [m for m in ("gradtune", *PEERS[name]) if not short or m in SHORT]
        missing = [m for m in methods if not available(m)]
        show({m: run(name, m, size, seconds, task) for m in methods if m not in missing})
        if missing:
            print(f"not installed: {', '.join(missing)}", flush=True)
