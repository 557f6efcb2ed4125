"""Kernel machines beside a grid search, on Raetsch's suite; widths that find the relevant inputs of pumadyn32nm.

Each random split has the sizes of the suite. `one` has a penalty and one width, tuned by 5-fold cross-validation of a
smoothed error; `ARD` goes on from there with one width for each feature. The grid is scikit-learn's 5-fold search.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worker.core.hypergradient import Implicit
from worker.core.kernels import Rbf, SharedWidth, WidthPerFeature
from worker.core.model import Model, refit
from worker.core.outer import Lbfgs
from worker.core.records import Problem
from worker.core.scoring import SmoothedError
from worker.core.selection import Evidence, Selection, StratifiedKFold
from worker.core.training import KernelRidge, KernelSvm
from worker.core.training.kernel import KernelPenalty, KernelTraining
from worker.core.tune import Plan, prepare, tune

SETS = ("banana", "diabetis", "german", "heart", "image", "splice", "waveform")
SPLITS = {"image": 2, "splice": 2}  # 10 of the others
C_GRID, GAMMA_GRID = np.logspace(-2, 4, 13), np.logspace(-4, 1, 11)
FOLDS, SLOPE = 5, 6.0
EVALUATIONS = 7  # of the search of one width, and of that of all: 70 trainings, a tenth of the grid's


@dataclass(frozen=True)
class Found:
    """The error of the test rows, CPU seconds, and how many machines were trained."""

    error: float
    seconds: float
    trainings: int


def search(
    problem: Problem, training: KernelTraining, selection: Selection, evaluations: int, tolerance: float = 1e-3
) -> tuple[np.ndarray, int, Model]:
    """The best hyperparameters, the evaluations, and the model of all rows."""
    plan = Plan(training, selection, Implicit(), Lbfgs(tolerance=tolerance), max_evaluations=evaluations)
    prepared = prepare(problem, plan)
    step = list(tune(prepared))[-1]
    lam = prepared.objective.natural(step.best.best.rho)
    model = refit(training, problem, np.arange(len(problem.y)), lam)
    assert model is not None
    return lam, step.evaluations, model


def ours(train: Problem, test: Problem) -> tuple[Found, Found]:
    """One width, then one for each feature from there."""
    selection, began = StratifiedKFold(folds=FOLDS, loss=SmoothedError(slope=SLOPE)), time.process_time()
    lam, used, model = search(train, KernelSvm(penalty=KernelPenalty(initial=0.1)), selection, EVALUATIONS)
    one = Found(wrong(model, test), time.process_time() - began, FOLDS * used + 1)
    widths = WidthPerFeature(initial=float(lam[1]))
    training = KernelSvm(Rbf(widths=widths), KernelPenalty(initial=float(lam[0])))
    _, more, model = search(train, training, selection, EVALUATIONS)
    return one, Found(wrong(model, test), time.process_time() - began, FOLDS * (used + more) + 1)


def grid(train: Problem, test: Problem) -> Found:
    from sklearn.model_selection import GridSearchCV  # noqa: PLC0415 - not in the other benchmarks
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415
    from sklearn.svm import SVC  # noqa: PLC0415

    began = time.process_time()
    choices = {"svc__C": C_GRID, "svc__gamma": GAMMA_GRID}
    chosen = GridSearchCV(make_pipeline(StandardScaler(), SVC()), choices, cv=FOLDS).fit(train.X, train.y)
    error = float(np.mean(chosen.predict(test.X) != test.y))
    return Found(error, time.process_time() - began, FOLDS * len(C_GRID) * len(GAMMA_GRID) + 1)


def wrong(model: Model, test: Problem) -> float:
    return float(np.mean((model.predictor(test, np.arange(len(test.y)))[:, 0] > 0) != test.y))


def splits(data: Path, name: str, count: int) -> Iterator[tuple[Problem, Problem]]:
    stored, sizes = (
        np.load(data / "raetsch" / f"{name}.npz"),
        json.loads((data / "raetsch" / "split_sizes.json").read_text()),
    )
    X, y = stored["X"], (stored["y"] > 0).astype(float)
    names, train = tuple(f"x{j}" for j in range(X.shape[1])), sizes[name]["n_train"]
    for seed in range(count):
        order = np.random.default_rng(seed).permutation(len(y))[: train + sizes[name]["n_test"]]
        yield tuple(Problem(X[part], y[part], names, classes=("0", "1")) for part in (order[:train], order[train:]))  # type: ignore[misc]


def raetsch(data: Path, *, short: bool) -> None:
    print("test error in percent (standard error over splits), machines trained, CPU seconds, each a mean over splits")
    for name in SETS[:1] if short else SETS:
        rows = []
        for train, test in splits(data, name, 1 if short else SPLITS.get(name, 10)):
            rows.append((*ours(train, test), grid(train, test)))
        for label, found in zip(("one", "ARD", "grid"), zip(*rows, strict=True), strict=True):
            errors = 100.0 * np.array([f.error for f in found])
            spread = errors.std(ddof=1) / np.sqrt(len(errors)) if len(errors) > 1 else np.nan
            trainings, seconds = np.mean([f.trainings for f in found]), np.mean([f.seconds for f in found])
            print(
                f"{name:10s} {label:5s} {errors.mean():5.1f} ({spread:.1f})  {trainings:6.0f}  {seconds:7.1f} s",
                flush=True,
            )


def pumadyn(data: Path, *, short: bool) -> None:
    """Evidence of 2,000 rows, one width or one for each of 32 inputs; the test rows are the others."""
    stored = np.load(data / "uci" / "pumadyn32nm.npz")
    X, y = stored["X"], stored["y"].ravel()
    names = tuple(f"x{j}" for j in range(X.shape[1]))
    order = np.random.default_rng(0).permutation(len(y))
    n = 300 if short else 2000
    train, test = (Problem(X[part], y[part], names) for part in (order[:n], order[n:]))
    for label, widths in (("one width", SharedWidth()), ("ARD", WidthPerFeature())):
        began = time.process_time()
        lam, used, model = search(train, KernelRidge(Rbf(widths=widths)), Evidence(), 80, 1e-6)
        seconds = time.process_time() - began
        error = np.mean((model.predictor(test, np.arange(len(test.y)))[:, 0] - test.y) ** 2) / np.var(test.y)
        print(
            f"pumadyn32nm, {label}: {error:.4f} of the variance of the test rows, {used} evaluations, {seconds:.0f} s"
        )
        if len(lam) > 2:
            shortest = np.argsort(lam[1:])[:6]
            print("   shortest widths: " + ", ".join(f"{names[j]} {lam[1 + j]:.3g}" for j in shortest), flush=True)


def main(*, short: bool, data: Path | None) -> None:
    if data is None:
        print("left out: `--data DIR` says where Raetsch's suite and pumadyn32nm are")
        return
    pumadyn(data, short=short)
    raetsch(data, short=short)
