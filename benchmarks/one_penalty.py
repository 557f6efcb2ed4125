"""One penalty, 5 folds: beside scikit-learn's RidgeCV and GridSearchCV on a grid of 30. Each in its own process."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

import numpy as np

from worker.core.hypergradient import Implicit
from worker.core.outer import Newton, OuterAuto
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, prepare
from worker.core.search.tune import tune
from worker.core.selection import GivenFolds
from worker.core.training import Ridge

GRID = np.logspace(-4, 4, 30)  # lam in our scale; scikit-learn's alpha is lam times the rows


def data(n: int, p: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p)) * np.exp(0.5 * rng.normal(size=p))
    return X, X @ rng.normal(size=p) + 30.0 * rng.normal(size=n)


def cross_validated(X: np.ndarray, y: np.ndarray, lam: float) -> float:
    """The objective that everybody is judged by: 5-fold squared error, penalty on unscaled columns."""
    training = Ridge(standardize=False)
    problem = Problem(X, y, tuple(f"x{j}" for j in range(X.shape[1])))
    plan = Plan(training, folds(len(y)), Implicit(), Newton())
    return prepare(problem, plan).objective.value(np.array([np.log(lam)]))


def folds(n: int) -> GivenFolds:
    return GivenFolds(fold_of_row=tuple(i % 5 for i in range(n)))


def gradtune(X: np.ndarray, y: np.ndarray) -> float:
    problem = Problem(X, y, tuple(f"x{j}" for j in range(X.shape[1])))
    prepared = prepare(problem, Plan(Ridge(standardize=False), folds(len(y)), Implicit(), Newton(tolerance=1e-8)))
    *_, last = tune(prepared)
    return float(np.exp(last.best.best.rho[0]))


def scanned(X: np.ndarray, y: np.ndarray) -> tuple[float, int, int]:
    """As the service does by default: the penalty, all evaluations, and those of the scan."""
    problem = Problem(X, y, tuple(f"x{j}" for j in range(X.shape[1])))
    prepared = prepare(problem, Plan(Ridge(standardize=False), folds(len(y)), Implicit(), OuterAuto(tolerance=1e-8)))
    *_, last = tune(prepared)
    return float(np.exp(last.best.best.rho[0])), last.evaluations, last.scanned


def default(X: np.ndarray, y: np.ndarray) -> float:
    return scanned(X, y)[0]


def ridge_cv(X: np.ndarray, y: np.ndarray) -> float:
    from sklearn.linear_model import RidgeCV  # noqa: PLC0415 - not in the other processes

    return float(RidgeCV(GRID * len(y)).fit(X, y).alpha_) / len(y)


def grid_search(X: np.ndarray, y: np.ndarray) -> float:
    from sklearn.linear_model import Ridge as SklearnRidge  # noqa: PLC0415
    from sklearn.model_selection import GridSearchCV, PredefinedSplit  # noqa: PLC0415

    rows = 0.8 * len(y)
    search = GridSearchCV(
        SklearnRidge(),
        {"alpha": GRID * rows},
        cv=PredefinedSplit(np.arange(len(y)) % 5),
        scoring="neg_mean_squared_error",
    )
    return float(search.fit(X, y).best_params_["alpha"]) / rows


PEERS = {"gradtune": gradtune, "with scan": default, "RidgeCV": ridge_cv, "GridSearchCV": grid_search}


def child(name: str, n: int, p: int) -> None:
    small = data(50, 5)
    PEERS[name](*small)  # imports and first calls are not what is measured
    X, y = data(n, p)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    lam = PEERS[name](X, y)
    took = time.perf_counter() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps({"lam": lam, "seconds": took, "megabytes": grown}))


def main(*, short: bool) -> None:
    n, p = (400, 100) if short else (4000, 1000)
    found = {}
    for name in PEERS:
        command = [sys.executable, "-m", "benchmarks.one_penalty", name, str(n), str(p)]
        found[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    values = {name: cross_validated(*data(n, p), reply["lam"]) for name, reply in found.items()}
    best = min(values.values())
    print(f"{n} x {p}, one penalty; X itself is {8 * n * p / 2**20:.0f} MB; RidgeCV minimizes leave-one-out instead")
    _, evaluations, of_scan = scanned(*data(n, p))
    print(f"auto: {evaluations} evaluations, {of_scan} of them by the scan")
    for name, reply in found.items():
        print(
            f"{name:>12}: {reply['seconds']:7.2f} s ({reply['seconds'] / found['gradtune']['seconds']:5.1f} x)"
            f"  {reply['megabytes']:6.0f} MB more  penalty {reply['lam']:.5g}"
            f"  5-fold error above the best {values[name] / best - 1:.1e}"
        )


if __name__ == "__main__":
    child(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
