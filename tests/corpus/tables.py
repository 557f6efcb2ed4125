"""The data of the corpus: one small table inline, the same rows and more as files of datasets, matrices."""

from __future__ import annotations

import hashlib
from datetime import date, timedelta
from typing import Any

import numpy as np

from worker.contract.dataset import Format

N = 48
FEATURES = ("a", "b", "c", "d")
RNG = np.random.default_rng(20)


def _rounded(values: Any, digits: int = 3) -> list[Any]:
    return list(np.round(np.asarray(values, float), digits).tolist())


X = np.round(RNG.normal(size=(N, 4)) @ np.diag([1.0, 3.0, 0.5, 1.0]) + [0.0, 5.0, -1.0, 0.0], 3)
ETA = 0.9 * X[:, 0] - 0.4 * (X[:, 1] - 5.0) + np.sin(2.0 * X[:, 3])
NOISE = RNG.logistic(size=N)
TARGETS: dict[str, list[Any]] = {
    "number": _rounded(2.0 + ETA + 0.7 * RNG.normal(size=N)),
    "noisy": _rounded(ETA + 0.5 * RNG.standard_t(2, size=N)),
    "count": _rounded(RNG.poisson(np.exp(0.6 * ETA))),
    "amount": _rounded(RNG.gamma(3.0, np.exp(0.6 * ETA) / 3.0) + 0.01),
    "two": np.where(ETA + NOISE > 0, "yes", "no").tolist(),
    "three": np.array(["low", "mid", "top"])[np.digitize(ETA + NOISE, [-1.0, 1.0])].tolist(),
}
ROLES: dict[str, list[Any]] = {
    "time": _rounded(RNG.permutation(N) // 2),  # out of order, each time twice
    "groups": RNG.integers(0, 9, size=N).tolist(),
    "fold": (np.arange(N) % 3).tolist(),
    "source": RNG.choice(["new", "old", "other"], size=N).tolist(),
    "weights": _rounded(RNG.uniform(0.5, 3.0, size=N), 2),
    "scoring": _rounded(RNG.integers(0, 3, size=N)),
    "offset": _rounded(0.3 * RNG.normal(size=N)),
}
ORDER = ("time", "groups", "fold")  # what selection criteria may need and training does not look at


def table(target: str, roles: tuple[str, ...] = ORDER, **changes: Any) -> dict[str, Any]:
    """The table of a request."""
    data = {"x": X.tolist(), "y": TARGETS[target], "features": list(FEATURES)}
    return {**data, **{role: ROLES[role] for role in roles}, **changes}


def wide(target: str, rows: int = 24, columns: int = 60) -> dict[str, Any]:
    """A table with more columns than rows."""
    more = np.random.default_rng(21).normal(size=(rows, columns)).round(3)
    more[:, 0] = X[:rows, 0]
    return {"x": more.tolist(), "y": TARGETS[target][:rows]}


def sparse_matrix(size: int, entries: list[tuple[int, int, float]]) -> dict[str, list[Any]]:
    """A symmetric matrix by the entries of its lower triangle."""
    both = sorted({(i, j, v) for i, j, v in entries} | {(j, i, v) for i, j, v in entries})
    assert all(i < size for i, _, _ in both)
    return {"rows": [i for i, _, _ in both], "columns": [j for _, j, _ in both], "values": [v for _, _, v in both]}


def matrices(size: int = 3, *, chain: bool = False) -> dict[str, Any]:
    """Criteria of the caller's own with two multipliers: one of a matrix, one of a vector and a matrix.

    As a `chain` all matrices have entries near the diagonal only.
    """
    rng = np.random.default_rng(size)
    identity = sparse_matrix(size, [(i, i, 1.0) for i in range(size)])
    links = [(i, i, 2.0) for i in range(size)] + [(i + 1, i, -1.0) for i in range(size - 1)]
    first: Any = sparse_matrix(size, links)
    if not chain:
        root = rng.normal(size=(size, size)).round(2)
        first = (root @ root.T).round(4).tolist()
    last = sparse_matrix(size, [(size - 1, size - 1, 1.0)])
    return {
        "matrices": [identity, first, last],
        "vectors": [_rounded(rng.normal(size=size)), None, _rounded(rng.normal(size=size))],
        "selection": {"matrix": identity, "vector": _rounded(-0.4 * rng.normal(size=size)), "constant": 0.5},
    }


def _csv() -> bytes:
    """Every role and every kind of column; `size` and `kind` have missing values."""
    rng = np.random.default_rng(22)
    columns: dict[str, list[Any]] = dict(TARGETS)
    columns |= {name: X[:, j].tolist() for j, name in enumerate(FEATURES)}
    columns["size"] = ["" if i % 9 == 4 else value for i, value in enumerate(_rounded(rng.normal(size=N)))]
    columns["kind"] = ["" if i % 11 == 5 else f"k{i * i % 3}" for i in range(N)]
    columns["level"] = (np.arange(N) * 5 % 4).tolist()
    columns["day"] = [str(date(2021, 1, 30) + timedelta(days=17 * i)) for i in range(N)]
    columns |= ROLES
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    return ("\n".join(lines) + "\n").encode()


def _libsvm(labels: list[int]) -> bytes:
    """Two or three entries in each row of many columns, those of the first columns related to the labels."""
    rng = np.random.default_rng(23)
    lines = []
    for label in labels:
        columns = sorted({1 + (label % 3), *rng.integers(1, 41, size=2).tolist()})
        values = _rounded(rng.uniform(0.5, 2.0, size=len(columns)))
        lines.append(" ".join([str(label), *(f"{j}:{value}" for j, value in zip(columns, values, strict=True))]))
    return ("\n".join(lines) + "\n").encode()


FILES: dict[str, tuple[Format, bytes]] = {
    "table": ("csv", _csv()),
    "sparse numbers": ("libsvm", _libsvm([1 + i * 7 % 9 for i in range(N)])),
    "sparse two": ("libsvm", _libsvm([i * 7 % 5 % 2 for i in range(N)])),
    "sparse three": ("libsvm", _libsvm([i * 7 % 5 % 3 for i in range(N)])),
}


def dataset_id(file: str) -> str:
    """What the dataset of a file is called."""
    return f"ds_{hashlib.sha256(FILES[file][1]).hexdigest()}"
