"""Random tables that cost digits, and plans for them: each case follows from its seed alone.

Columns have offsets of 0 to 1e15 and spreads of 1e-6 to 1e6; some are integers, indicators, decaying series or nearly
constant; sentinels such as 2147483647 stand in any row; weights are zero anywhere. The doubles are the data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from worker.core.hypergradient import Implicit
from worker.core.outer import Newton
from worker.core.penalties import PerFeature, Shared
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan
from worker.core.selection import (
    Evidence,
    GeneralizedCV,
    GivenFolds,
    Holdout,
    KFold,
    LeaveOneOut,
    MarginalLikelihood,
    Reml,
    WalkForward,
)
from worker.core.selection.evidence_settings import NoiseVariance
from worker.core.training import Ridge

SENTINELS = (1e8, 2147483647.0, 999999.0, -1e12, -9999.0)
REPRESENTATIONS = ("dense", "chunked", "table", "sparse", "sparse chunked", "dual", "sparse dual", "wide", "spectral")
SELECTIONS = (
    "holdout", "k_fold", "given_folds", "walk_forward", "rolling_window", "leave_one_out", "generalized_cv",
    "evidence", "marginal_likelihood", "reml", "noise_variance",
)  # fmt: skip
COLUMNS = ("normal", "normal", "integers", "indicator", "decaying", "nearly constant", "sentinel", "sentinel")
SPARSE_COLUMNS = ("normal", "normal", "integers", "indicator", "indicator", "mostly zero", "sentinel")


@dataclass(frozen=True)
class Case:
    """A table and a plan. `columns` are the kinds of columns; `problem.X` is dense, `table` is what the core gets."""

    seed: int
    representation: str
    selection: str
    columns: tuple[str, ...]
    problem: Problem
    plan: Plan
    rho: np.ndarray

    @property
    def table(self) -> Problem:
        X: Any = self.problem.X
        if "sparse" in self.representation:
            X = csr_array(X)
        elif self.representation == "table":
            X = RowsRead(X)
        return replace(self.problem, X=X)

    @property
    def penalty_of_column(self) -> list[int]:
        p = len(self.problem.features)
        return list(range(p)) if isinstance(self.plan.training.penalty, PerFeature) else [0] * p


@dataclass(frozen=True, slots=True)
class RowsRead:
    """A table that is not an array, as a memory map of a file is."""

    X: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return self.X.shape

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.X[rows].copy()


def case(seed: int) -> Case:
    """The case of this seed: representations and selections take turns, all else is random."""
    rng = np.random.default_rng([seed, 15])
    representation = REPRESENTATIONS[seed % len(REPRESENTATIONS)]
    selection = SELECTIONS[seed // len(REPRESENTATIONS) % len(SELECTIONS)]
    n, p = int(rng.integers(12, 33)), int(rng.integers(1, 7))
    if representation == "wide":
        n, p = int(rng.integers(8, 11)), int(rng.integers(18, 22))
    kinds = tuple(str(kind) for kind in rng.choice(SPARSE_COLUMNS if "sparse" in representation else COLUMNS, p))
    signal, columns = np.zeros(n), []
    sentinels = _sentinel_rows(n, rng)
    for kind in kinds:
        column, shape = _column(kind, n, rng)
        if kind == "sentinel":
            column[sentinels if rng.random() < 0.5 else _sentinel_rows(n, rng)] = rng.choice(SENTINELS)
        columns.append(column)
        signal += rng.normal() * shape * (rng.random() < 0.7)
    problem = Problem(
        np.column_stack(columns), _target(signal, rng), tuple(f"x{j}" for j in range(p)),
        weights=_weights(n, rng), scoring=rng.uniform(0.1, 3.0, n) if rng.random() < 0.15 else None,
    )  # fmt: skip
    shared = representation == "spectral" or rng.random() < 0.5
    training = Ridge(bool(rng.random() < 0.7), bool(rng.random() < 0.65), Shared() if shared else PerFeature())
    starts = 3 if representation == "spectral" else 1  # from 36 trials on, one penalty is solved by eigenvectors
    plan = Plan(training, _selection(selection, n, rng), Implicit(), Newton(starts=starts))
    count = (1 if shared else p) + (selection == "noise_variance")
    rho = rng.uniform(np.log(1e-6), np.log(1e6), count)
    if selection == "noise_variance":
        rho[-1] = np.log(np.var(problem.y)) + rng.normal()
    return Case(seed, representation, selection, kinds, problem, plan, rho)


def _sentinel_rows(n: int, rng: np.random.Generator) -> list[int]:
    """One to three consecutive rows: often in one block or window only."""
    first = int(rng.integers(n))
    return list(range(first, min(n, first + int(rng.choice([1, 1, 3])))))


def _column(kind: str, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A column in its units, and its shape in units of order one. What has a natural zero has no offset."""
    shape = rng.normal(size=n)
    spread = 10.0 ** rng.uniform(-6, 6)
    offset = 0.0 if rng.random() < 0.35 else rng.choice([-1.0, 1.0]) * 10.0 ** rng.uniform(0, 15)
    if kind == "integers":  # epoch seconds, ids
        low, high = rng.choice([(0, 9), (1_700_000_000, 1_700_100_000), (10**8, 10**9), (2**52, 2**52 + 1000)])
        values = rng.integers(low, high, n).astype(float)
        return values, (values - low) / (high - low)
    if kind == "indicator":
        shape = (rng.random(n) < rng.uniform(0.1, 0.9)).astype(float)
        return shape, shape
    if kind == "mostly zero":
        shape = np.where(rng.random(n) < 0.3, shape, 0.0)
        return spread * shape, shape
    if kind == "decaying":
        shape = np.exp(-np.arange(n) * rng.uniform(0.05, 2.0))
        return spread * (shape if rng.random() < 0.5 else shape[::-1]), shape
    if kind == "nearly constant":
        shape = np.where(np.arange(n) == rng.integers(n), 1.0, 0.0) + 1e-3 * (rng.random() < 0.5) * shape
        return offset + spread * shape, shape
    return offset + spread * shape, shape


def _target(signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Signal and noise of 0.1 % to 3 times its size, in some units, with an offset of its own."""
    spread, noise = 10.0 ** rng.uniform(-6, 6), 10.0 ** rng.uniform(-3, 0.5)
    offset = 0.0 if rng.random() < 0.4 else rng.choice([-1.0, 1.0]) * spread * 10.0 ** rng.uniform(0, 10)
    return offset + spread * (signal + noise * rng.normal(size=len(signal)))


def _weights(n: int, rng: np.random.Generator) -> np.ndarray | None:
    draw = rng.random()
    if draw < 0.5:
        return None
    weights = 10.0 ** rng.uniform(-1.5, 1.5, n)
    some = np.arange(n) % 3 > 0  # one row in three keeps its weight, so that every window has one to train on
    return np.where(some & (rng.random(n) < 0.3), 0.0, weights) if draw < 0.75 else weights


def _selection(name: str, n: int, rng: np.random.Generator) -> Any:
    horizon = int(rng.integers(2, 6))
    return {
        "holdout": Holdout(seed=int(rng.integers(100)), fraction=0.3),
        "k_fold": KFold(folds=int(rng.integers(2, 6)), seed=int(rng.integers(100)), shuffle=bool(rng.random() < 0.5)),
        "given_folds": GivenFolds(fold_of_row=tuple(int(fold) for fold in rng.permutation(np.arange(n) % 3))),
        "walk_forward": WalkForward(initial=n // 2, horizon=horizon),
        "rolling_window": WalkForward(initial=n // 3 + 1, window=n // 3 + 1, horizon=horizon),
        "leave_one_out": LeaveOneOut(),
        "generalized_cv": GeneralizedCV(),
        "evidence": Evidence(),
        "marginal_likelihood": MarginalLikelihood(),
        "reml": Reml(),
        "noise_variance": Evidence(NoiseVariance(lower=1e-300, upper=1e300)),
    }[name]
