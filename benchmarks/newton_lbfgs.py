"""Newton with the exact hyper-Hessian beside L-BFGS-B: evaluations and CPU seconds until both have the same value."""

from __future__ import annotations

import time

import numpy as np

from worker.core.hypergradient import Implicit
from worker.core.outer import ConcreteOuter, Lbfgs, Newton
from worker.core.penalties import PerFeature
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, prepare
from worker.core.search.tune import tune
from worker.core.selection import KFold
from worker.core.training import Ridge

Trace = list[tuple[float, int, float]]  # seconds, evaluations, best value


def problem(seed: int, n: int, p: int, relevant: float, correlation: float) -> Problem:
    """Coefficients over several orders of magnitude; a share of them relevant; columns correlated with neighbours."""
    rng = np.random.default_rng(seed)
    distance = np.abs(np.subtract.outer(np.arange(p), np.arange(p)))
    X = rng.normal(size=(n, p)) @ np.linalg.cholesky(correlation**distance).T
    theta = rng.normal(size=p) * np.exp(1.5 * rng.normal(size=p))
    theta[int(relevant * p) :] = 0.0
    return Problem(X, X @ theta + 5.0 * rng.normal(size=n), tuple(f"x{j}" for j in range(p)))


def trace(table: Problem, outer: ConcreteOuter) -> Trace:
    prepared = prepare(table, Plan(Ridge(penalty=PerFeature()), KFold(), Implicit(), outer))
    began = time.process_time()
    return [(time.process_time() - began, step.evaluations, step.best.best.value) for step in tune(prepared)]


def reached(run: Trace, target: float) -> tuple[float, int]:
    return next((seconds, evaluations) for seconds, evaluations, value in run if value <= target)


def main(*, short: bool) -> None:
    n, p, seeds = (400, 40, 1) if short else (2000, 200, 3)
    print(f"{n} x {p}, {p} penalties, 5 folds; CPU seconds, one BLAS thread")
    print("'same value': within 1e-6 of the higher of the two final values")
    ratios = []
    for relevant, correlation in ((1.0, 0.01), (0.25, 0.01), (0.25, 0.5)):
        for seed in range(seeds):
            table = problem(seed, n, p, relevant, correlation)
            newton = trace(table, Newton(tolerance=1e-7, max_iterations=300))
            lbfgs = trace(table, Lbfgs(tolerance=1e-7, max_iterations=3000))
            target = max(newton[-1][2], lbfgs[-1][2]) * (1 + 1e-6)
            (ours, evaluations), (theirs, their_evaluations) = reached(newton, target), reached(lbfgs, target)
            ratios.append(theirs / ours)
            print(
                f"relevant {relevant:4.2f} correlation {correlation:4.2f} seed {seed}: "
                f"newton {evaluations:4d} evaluations {ours:5.2f} s (ends at {newton[-1][2]:.5f}); "
                f"lbfgs {their_evaluations:4d} {theirs:5.2f} s (ends at {lbfgs[-1][2]:.5f} after {lbfgs[-1][1]}); "
                f"ratio of seconds {theirs / ours:4.1f}",
                flush=True,
            )
    print(f"geometric mean of the ratios of seconds: {np.exp(np.mean(np.log(ratios))):.1f}")
