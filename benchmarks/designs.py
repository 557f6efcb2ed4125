"""Populations to draw tables from: what a job on a draw says can be compared with what is true of the population."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.signal import lfilter

from worker.core.penalties import PerFeature, PerGroup
from worker.core.rows.problem import Problem
from worker.core.selection import GroupKFold, KFold, Selection, WalkForward
from worker.core.training import LogisticRegression, Ridge

OF_CLUSTER = 0.3  # share of the variance of each column and of the errors that rows of a group have in common
MEMORY = 0.5  # correlation of a row with the row before it, of columns and errors of a series
BURN_IN = 200  # rows of a series that are thrown away
Rows = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Design:
    """Rows with `len(strengths)` normal columns, all of which matter, and a job on a draw of them.

    A strength is the z value that a coefficient would have in `n` independent rows with uncorrelated columns. Where
    the optimum of a penalty lies inside its box, and how well it is determined, depends on it. `sizes`: columns of
    each group that shares a penalty; without it each column has its own. `cluster`: rows of each group of rows.
    """

    name: str
    n: int
    strengths: tuple[float, ...]
    selection: Selection
    classifies: bool = False
    sizes: tuple[int, ...] = ()
    cluster: int = 1
    series: bool = False
    features: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(f"x{j}" for j in range(len(self.strengths))))

    @property
    def coefficients(self) -> np.ndarray:
        """With alternating signs; a row of a logistic model knows a quarter of one with normal errors."""
        scale = (2.0 if self.classifies else 1.0) / np.sqrt(self.n)
        return scale * np.array(self.strengths) * (-1.0) ** np.arange(len(self.strengths))

    @property
    def penalty(self) -> PerFeature | PerGroup:
        """In the default box."""
        if not self.sizes:
            return PerFeature()
        ends = np.cumsum(self.sizes)
        groups = {
            f"g{i}": self.features[end - size : end] for i, (end, size) in enumerate(zip(ends, self.sizes, strict=True))
        }
        return PerGroup(groups=groups)

    def training(self, penalty: PerFeature | PerGroup) -> Ridge | LogisticRegression:
        """With this penalty; columns are standardized."""
        return LogisticRegression(penalty=penalty) if self.classifies else Ridge(penalty=penalty)

    def rows(self, random: np.random.Generator, n: int) -> Rows:
        """X and y of n rows, which are new groups of rows, or a new stretch of the series."""
        X, errors = self._noise(random, n, len(self.strengths)), self._noise(random, n, 1)[:, 0]
        eta = X @ self.coefficients
        if not self.classifies:
            return X, eta + errors
        if self.cluster > 1:  # what a group has in common besides its columns
            eta += np.repeat(random.normal(size=-(-n // self.cluster)), self.cluster)[:n]
        return X, (eta + random.logistic(size=n) > 0).astype(float)

    def problem(self, random: np.random.Generator) -> Problem:
        """A draw: a table of a job."""
        return self.problem_of(random, self.n)

    def problem_of(self, random: np.random.Generator, n: int) -> Problem:
        """A table of n rows."""
        X, y = self.rows(random, n)
        groups = np.arange(n) // self.cluster if self.cluster > 1 else None
        return Problem(X, y, self.features, groups=groups, classes=("0", "1") if self.classifies else ())

    def _noise(self, random: np.random.Generator, n: int, columns: int) -> np.ndarray:
        """Standard normal columns; rows depend on each other in groups or along the series."""
        own = random.normal(size=(n + (BURN_IN if self.series else 0), columns))
        if self.series:
            return np.asarray(lfilter([np.sqrt(1.0 - MEMORY**2)], [1.0, -MEMORY], own, axis=0))[BURN_IN:]
        if self.cluster == 1:
            return own
        common = np.repeat(random.normal(size=(-(-n // self.cluster), columns)), self.cluster, axis=0)[:n]
        return np.sqrt(OF_CLUSTER) * common + np.sqrt(1.0 - OF_CLUSTER) * own


def strengths(weakest: float, strongest: float, count: int) -> tuple[float, ...]:
    """Evenly spaced."""
    return tuple(np.linspace(weakest, strongest, count).tolist())


DESIGNS = (
    Design("ridge, 3 features", 400, strengths(3.5, 4.5, 3), KFold(folds=10)),
    Design("ridge, 2 groups of 10", 100, strengths(1.5, 2.5, 20), KFold(folds=10), sizes=(10, 10)),
    Design("logistic, 3 features", 400, strengths(4.0, 5.0, 3), KFold(folds=10), classifies=True),
    Design(
        "logistic, 3 groups, grouped rows", 300, strengths(2.5, 3.5, 12), GroupKFold(folds=10), classifies=True,
        sizes=(4, 4, 4), cluster=5,
    ),
    Design("ridge, 3 features, grouped rows", 400, strengths(4.0, 5.0, 3), GroupKFold(folds=10), cluster=5),
    Design(
        "ridge, 2 groups of 8, a series", 400, strengths(1.5, 2.5, 16), WalkForward(initial=160, horizon=20),
        sizes=(8, 8), series=True,
    ),
)  # fmt: skip
