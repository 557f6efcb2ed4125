"""Ten tasks that no choice of the product was made on: other data, designs, losses, families and selections.

Columns are chosen without the target, so that taking them from all rows tells nothing of the new ones.
"""

from __future__ import annotations

import csv
import functools
import gzip
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array, load_npz

from benchmarks.goyal_welch import FILE, SELECTION, read
from benchmarks.new_rows.task import BOX, Split, Task, classified, cut, problem_of
from worker.core.penalties import PerCoefficient, PerGroup
from worker.core.selection import StratifiedKFold, WalkForward
from worker.core.training import HuberRegression, MultinomialRegression, PoissonRegression

TWO = ("0", "1")
TESTED = 5000
HOURS, NEXT_HOURS = 1000, 500  # of a split of rented bikes in order
GENES, GROUPED_GENES, GENES_OF_GROUP = 100, 300, 10
WORDS, PAIR = 150, (1, 5)  # computer graphics and the X window system
FIRST_FORECAST, MONTHS = 196501, 48


@functools.cache
def hours(data: Path) -> dict[str, np.ndarray]:
    """Rented bikes (Fanaee-T and Gama 2014): each column as numbers, in order of time."""
    with gzip.open(data / "bike_sharing" / "hour.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "dteday"}


def indicators(values: np.ndarray, name: str) -> dict[str, np.ndarray]:
    """A column for each value, all in the group of this name."""
    return {f"{name}:{value:g}": (values == value).astype(float) for value in np.unique(values)}


def bikes_in_order(data: Path, i: int) -> Split:
    """Log of the bikes of an hour, from some weeks; the weeks after them are new."""
    c = hours(data)
    working = {name: c["workingday"] * column for name, column in indicators(c["hr"], "working hour").items()}
    columns = {
        **indicators(c["hr"], "hour"), **working, **indicators(c["weekday"], "weekday"),
        **indicators(c["weathersit"], "weather"), **{name: c[name] for name in ("temp", "atemp", "hum", "windspeed")},
        "holiday": c["holiday"], "trend": c["instant"],
    }  # fmt: skip
    X, y = np.column_stack(list(columns.values())), np.log1p(c["cnt"])
    begin = 1600 * i
    parts = (np.arange(begin, begin + HOURS), np.arange(begin + HOURS, begin + HOURS + NEXT_HOURS))
    return Split(*(problem_of(X, y, rows, features=tuple(columns)) for rows in parts))


def bikes_counted(data: Path, i: int) -> Split:
    """The number of bikes of an hour, from waves of the day, on all and on working days, and the weather."""
    c = hours(data)
    phases = np.multiply.outer(2 * np.pi * c["hr"] / 24, np.arange(1, 5))
    waves = np.hstack([np.sin(phases), np.cos(phases)])
    others = [c[name] for name in ("yr", "holiday", "workingday", "temp", "atemp", "hum", "windspeed")]
    weather = list(indicators(c["weathersit"], "weather").values())[1:3]
    days = list(indicators(c["weekday"], "weekday").values())[1:]
    X = np.hstack([waves, c["workingday"][:, None] * waves, np.column_stack([*others, *weather, *days])])
    return cut(X, c["cnt"], i, 400, TESTED)


def dense(_: Path, i: int) -> Split:
    """40 columns, neighbours correlated by 0.9, each of which matters."""
    g, p, n = np.random.default_rng([8, i]), 40, 100
    beta = g.normal(size=p) / np.sqrt(p)
    X = g.normal(size=(n + TESTED, p))
    for j in range(1, p):
        X[:, j] = 0.9 * X[:, j - 1] + np.sqrt(1 - 0.9**2) * X[:, j]
    y = X @ beta + g.normal(size=len(X))
    return Split(problem_of(X, y, np.arange(n)), problem_of(X, y, np.arange(n, len(X))))


def heavy_tails(_: Path, i: int) -> Split:
    """30 columns, of which six matter, and noise of Student's t with three degrees of freedom."""
    g, p, n = np.random.default_rng([9, i]), 30, 120
    beta = np.append(g.normal(size=6) / np.sqrt(6), np.zeros(p - 6))
    X = g.normal(size=(n + TESTED, p))
    y = X @ beta + g.standard_t(3, size=len(X))
    return Split(problem_of(X, y, np.arange(n)), problem_of(X, y, np.arange(n, len(X))))


def genes(data: Path, name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Logs of the expressions that vary most, and whether it is a tumour."""
    stored = np.load(data / "microarray" / f"{name}.npz")
    X = np.log(np.maximum(stored["X"].astype(float), 10.0))
    chosen = np.argsort(-X.var(axis=0), kind="stable")[:count]
    return X[:, chosen], np.array([float(name.lower().startswith("t")) for name in stored["y"].tolist()])


def colon(data: Path, i: int) -> Split:
    """Tumours of the colon (Alon 1999): more genes than rows."""
    return cut(*genes(data, "alon", GENES), i, 42, classes=TWO)


def prostate_genes(data: Path, i: int) -> Split:
    """Tumours of the prostate (Singh 2002): groups of ten genes that vary about as much."""
    X, y = genes(data, "singh", GROUPED_GENES)
    names = tuple(f"{j // GENES_OF_GROUP}:{j}" for j in range(GROUPED_GENES))
    return cut(X, y, i, 68, features=names, classes=TWO)


def two_newsgroups(data: Path, i: int) -> Split:
    """Logs of the counts of frequent words in the messages of two groups (Lang 1995)."""
    folder = data / "twenty_newsgroups"
    label = np.load(folder / "labels.npz")["y_train"]
    counts = csr_array(load_npz(folder / "counts_train.npz"))[np.flatnonzero(np.isin(label, PAIR))]
    messages = np.bincount(counts.indices, minlength=counts.shape[1])
    words = np.sort(np.argsort(-messages, kind="stable")[:WORDS])
    X = np.log1p(counts[:, words].toarray().astype(float))
    return cut(X, (label[np.isin(label, PAIR)] == PAIR[1]).astype(float), i, 600, classes=TWO)


@functools.cache
def pixels(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """MNIST (LeCun 1998) in means of four by four pixels, and the digits."""
    with gzip.open(data / "mnist" / "train-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 7, 4, 7, 4)
    with gzip.open(data / "mnist" / "train-labels-idx1-ubyte.gz") as file:
        label = np.frombuffer(file.read(), np.uint8, offset=8)
    return images.mean(axis=(2, 4)).reshape(-1, 49), label.astype(float)


def mnist(data: Path, i: int) -> Split:
    """Ten classes."""
    return cut(*pixels(data), i, 1000, TESTED, classes=tuple(str(c) for c in range(10)))


def wine(_: Path, i: int) -> Split:
    """Three cultivars from thirteen measurements."""
    from sklearn.datasets import load_wine  # noqa: PLC0415 - not in the other benchmarks

    X, y = load_wine(return_X_y=True)
    return cut(X, y.astype(float), i, 100, classes=("0", "1", "2"))


def premium(data: Path, i: int) -> Split:
    """The equity premium of the months after those to tune on (Welch and Goyal 2008)."""
    series = read(data / FILE)
    begin = int(np.searchsorted(series.month, FIRST_FORECAST)) + MONTHS * i
    X, y, features = series.problem.X, series.problem.y, series.problem.features
    parts = (np.arange(begin), np.arange(begin, begin + MONTHS))
    return Split(*(problem_of(X, y, rows, features=features) for rows in parts))


_MULTINOMIAL = MultinomialRegression()
OWN_TASKS = (
    Task(28, "bikes, walked forward", bikes_in_order, 65, penalty=PerGroup(**BOX), folder="bike_sharing",
         selection=WalkForward(initial=500, horizon=100)),
    Task(29, "bikes, Poisson", bikes_counted, 13, PoissonRegression(), folder="bike_sharing"),
    Task(30, "dense 100-40, correlated", dense, 4),
    Task(31, "heavy tails 120-30-6, Huber", heavy_tails, 4, HuberRegression()),
    Task(32, "colon, 100 genes", colon, 4, **classified(folder="microarray")),
    Task(33, "prostate, 30 groups of genes", prostate_genes, 20,
         **classified(penalty=PerGroup(**BOX), folder="microarray")),
    Task(34, "two newsgroups, 150 words", two_newsgroups, 90, **classified(folder="twenty_newsgroups")),
    Task(35, "MNIST, 49 pixels", mnist, 490, _MULTINOMIAL, selection=StratifiedKFold(), splits=5, folder="mnist"),
    Task(36, "wine, per coefficient", wine, 4, _MULTINOMIAL, PerCoefficient(**BOX), StratifiedKFold()),
    Task(37, "equity premium", premium, 10, selection=SELECTION, folder="goyal_welch"),
)  # fmt: skip
