"""Public data for classification, read from a directory that the project does not ship."""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array, load_npz

A9A_COLUMNS = 123


@dataclass(frozen=True)
class Labelled:
    """Rows with the number of their class."""

    X: np.ndarray | csr_array
    y: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Labelled:
        return Labelled(self.X[rows], self.y[rows])


def halves(data: Labelled, test: float, seed: int = 0) -> tuple[Labelled, Labelled]:
    """The rows to tune on and a random share of test rows."""
    order = np.random.default_rng(seed).permutation(len(data.y))
    count = round(test * len(data.y))
    return data[np.sort(order[count:])], data[np.sort(order[:count])]


def a9a(directory: Path) -> tuple[Labelled, Labelled, dict[str, tuple[str, ...]]]:
    """Adult, as 123 indicator columns of 14 attributes (Becker and Kohavi 1996): rows, test rows, groups of columns."""
    folder = directory / "a9a"
    ranges = json.loads((folder / "groups.json").read_text())["groups"]
    groups = {name: tuple(f"x{c}" for c in range(first, last + 1)) for name, (first, last) in ranges.items()}
    return _libsvm(folder / "a9a.gz"), _libsvm(folder / "a9a.t.gz"), groups


def _libsvm(path: Path) -> Labelled:
    """Rows of indicator columns."""
    with gzip.open(path, "rt") as file:
        rows = [line.split() for line in file]
    X = np.zeros((len(rows), A9A_COLUMNS))
    for i, (_, *entries) in enumerate(rows):
        X[i, [int(entry.split(":")[0]) - 1 for entry in entries]] = 1.0
    return Labelled(X, np.array([float(row[0] == "+1") for row in rows]))


def spambase(directory: Path) -> tuple[Labelled, tuple[str, ...]]:
    """Mails (Hopkins et al. 1999) as logs of `0.1 + rate` and of the run lengths, with the names of the columns."""
    with gzip.open(directory / "spambase" / "spam.csv.gz", "rt", newline="") as file:
        names, *rows = csv.reader(file)
    X = np.array([row[:-1] for row in rows], float)
    return Labelled(np.log(0.1 + X), np.array([float(row[-1] == "spam") for row in rows])), tuple(names[:-1])


def newsgroups(directory: Path, classes: tuple[int, int] | int) -> Labelled:
    """Tf-idf of the words of the training messages (Lang 1995), of a pair of classes or of one against the rest.

    `tf (1 + log((1 + n) / (1 + df)))`, rows of length one, as scikit-learn does it; words that occur.
    """
    folder = directory / "twenty_newsgroups"
    counts, label = csr_array(load_npz(folder / "counts_train.npz")), np.load(folder / "labels.npz")["y_train"]
    if isinstance(classes, tuple):
        chosen = np.flatnonzero(np.isin(label, classes))
        counts, positive = counts[chosen], label[chosen] == classes[1]
    else:
        positive = label == classes
    counts = counts[:, np.flatnonzero(counts.sum(axis=0))].astype(float)
    n = counts.shape[0]
    occurrences = np.bincount(counts.indices, minlength=counts.shape[1])
    counts.data *= (1.0 + np.log((1.0 + n) / (1.0 + occurrences)))[counts.indices]
    counts.data /= np.repeat(np.sqrt((counts**2).sum(axis=1)), np.diff(counts.indptr))
    return Labelled(counts, positive.astype(float))
