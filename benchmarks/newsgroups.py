"""20 newsgroups, one penalty, hold-out: CPU seconds to within 1e-3 and 1e-6 of the best log-loss that anyone finds.

The home ground of HOAG (Pedregosa 2016): tf-idf of words, logistic regression, the penalty between 1e-8 and 1e4. All
penalties found are judged by one objective, solved exactly. Each method has a process of its own.
"""

from __future__ import annotations

import collections
import functools
import json
import resource
import subprocess
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.peers import Trace, show
from benchmarks.real_data import Labelled, newsgroups
from worker.core.hypergradient import Implicit
from worker.core.outer import Hoag, Inexact, Lbfgs, Newton, Outer
from worker.core.penalties import Shared
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, Prepared, prepare
from worker.core.search.tune import tune
from worker.core.selection import Holdout
from worker.core.training import LogisticRegression

LOWER, UPPER, INITIAL = 1e-8, 1e4, 1e-3


@dataclass(frozen=True)
class Task:
    """Two classes, or one against all others."""

    classes: tuple[int, int] | int
    intercept: bool = False


TASKS = {
    "a pair": Task((0, 1)),
    "a pair, intercept": Task((0, 1), intercept=True),
    "one against the rest": Task(0),
}
OURS = {"gradtune": Inexact, "gradtune_newton": Newton, "gradtune_lbfgs": Lbfgs, "gradtune_hoag": Hoag}
GRIDS = [f"{solver}_{count}" for count in (10, 30) for solver in ("lbfgs", "newton-cg", "liblinear")]
SEARCHES = ["optuna_tpe", "optuna_gp"]

Found = Callable[[float], None]


@functools.cache
def names(count: int) -> tuple[str, ...]:
    return tuple(f"w{j}" for j in range(count))


def objective(data: Labelled, task: Task, outer: Outer, initial: float = INITIAL) -> Prepared:
    penalty = Shared(initial=initial, lower=LOWER, upper=UPPER)
    training = LogisticRegression(penalty=penalty, standardize=False, intercept=task.intercept)
    problem = Problem(data.X, data.y, names(data.X.shape[1]), classes=("other", "chosen"))
    return prepare(problem, Plan(training, Holdout(fraction=0.3), Implicit(), outer))


def parts(data: Labelled) -> tuple[np.ndarray, np.ndarray]:
    partition = Holdout(fraction=0.3).partition(np.arange(len(data.y)), len(data.y))
    return partition.rows((0,)), partition.rows((1,))


def ours(data: Labelled, task: Task, method: str, found: Found) -> None:
    best = np.inf
    for step in tune(objective(data, task, OURS[method](max_iterations=10_000, tolerance=1e-7))):
        if step.best.best.value < best:
            best = step.best.best.value
            found(float(np.exp(step.best.best.rho[0])))


def grid(data: Labelled, task: Task, method: str, found: Found) -> None:
    """scikit-learn's LogisticRegressionCV, the same split; its liblinear penalizes an intercept, too."""
    from sklearn.linear_model import LogisticRegressionCV  # noqa: PLC0415

    solver, count = method.split("_")
    train, scored = parts(data)
    C = np.sort(1.0 / (np.geomspace(LOWER, UPPER, int(count)) * len(train)))
    model = LogisticRegressionCV(
        Cs=C, cv=[(train, scored)], scoring="neg_log_loss", solver=solver,
        fit_intercept=task.intercept, max_iter=1000, refit=False, use_legacy_attributes=False,
    )  # fmt: skip
    found(float(1.0 / (np.ravel(model.fit(data.X, data.y).C_)[0] * len(train))))


def search(data: Labelled, task: Task, method: str, found: Found) -> None:
    """Optuna; each trial a fit of scikit-learn that is warm started from the one before."""
    import optuna  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression as Sklearn  # noqa: PLC0415
    from sklearn.metrics import log_loss  # noqa: PLC0415

    train, scored = parts(data)
    X, y, Xv, yv = data.X[train], data.y[train], data.X[scored], data.y[scored]
    model = Sklearn(fit_intercept=task.intercept, max_iter=1000, warm_start=True)
    best = np.inf

    def value(trial: optuna.Trial) -> float:
        nonlocal best
        lam = trial.suggest_float("lam", LOWER, UPPER, log=True)
        model.C = 1.0 / (lam * len(train))
        J = float(log_loss(yv, model.fit(X, y).predict_proba(Xv)))
        if best > J:
            best = J
            found(lam)
        return J

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    kinds = {"optuna_tpe": optuna.samplers.TPESampler, "optuna_gp": optuna.samplers.GPSampler}
    study = optuna.create_study(sampler=kinds[method](seed=0))
    study.enqueue_trial({"lam": INITIAL})
    study.optimize(value)


def child(name: str, method: str, seconds: int, directory: str) -> None:
    """Prints each point found with the CPU seconds so far; a few rows first, to import and to warm up."""
    warnings.simplefilter("ignore")
    task = TASKS[name]
    data = newsgroups(Path(directory), task.classes)
    run = ours if method in OURS else search if method in SEARCHES else grid
    rows = np.linspace(0, len(data.y) - 1, 60).astype(int)
    points = 0

    def enough(_: float) -> None:
        nonlocal points
        points += 1
        if points == 2:
            raise StopIteration

    with suppress(StopIteration):
        run(data[rows], task, method, enough)
    began = time.process_time()
    limit = int(np.ceil(began)) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))  # the process is killed there

    def found(lam: float) -> None:
        print(json.dumps({"seconds": time.process_time() - began, "lam": lam}), flush=True)

    run(data, task, method, found)


def trace(name: str, method: str, seconds: int, directory: Path, judge: Prepared) -> Trace:
    command = [sys.executable, "-m", "benchmarks.newsgroups", name, method, str(seconds), str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20 * seconds + 600, check=False)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.endswith("}")]
    if not found:
        return Trace([], [], (done.stderr.strip().splitlines() or [f"nothing found in {seconds} s"])[-1][:80])
    values = [judge.objective.value(np.log([point["lam"]])) for point in found]
    return Trace([point["seconds"] for point in found], values)


def twenty_starts(name: str, data: Labelled, count: int) -> None:
    """From all over the box: the spread of where they end, and the memory beyond the data."""
    values, evaluations = [], []
    for initial in np.geomspace(LOWER, UPPER, count):
        *_, last = tune(objective(data, TASKS[name], Inexact(tolerance=1e-9), float(initial)))
        values.append(last.best.best.value)
        evaluations.append(last.evaluations)
    print(f"{name}: {count} starts over the box end between {min(values):.10g} and {max(values):.10g}, "
          f"with {min(evaluations)} to {max(evaluations)} evaluations")  # fmt: skip


def memory(name: str, directory: Path) -> None:
    """Peak memory of the arrays and objects of one tuning beside the data; in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.newsgroups", name, "memory", "0", str(directory)]
    print(subprocess.run(command, capture_output=True, text=True, check=True).stdout, end="")


def memory_child(name: str, directory: str) -> None:
    data = newsgroups(Path(directory), TASKS[name].classes)
    size = data.X.data.nbytes + data.X.indices.nbytes + data.X.indptr.nbytes + data.y.nbytes
    names(data.X.shape[1])  # the caller's, as the rows are
    tracemalloc.start()
    collections.deque(tune(objective(data, TASKS[name], Inexact())), maxlen=0)  # keeps no step but the last
    grown = tracemalloc.get_traced_memory()[1]
    print(f"memory: {grown / 2**20:.1f} MB at most, {grown / size:.2f} of the data's {size / 2**20:.0f}")


def main(*, short: bool, data: Path | None) -> None:
    if data is None:
        print("needs --data DIR or GRADTUNE_DATA, a directory with twenty_newsgroups: left out")
        return
    seconds = 3 if short else 30
    print(f"CPU seconds to within 1e-3, 1e-6 (relative) of the best found by anyone; limit {seconds} CPU s a method")
    for name in list(TASKS)[: 1 if short else None]:
        rows = newsgroups(data, TASKS[name].classes)
        judge = objective(rows, TASKS[name], Inexact())
        print(f"-- {name}: {rows.X.shape[0]} x {rows.X.shape[1]}, {rows.X.nnz} values", flush=True)
        methods = ["gradtune", "lbfgs_10"] if short else [*OURS, *GRIDS, *SEARCHES]
        show({method: trace(name, method, seconds, data, judge) for method in methods})
        memory(name, data)
    for name in list(TASKS)[: 1 if short else None]:
        twenty_starts(name, newsgroups(data, TASKS[name].classes), 3 if short else 20)


if __name__ == "__main__":
    if sys.argv[2] == "memory":
        memory_child(sys.argv[1], sys.argv[4])
    else:
        child(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
