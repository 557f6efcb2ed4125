"""What a kernel machine's gradient costs beside one training, and how much memory large ones take.

Keerthi, Sindhwani and Chapelle (2006) report a fraction of the training time. Memory is that of a process of its own,
beyond what it has with the problem prepared.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from worker.core.hypergradient import Implicit
from worker.core.kernels import Rbf, WidthPerFeature
from worker.core.objective.objective import Objective
from worker.core.outer import Lbfgs
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, prepare
from worker.core.selection import Evidence, Holdout, LeaveOneOut, Selection
from worker.core.training import KernelLogistic, KernelRidge, KernelSvm
from worker.core.training.kernel_machines import KernelTraining, Landmarks

CASES: dict[str, tuple[Callable[..., KernelTraining], Selection]] = {
    "kernel_svm, holdout": (KernelSvm, Holdout(fraction=0.25)),
    "kernel_logistic, holdout": (KernelLogistic, Holdout(fraction=0.25)),
    "kernel_ridge, holdout": (KernelRidge, Holdout(fraction=0.25)),
    "kernel_ridge, evidence": (KernelRidge, Evidence()),
    "kernel_ridge, leave_one_out": (KernelRidge, LeaveOneOut()),
}
ROUNDS = 5
ARD = Rbf(widths=WidthPerFeature())


def problem(n: int, d: int, *, classes: bool) -> Problem:
    random = np.random.default_rng(0)
    X = random.normal(size=(n, d))
    t = np.sin(X[:, 0]) + X[:, -1] ** 2 / 2 + 0.5 * random.normal(size=n)
    names = tuple(f"x{j}" for j in range(d))
    return Problem(X, (t > 0.5).astype(float), names, classes=("0", "1")) if classes else Problem(X, t, names)


def objective_of(n: int, d: int, training: KernelTraining, selection: Selection) -> Objective:
    plan = Plan(training, selection, Implicit(), Lbfgs())
    return prepare(problem(n, d, classes=training.classifies), plan).objective


def seconds(f: Callable[[np.ndarray], object], rho: np.ndarray) -> float:
    began = time.process_time()
    f(rho)
    return time.process_time() - began


def costs(n: int, d: int, name: str) -> tuple[float, float]:
    """CPU seconds of one training with its score, from scratch, and of the gradient beyond that."""
    make, selection = CASES[name]
    objective = objective_of(n, d, make(kernel=ARD), selection)
    rho = objective.hyperparameters.initial
    values, both = [], []
    for _ in range(ROUNDS):
        objective.forget()
        values.append(seconds(objective.value, rho))
        objective.forget()
        both.append(seconds(objective.evaluate, rho))
    value = min(values)
    return value, min(both) - value


def _peak(n: int, d: int, training: KernelTraining, selection: Selection) -> float:
    """MB that value and gradient take beyond the prepared problem."""
    objective = objective_of(n, d, training, selection)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _resident()
    at = objective.evaluate(objective.hyperparameters.initial)
    assert at.failure is None
    return _resident() - before


def _resident() -> float:
    """Largest resident size so far, in MB."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main(*, short: bool) -> None:
    n = 400 if short else 2000
    print(f"gradient beyond the value, over the value of one training from scratch; {n} rows, d widths")
    for name in CASES:
        parts = [(d, *costs(n, d, name)) for d in ((1, 30) if short else (1, 30, 100))]
        shown = "   ".join(f"d = {d}: {grad / value:.2f} (of {value:.2f} s)" for d, value, grad in parts)
        print(f"{name:28s} {shown}", flush=True)
    large, many = (1000, 2000) if short else (5000, 20_000)
    fifth = Holdout(fraction=0.2)
    jobs: list[tuple[str, tuple[int, int, KernelTraining, Selection]]] = [
        (f"kernel_ridge, evidence, {large} rows", (large, 20, KernelRidge(ARD), Evidence())),
        (f"kernel_svm, holdout, {large} rows", (large, 20, KernelSvm(ARD), fifth)),
        (f"kernel_svm, {many} rows, 500 landmarks", (many, 20, KernelSvm(ARD, landmarks=Landmarks()), fifth)),
        (f"kernel_ridge, {many} rows, 500 landmarks", (many, 20, KernelRidge(ARD, landmarks=Landmarks()), fifth)),
    ]
    print("memory of value and gradient")
    for name, arguments in jobs:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peak = pool.apply(_peak, arguments)
        matrix = "" if "landmarks" in name else f", the kernel matrix itself {8e-6 * large**2:.0f} MB"
        print(f"{name:40s} {peak:7.0f} MB{matrix}", flush=True)
