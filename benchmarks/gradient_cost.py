"""What the exact gradient costs beside the value alone."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from worker.core.hypergradient import CholeskyBackprop, ExactHypergradient, Implicit
from worker.core.objective.means import mean_of_ridge
from worker.core.penalties import Penalty, PerFeature, PerGroup, Shared
from worker.core.rows.problem import Problem
from worker.core.selection import KFold
from worker.core.training import Ridge


def problem(n: int, p: int) -> Problem:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p))
    return Problem(X, X @ rng.normal(size=p) + rng.normal(size=n), tuple(f"x{j}" for j in range(p)))


def penalties(names: tuple[str, ...]) -> list[Penalty]:
    return [Shared(), PerGroup(groups={f"g{i}": names[i::100] for i in range(100)}), PerFeature()]


def seconds(f: Callable[[np.ndarray], object], points: list[np.ndarray]) -> float:
    began = time.process_time()
    for rho in points:
        f(rho)
    return (time.process_time() - began) / len(points)


def main(*, short: bool) -> None:
    sizes = (200,) if short else (1000, 2000)
    print("(gradient + value) / value alone; 5 folds, CPU seconds, one BLAS thread")
    for p in sizes:
        table = problem(2 * p, p)
        partition = KFold().partition(np.arange(2 * p), 2 * p)
        for penalty in penalties(table.features):
            training = Ridge(penalty=penalty)
            systems = training.systems(table, partition)
            box = training.hyperparameters(table)
            k = len(box.names)
            methods: tuple[ExactHypergradient, ...] = (Implicit(), CholeskyBackprop())
            rounds = 3 if p < 2000 else 2
            ratios = {}
            for method in methods:
                objective = mean_of_ridge(systems, box, method, eliminated=training.eliminates_intercept)
                pairs = []
                for i in range(rounds + 1):  # the first round warms up
                    points = [np.full(k, 0.1 * i + 0.01 * j) for j in range(4)]
                    halves = points[:2], points[2:]
                    pairs.append((seconds(objective.value, halves[0]), seconds(objective.evaluate, halves[1])))
                values, both = (min(pair[side] for pair in pairs[1:]) for side in (0, 1))
                ratios[method.kind] = both / values
            shown = "  ".join(f"{kind} {ratio:5.2f}" for kind, ratio in ratios.items())
            print(f"p = {p:5d}, k = {k:5d}: {shown}   (value alone {values * 1e3:.0f} ms)", flush=True)
