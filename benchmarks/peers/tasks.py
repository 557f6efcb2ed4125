"""The problems, each with the one objective that everybody's answer is judged by.

Hyperparameters are log penalties in our scale: the loss is a mean. Another library's penalty on a summed loss is ours
times the training rows, the same in every fold because all folds have the same size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.interpolate import BSpline

from worker.core.hypergradient import Implicit
from worker.core.outer import Outer, OuterAuto
from worker.core.penalties import Matrix, Penalty, PerFeature, PerGroup, QuadraticForms, Shared
from worker.core.penalties.quadratic_forms import differences_of
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, Prepared, prepare
from worker.core.selection import GeneralizedCV, GivenFolds, Selection
from worker.core.training import Ridge

FOLDS = 5
BOX = (np.log(1e-6), np.log(1e6))  # of every method; all that can start somewhere start at 0
CUBIC = 3


@dataclass(frozen=True)
class Task:
    """A table, its penalties and selection criterion. `column_of` is the hyperparameter of each column."""

    X: np.ndarray
    y: np.ndarray
    penalty: Penalty
    selection: Selection
    column_of: np.ndarray
    intercept: bool = False
    covariates: np.ndarray | None = None  # of an additive model, whose basis X is

    @property
    def k(self) -> int:
        """Number of penalties."""
        return int(self.column_of.max()) + 1

    @property
    def folds(self) -> np.ndarray:
        """The fold of each row."""
        return np.arange(len(self.y)) % FOLDS

    @property
    def training_rows(self) -> float:
        """Of each fold."""
        return len(self.y) * (1 - 1 / FOLDS)

    def prepare(self, outer: Outer) -> Prepared:
        """The problem with its statistics built, and the given search."""
        names = tuple(f"x{j}" for j in range(self.X.shape[1]))
        training = Ridge(penalty=self.penalty, standardize=False, intercept=self.intercept)
        return prepare(Problem(self.X, self.y, names), Plan(training, self.selection, Implicit(), outer))

    @cached_property
    def prepared(self) -> Prepared:
        """The problem that everybody is judged by."""
        return self.prepare(OuterAuto())

    def value(self, rho: np.ndarray) -> float:
        """The objective."""
        return float(self.prepared.objective.value(np.asarray(rho, dtype=float)))


def ridge(n: int, p: int, k: int, noise: float) -> Task:
    """Correlated columns in k blocks whose coefficients have different sizes; a quarter of the blocks matter little."""
    rng = np.random.default_rng(k)
    n -= n % FOLDS
    column_of = np.arange(p) * k // p
    X = rng.normal(size=(n, p)) + 0.5 * rng.normal(size=(n, 1))
    size = np.exp(1.5 * rng.normal(size=k)) * (rng.uniform(size=k) > 0.25)
    y = X @ (rng.normal(size=p) * size[column_of]) + noise * rng.normal(size=n)
    penalty: Penalty = Shared() if k == 1 else PerFeature()
    if 1 < k < p:
        penalty = PerGroup(groups={f"g{j}": tuple(f"x{c}" for c in np.flatnonzero(column_of == j)) for j in range(k)})
    folds = GivenFolds(fold_of_row=tuple(i % FOLDS for i in range(n)))
    return Task(X, y, penalty, folds, column_of)


def one_penalty(n: int, p: int) -> Task:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p)) * np.exp(0.5 * rng.normal(size=p))
    y = X @ rng.normal(size=p) + 30.0 * rng.normal(size=n)
    folds = GivenFolds(fold_of_row=tuple(i % FOLDS for i in range(n)))
    return Task(X, y, Shared(), folds, np.zeros(p, int))


def splines(n: int, terms: int, m: int) -> Task:
    """An additive model by GCV: m cubic B-splines a term, second differences; each term sums to zero over the rows."""
    rng = np.random.default_rng(2)
    covariates = rng.uniform(size=(n, terms))
    frequency = rng.uniform(0.2, 3.0, size=terms)
    signal = np.sin(2 * np.pi * frequency * covariates) * (np.arange(terms) % 4 > 0)
    y = signal.sum(axis=1) + rng.normal(size=n)
    parts, forms = [], []
    for t in range(terms):
        B = basis(covariates[:, t], m)
        Z = np.linalg.qr(np.column_stack([B.sum(axis=0), np.eye(m)[:, 1:]]))[0][:, 1:]  # B Z has columns of sum zero
        D = differences_of(m, 2, cyclic=False)[0] @ Z
        S = D.T @ D
        columns = tuple(f"x{c}" for c in range(t * (m - 1), (t + 1) * (m - 1)))
        forms.append(Matrix(name=f"term {t}", features=columns, matrix=tuple(map(tuple, (S + S.T) / 2))))
        parts.append(B @ Z)
    column_of = np.repeat(np.arange(terms), m - 1)
    return Task(
        np.hstack(parts), y, QuadraticForms(forms=tuple(forms)), GeneralizedCV(), column_of,
        intercept=True, covariates=covariates,
    )  # fmt: skip


def basis(x: np.ndarray, m: int) -> np.ndarray:
    """Design matrix of m cubic B-splines with equidistant knots over the range of x (Eilers and Marx 1996)."""
    low, high = x.min(), x.max()
    step = (high - low) / (m - CUBIC)
    knots = low + step * np.arange(-CUBIC, m + 1)
    inside = np.clip(x, low, np.nextafter(high, low))
    return BSpline.design_matrix(inside, knots, CUBIC).toarray()


SIZES = {  # arguments of a full and of a short run, and of the warm-up
    "one penalty": (one_penalty, (4000, 1000), (400, 100), (50, 5)),
    "20 groups": (ridge, (2000, 400, 20, 10.0), (300, 60, 20, 3.0), (50, 6, 3, 1.0)),
    "100 single penalties": (ridge, (1000, 100, 100, 10.0), (300, 30, 30, 3.0), (50, 6, 6, 1.0)),
    "1000 single penalties": (ridge, (3000, 1000, 1000, 20.0), (200, 40, 40, 3.0), (50, 6, 6, 1.0)),
    "20 spline terms, GCV": (splines, (10000, 20, 20), (400, 4, 10), (60, 2, 6)),
}


def build(name: str, size: str) -> Task:
    make, *arguments = SIZES[name]
    return make(*arguments[("full", "short", "warm-up").index(size)])
