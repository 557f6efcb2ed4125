"""Classifiers with many penalties beside the best shared one: validation loss, which selects, and test loss.

One penalty for each of a9a's 14 attributes, for each of spambase's 57 features, and of scikit-learn's digits for each
class (10) or each coefficient (640). The shared penalty is the best of a grid of 200.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.real_data import Labelled, a9a, halves, spambase
from worker.core.hypergradient import Implicit
from worker.core.losses import LogLoss
from worker.core.outer import OuterAuto
from worker.core.penalties import ClassPenalty, PerClass, PerCoefficient, PerFeature, PerGroup, Shared
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, Prepared, prepare
from worker.core.search.tune import tune
from worker.core.selection import Holdout, Selection, StratifiedKFold
from worker.core.training import LogisticRegression, MultinomialRegression

BOX = {"initial": 1e-3, "lower": 1e-8, "upper": 1e4}
GRID = np.logspace(-8, 4, 200)


@dataclass(frozen=True)
class Task:
    """Rows to tune on and rows that only score; penalties to try besides the shared one."""

    name: str
    tuned: Labelled
    test: Labelled
    features: tuple[str, ...]
    standardize: bool
    selection: Selection
    penalties: tuple[ClassPenalty, ...]

    @property
    def problem(self) -> Problem:
        """The rows to tune on."""
        classes = tuple(str(c) for c in np.unique(self.tuned.y).astype(int))
        return Problem(self.tuned.X, self.tuned.y, self.features, classes=classes)

    def prepare(self, penalty: ClassPenalty) -> Prepared:
        """The problem with the given penalties, and the search that `auto` takes."""
        settings = {"penalty": penalty, "standardize": self.standardize}
        several = len(self.problem.classes) > 2
        training = MultinomialRegression(**settings) if several else LogisticRegression(**settings)
        outer = OuterAuto(max_iterations=1000)
        return prepare(self.problem, Plan(training, self.selection, Implicit(), outer))


def tasks(short: bool, data: Path | None) -> Iterator[Task]:
    if data is not None:
        tuned, test, groups = a9a(data)
        names = tuple(name for members in groups.values() for name in members)
        tuned = tuned[np.arange(2000)] if short else tuned
        yield Task("a9a", tuned, test, names, False, Holdout(fraction=1 / 3), (PerGroup(groups=groups, **BOX),))
        rows, names = spambase(data)
        tuned, test = halves(rows, 1 / 3)
        yield Task("spambase", tuned, test, names, True, StratifiedKFold(folds=2 if short else 5), (PerFeature(**BOX),))
    from sklearn.datasets import load_digits  # noqa: PLC0415 - not in the other benchmarks

    X, y = load_digits(return_X_y=True)
    tuned, test = halves(Labelled(X[:, :16] if short else X, y.astype(float)), 1 / 3)
    names = tuple(f"pixel{j}" for j in range(tuned.X.shape[1]))
    penalties = (PerClass(**BOX),) if short else (PerClass(**BOX), PerCoefficient(**BOX))
    yield Task("digits", tuned, test, names, False, Holdout(fraction=1 / 3), penalties)


@dataclass(frozen=True)
class Tested:
    """What each test row loses under a model, and whether it is misclassified."""

    losses: np.ndarray
    missed: np.ndarray

    def less(self, other: Tested) -> str:
        """The mean differences from another model on the same rows, with their standard errors."""
        loss, share = (mean_and_error(one - two) for one, two in zip(self.pair, other.pair, strict=True))
        return f"{loss[0]:+.5f} +- {loss[1]:.5f} (error {100 * share[0]:+.2f} +- {100 * share[1]:.2f} %)"

    @property
    def pair(self) -> tuple[np.ndarray, np.ndarray]:
        """Both as numbers."""
        return self.losses, self.missed.astype(float)


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """The mean of independent values, and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def report(
    task: Task, name: str, prepared: Prepared, rho: np.ndarray, note: str, shared: Tested | None = None
) -> Tested:
    """Log-loss and error of the rows that select, and of the test rows after a refit on all others.

    With the test rows under the `shared` penalty, differences from those are paired by rows.
    """
    at = prepared.objective
    fits = at.formula.fits.at(rho)
    assert fits is not None
    seen = [
        float(system.loss.w @ wrong(system.loss.predictor(fit.theta), system.loss.y))
        for system, fit in zip(at.formula.fits.systems, fits, strict=True)
    ]
    error = sum(seen) / sum(system.loss.weight for system in at.formula.fits.systems)
    model = prepared.plan.training.model(task.problem, np.arange(len(task.tuned.y)), at.natural(rho))
    assert model is not None
    eta = model.predict(task.test.X).reshape(len(task.test.y), -1)
    tested = Tested(LogLoss().at(task.test.y, eta, np.ones(len(eta))).losses, wrong(eta, task.test.y))
    loss, spread = mean_and_error(tested.losses)
    paired = "" if shared is None else f"from shared {tested.less(shared)}  "
    print(
        f"{name:>16}: validation {at.value(rho):.5f} (error {100 * error:5.2f} %)  "
        f"test {loss:.5f} +- {spread:.5f} (error {100 * tested.missed.mean():5.2f} %)  {paired}{note}",
        flush=True,
    )
    return tested


def wrong(eta: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (eta[:, 0] > 0 if eta.shape[1] == 1 else eta.argmax(1)) != y


def compare(task: Task, grid: np.ndarray) -> None:
    began = time.process_time()
    shared = task.prepare(Shared(**BOX))
    values = [shared.objective.value(np.log([lam])) for lam in grid]
    best = np.log([grid[int(np.argmin(values))]])
    note = f"{time.process_time() - began:.1f} s, {np.exp(best[0]):.3g}"
    by_grid = report(task, "shared, grid", shared, best, note)
    for penalty in (Shared(**BOX), *task.penalties):
        began = time.process_time()
        prepared = task.prepare(penalty)
        *_, last = tune(prepared)
        rho = last.best.best.rho
        note = (
            f"{time.process_time() - began:.1f} s, {prepared.outer.kind}, {last.evaluations} evaluations, "
            f"{last.ended.code if last.ended else ''}"
        )
        report(
            task, penalty.kind, prepared, rho, f"{note}, {np.exp(rho.min()):.3g} to {np.exp(rho.max()):.3g}", by_grid
        )


def main(*, short: bool, data: Path | None) -> None:
    if data is None:
        print("a9a and spambase need --data DIR or GRADTUNE_DATA: left out")
    for task in tasks(short, data):
        n, p = task.tuned.X.shape
        print(f"-- {task.name}: {n} x {p}, {len(task.test.y)} test rows, {task.selection.kind}", flush=True)
        compare(task, GRID[::10] if short else GRID)
