"""What the product does: the best shared penalty, and several penalties with and without a hyper-prior."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.new_rows.task import Split, Task
from worker.core.hypergradient import HypergradientAuto
from worker.core.losses import PredictorScore
from worker.core.outer import Newton, Outer, OuterAuto
from worker.core.penalties import ClassPenalty
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, Prepared, prepare
from worker.core.search.procedure import carry_out
from worker.core.verdict.baseline import worth

GRID_POINTS = 13  # of the shared penalty, over its box
PLAIN = None  # the spread without a hyper-prior


@dataclass(frozen=True)
class Found:
    """The mean loss on the new rows, CPU seconds, and what the method says of itself, None where it says nothing.

    `value` is the selection value at the end, `corrected` the one that allows for the tuning, `chosen` the spread.
    """

    loss: float
    seconds: float
    value: float | None = None
    corrected: float | None = None
    chosen: float | None = None


def planned(task: Task, split: Split, i: int, penalty: ClassPenalty, outer: Outer) -> Prepared:
    """The problem of the rows to tune on, ready for the search."""
    plan = Plan(task.with_penalty(penalty), task.selection_of(i), HypergradientAuto(), outer)
    return prepare(split.train, plan)


def loss_of(prepared: Prepared, split: Split, rho: np.ndarray) -> float:
    """The mean loss on the new rows of the model that is refitted to all others; NaN if there is none."""
    model = prepared.plan.training.model(prepared.problem, prepared.rows, prepared.objective.natural(rho))
    new = split.test
    return (
        np.nan
        if model is None
        else mean_loss(prepared.objective.loss, new, model.predictor(new, np.arange(len(new.y))))
    )


def mean_loss(score: PredictorScore, new: Problem, eta: np.ndarray) -> float:
    """Of linear predictors of the new rows, a column for each class if there are several."""
    n = len(new.y)
    return score.at(new.y, eta.reshape(n, -1), np.ones(n)).value / n


def shared(task: Task, split: Split, i: int) -> Found:
    """One penalty: the best point of a grid over the box, then Newton's method from there."""
    began = time.process_time()
    prepared = planned(task, split, i, task.shared, Newton())
    box = prepared.objective.hyperparameters
    grid = np.linspace(box.lower, box.upper, GRID_POINTS)
    start = grid[int(np.argmin([prepared.objective.value(rho) for rho in grid]))]
    trials = prepared.outer.search(prepared.objective, start)
    best = min((trial.evaluation for trial in trials), key=lambda at: at.value)
    loss = loss_of(prepared, split, best.rho)
    return Found(loss, time.process_time() - began, best.value)


def several(spread: str | float | None, task: Task, split: Split, i: int) -> Found:
    """The family of penalties with a hyper-prior of this spread, as the service tunes it by default.

    After plain tuning the service looks for the shared optimum, to compare; these seconds do not count.
    """
    began = time.process_time()
    prepared = planned(task, split, i, with_spread(task.several(split.train), spread), OuterAuto())
    for last in carry_out(prepared):
        if spread is not PLAIN or last.starts[-1].spread is PLAIN:
            searched = time.process_time() - began
    best, began = last.best, time.process_time()
    loss = loss_of(prepared, split, best.best.rho)
    seconds = searched + time.process_time() - began
    return Found(loss, seconds, best.best.selection, worth(prepared, last).corrected, best.spread)


def with_spread(penalty: ClassPenalty, spread: str | float | None) -> ClassPenalty:
    """The same penalties with this hyper-prior."""
    return replace(penalty, spread=spread)  # type: ignore[call-arg]
