"""What a task is: splits of rows into those to tune on and new ones, a training criterion, penalties, a selection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from worker.core.penalties import ClassPenalty, PerFeature, PerGroup, Shared
from worker.core.rows.problem import Problem
from worker.core.selection import KFold, Selection, StratifiedKFold
from worker.core.training import LinearTraining, LogisticRegression, Ridge

SPLITS = 10
BOX = {"initial": 1.0, "lower": 1e-6, "upper": 1e6}
BENCH_BOX = {"initial": 1e-3, "lower": 1e-8, "upper": 1e4}


@dataclass(frozen=True)
class Split:
    """Rows to tune on, and new rows that only score the refitted model."""

    train: Problem
    test: Problem


@dataclass(frozen=True)
class Task:
    """`draw(data, i)` is split i; `folder` the folder of the data directory that it reads, if any.

    `penalty` is the family of several penalties, without the groups of one for each group. `size` is about the number
    of values of X to tune on, in thousands, times the classes if there are several: small tasks are run first.
    """

    number: int
    name: str
    draw: Callable[[Path, int], Split]
    size: float
    training: LinearTraining = Ridge()  # noqa: RUF009 - frozen
    penalty: ClassPenalty = PerFeature(**BOX)  # noqa: RUF009 - frozen
    selection: Selection = KFold()  # noqa: RUF009 - frozen
    splits: int = SPLITS
    folder: str | None = None

    @property
    def shared(self) -> Shared:
        """One penalty in the same box."""
        return Shared(self.penalty.initial, self.penalty.lower, self.penalty.upper)

    def several(self, problem: Problem) -> ClassPenalty:
        """The family of several penalties for these features."""
        if isinstance(self.penalty, PerGroup):
            return replace(self.penalty, groups=groups_of(problem.features))
        return self.penalty

    def selection_of(self, i: int) -> Selection:
        """The selection criterion of split i: what is random in it has the seed i."""
        return replace(self.selection, seed=i) if hasattr(self.selection, "seed") else self.selection

    def with_penalty(self, penalty: ClassPenalty) -> LinearTraining:
        """The training criterion with this penalty."""
        return replace(self.training, penalty=penalty)  # type: ignore[arg-type] - a task with a penalty for each class is multinomial


def groups_of(features: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Features whose names are equal up to a colon are a group."""
    groups: dict[str, tuple[str, ...]] = {}
    for name in features:
        group = name.partition(":")[0]
        groups[group] = (*groups.get(group, ()), name)
    return groups


def problem_of(X: np.ndarray, y: np.ndarray, rows: np.ndarray, **roles: Any) -> Problem:
    """These rows, with the names x0, x1, ... of the columns unless others are given."""
    features = roles.pop("features", tuple(f"x{j}" for j in range(X.shape[1])))
    return Problem(X[rows], y[rows], features, **roles)


def cut(X: np.ndarray, y: np.ndarray, i: int, n: int, tested: int | None = None, **roles: Any) -> Split:
    """Split i: the first n rows of a permutation, sorted, and the next `tested` ones, by default all others."""
    order = np.random.default_rng([77, i]).permutation(len(y))
    end = len(y) if tested is None else n + tested
    return Split(*(problem_of(X, y, np.sort(rows), **roles) for rows in (order[:n], order[n:end])))


def classified(**settings: Any) -> dict[str, Any]:
    """Settings of a task of two classes."""
    return {"training": LogisticRegression(), "selection": StratifiedKFold(), **settings}
