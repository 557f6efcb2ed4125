"""The twenty-seven tasks of the comparison, numbered; no rule of the product looks at them by name.

Split i trains on the first n rows of `default_rng([77, i]).permutation(rows)`, sorted, and tests on the others. The
selection is by 5 folds of seed i, stratified for classes, unless the task says otherwise.
"""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import real_data
from benchmarks.new_rows.task import BENCH_BOX, Split, Task, classified, cut, problem_of
from worker.core.penalties import PerClass, PerFeature, PerGroup
from worker.core.selection import Holdout, StratifiedKFold
from worker.core.training import LogisticRegression, MultinomialRegression

TWO = ("0", "1")
TESTED = 5000  # test rows of each synthetic draw
SPARSE = (22, 23, 24, 25)  # few of many features matter
DIGITS_ROWS = 1198
A9A_PART = 21_707  # two thirds of its rows
BENCH = PerFeature(**BENCH_BOX)


def prostate(data: Path, i: int) -> Split:
    """Log of an antigen from eight measurements (Stamey 1989)."""
    with (data / "prostate" / "prostate.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = tuple(name for name in rows[0] if name not in {"lpsa", "train"})
    X = np.array([[float(row[name]) for name in names] for row in rows])
    return cut(X, np.array([float(row["lpsa"]) for row in rows]), i, 67, features=names)


def of_scikit_learn(name: str, n: int, **roles: Any) -> Callable[[Path, int], Split]:
    """A data set that scikit-learn ships."""

    def draw(_: Path, i: int) -> Split:
        from sklearn import datasets  # noqa: PLC0415 - not in the other benchmarks

        X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        return cut(X, y.astype(float), i, n, **roles)

    return draw


def raetsch(name: str) -> Callable[[Path, int], Split]:
    """A set of Raetsch's suite, with the suite's numbers of rows."""

    def draw(data: Path, i: int) -> Split:
        stored = np.load(data / "raetsch" / f"{name}.npz")
        sizes = json.loads((data / "raetsch" / "split_sizes.json").read_text())[name]
        X, y = stored["X"], (stored["y"] > 0).astype(float)
        return cut(X, y, i, sizes["n_train"], sizes["n_test"], classes=TWO)

    return draw


def spambase(n: int) -> Callable[[Path, int], Split]:
    """Logs of word rates."""

    def draw(data: Path, i: int) -> Split:
        mails, names = real_data.spambase(data)
        return cut(mails.X, mails.y, i, n, features=names, classes=TWO)

    return draw


a9a_rows = functools.cache(real_data.a9a)


def a9a(n: int) -> Callable[[Path, int], Split]:
    """Indicators of fourteen attributes; tested on the published test file."""

    def draw(data: Path, i: int) -> Split:
        tuned, test, groups = a9a_rows(data)
        features = tuple(f"{group}:{name}" for group, members in groups.items() for name in members)
        roles = {"features": features, "classes": TWO}
        train = cut(tuned.X, tuned.y, i, n, 0, **roles).train
        return Split(train, problem_of(test.X, test.y, np.arange(len(test.y)), **roles))

    return draw


def uci(name: str, n: int) -> Callable[[Path, int], Split]:
    """A regression whose target has unit variance."""

    def draw(data: Path, i: int) -> Split:
        stored = np.load(data / "uci" / f"{name}.npz")
        y = stored["y"].ravel()
        return cut(stored["X"], y / y.std(), i, n)

    return draw


def syn(n: int, p: int, r: int) -> Callable[[Path, int], Split]:
    """Normal columns, of which the first r matter; noise of variance 1."""

    def draw(_: Path, i: int) -> Split:
        g = np.random.default_rng([5, i, n, p, r])
        beta = np.zeros(p)
        beta[:r] = g.normal(size=r) / np.sqrt(max(r, 1))
        X = g.normal(size=(n + TESTED, p))
        y = X @ beta + g.normal(size=n + TESTED)
        return Split(problem_of(X, y, np.arange(n)), problem_of(X, y, np.arange(n, n + TESTED)))

    return draw


def slog(n: int, p: int, r: int) -> Callable[[Path, int], Split]:
    """The same with two classes."""

    def draw(_: Path, i: int) -> Split:
        g = np.random.default_rng([6, i, n, p, r])
        beta = np.zeros(p)
        beta[:r] = 2.0 * g.normal(size=r) / np.sqrt(max(r, 1))
        X = g.normal(size=(n + TESTED, p))
        y = (X @ beta + g.logistic(size=n + TESTED) > 0).astype(float)
        parts = (np.arange(n), np.arange(n, n + TESTED))
        return Split(*(problem_of(X, y, rows, classes=TWO) for rows in parts))

    return draw


def _classifiers() -> tuple[Task, ...]:
    attributes = {"training": LogisticRegression(standardize=False), "penalty": PerGroup(**BENCH_BOX)}
    return (
        Task(3, "heart", raetsch("heart"), 2, **classified(folder="raetsch")),
        Task(4, "diabetis", raetsch("diabetis"), 4, **classified(folder="raetsch")),
        Task(5, "german", raetsch("german"), 14, **classified(folder="raetsch")),
        Task(6, "waveform", raetsch("waveform"), 8, **classified(folder="raetsch")),
        Task(7, "splice", raetsch("splice"), 60, **classified(folder="raetsch")),
        Task(8, "image", raetsch("image"), 23, **classified(folder="raetsch")),
        Task(9, "spambase", spambase(3067), 175, **classified(penalty=BENCH, folder="spambase")),
        Task(10, "spambase300", spambase(300), 17, **classified(penalty=BENCH, folder="spambase")),
        Task(11, "breast cancer", of_scikit_learn("breast_cancer", 300, classes=TWO), 9, **classified()),
        Task(12, "a9a2000", a9a(2000), 246, **classified(**attributes, folder="a9a")),
        Task(13, "a9a", a9a(A9A_PART), 2670, **classified(**attributes, folder="a9a", splits=3)),
    )


def _digits() -> tuple[Task, ...]:
    classes = tuple(str(c) for c in range(10))
    draw = of_scikit_learn("digits", DIGITS_ROWS, classes=classes)
    training, penalty = MultinomialRegression(standardize=False), PerClass(**BENCH_BOX)
    return (
        Task(14, "digits, hold-out", draw, 770, training, penalty, Holdout(fraction=1 / 3), 5),
        Task(15, "digits, 5 folds", draw, 3000, training, penalty, StratifiedKFold(), 3),
    )


def _synthetic() -> tuple[Task, ...]:
    designs = ((150, 50, 50), (100, 20, 20), (150, 50, 5), (400, 50, 5), (200, 100, 5))
    many = [
        Task(number, f"syn {n}-{p}-{r}", syn(n, p, r), n * p / 1000)
        for number, (n, p, r) in enumerate(designs, start=20)
    ]
    return (
        *many,
        Task(25, "slog 300-40-4", slog(300, 40, 4), 12, **classified(splits=5)),
        Task(26, "slog 300-40-40", slog(300, 40, 40), 12, **classified(splits=5)),
        Task(27, "syn 100-20-0", syn(100, 20, 0), 2),
    )


TASKS = (
    Task(1, "prostate", prostate, 0.5, folder="prostate"),
    Task(2, "diabetes", of_scikit_learn("diabetes", 221), 2),
    *_classifiers(),
    *_digits(),
    Task(16, "stock", uci("stock", 100), 1, folder="uci"),
    Task(17, "elevators", uci("elevators", 200), 4, folder="uci"),
    Task(18, "pumadyn32nm", uci("pumadyn32nm", 200), 6, folder="uci"),
    Task(19, "sml", uci("sml", 200), 5, folder="uci"),
    *_synthetic(),
)
