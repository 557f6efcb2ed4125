"""What scikit-learn and CMA-ES make of the same rows, with the same folds.

A grid of the peers has two points a decade of the task's box: their penalty on a summed loss is ours times the rows
of a fold. Rows are scaled as the task says, by the statistics of all rows to tune on, which is how a pipeline is
mostly written. Each is refitted to all rows.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np

from benchmarks.new_rows.ours import PLAIN, Found, loss_of, mean_loss, planned, with_spread
from benchmarks.new_rows.task import Split, Task
from worker.core.outer import OuterAuto

L1_RATIOS = (0.1, 0.5, 0.7, 0.9, 0.95, 0.99, 1.0)  # as scikit-learn's documentation recommends
CLASS_L1_RATIOS = (0.1, 0.5, 0.9, 1.0)
CLASS_STEPS = 1000  # iterations of saga
CMA_STEP = 2.0  # of the first generation, on the scale of the logarithm

Folds = list[tuple[np.ndarray, np.ndarray]]


def folds_of(task: Task, split: Split, i: int) -> Folds:
    """The rows that train and those that are scored, the same as ours."""
    n = len(split.train.y)
    partition = task.selection_of(i).partition(np.arange(n), n, split.train)
    return [(partition.rows(train), partition.rows(scored)) for train, scored in partition.splits]


def penalties(task: Task, folds: Folds) -> np.ndarray:
    """The grid, on the scale of a summed loss of a fold's rows."""
    low, high = np.log10(task.penalty.lower), np.log10(task.penalty.upper)
    rows = np.mean([len(train) for train, _ in folds])
    return np.logspace(low, high, 2 * round(high - low) + 1) * rows


def ridge_cv(task: Task, split: Split, i: int) -> Found:
    from sklearn.linear_model import RidgeCV  # noqa: PLC0415 - not in the other benchmarks

    folds = folds_of(task, split, i)
    return fitted(RidgeCV(penalties(task, folds), cv=folds, scoring="neg_mean_squared_error"), task, split)


def elastic_net_cv(task: Task, split: Split, i: int) -> Found:
    from sklearn.linear_model import ElasticNetCV  # noqa: PLC0415

    model = ElasticNetCV(l1_ratio=L1_RATIOS, cv=folds_of(task, split, i), max_iter=10_000)
    return fitted(model, task, split)


def ard_regression(task: Task, split: Split, _: int) -> Found:
    from sklearn.linear_model import ARDRegression  # noqa: PLC0415

    return fitted(ARDRegression(), task, split)


def logistic_cv(task: Task, split: Split, i: int) -> Found:
    from sklearn.linear_model import LogisticRegressionCV  # noqa: PLC0415

    folds = folds_of(task, split, i)
    model = LogisticRegressionCV(
        Cs=1.0 / penalties(task, folds)[::-1], l1_ratios=(0.0,), cv=folds, scoring="neg_log_loss",
        solver="newton-cholesky", use_legacy_attributes=False,
    )  # fmt: skip
    return fitted(model, task, split)


def logistic_elastic_net_cv(task: Task, split: Split, i: int) -> Found:
    from sklearn.linear_model import LogisticRegressionCV  # noqa: PLC0415

    model = LogisticRegressionCV(
        Cs=10, l1_ratios=CLASS_L1_RATIOS, cv=folds_of(task, split, i), scoring="neg_log_loss", solver="saga",
        max_iter=CLASS_STEPS, random_state=0, use_legacy_attributes=False,
    )  # fmt: skip
    return fitted(model, task, split)


def fitted(model: Any, task: Task, split: Split) -> Found:
    """The loss on the new rows, and CPU seconds of scaling and search."""
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    whole = make_pipeline(StandardScaler(), model) if task.training.standardize else make_pipeline(model)
    with warnings.catch_warnings(action="ignore"):  # saga stops at its iterations
        began = time.process_time()
        whole.fit(split.train.X, split.train.y)
        seconds = time.process_time() - began
    classifies, new = task.training.classifies, split.test
    eta = whole.decision_function(new.X) if classifies else whole.predict(new.X)
    tuned = np.arange(len(split.train.y))
    score = task.training.selection_loss(split.train, task.selection.given_loss, tuned)
    return Found(mean_loss(score, new, eta), seconds)


def cma_es(task: Task, split: Split, i: int, seconds: float) -> Found:
    """CMA-ES on our J of all penalties for these CPU seconds, from the task's initial values, again when it has ended.

    The package `cmaes` is what Optuna's sampler calls; without Optuna around it more points are tried in that time.
    """
    from cmaes import CMA  # noqa: PLC0415

    began = time.process_time()
    prepared = planned(task, split, i, with_spread(task.several(split.train), PLAIN), OuterAuto())
    box, value = prepared.objective.hyperparameters, prepared.objective.value
    bounds = np.column_stack([box.lower, box.upper])
    best = box.initial, value(box.initial)
    search, starts = CMA(box.initial, CMA_STEP, bounds=bounds, seed=0), 1
    with warnings.catch_warnings(action="ignore"):  # overflow where J is flat to the bounds
        while time.process_time() - began < seconds:
            if search.should_stop():
                search, starts = CMA(best[0], CMA_STEP, bounds=bounds, seed=starts), starts + 1
            tried = [(rho, value(rho)) for rho in (search.ask() for _ in range(search.population_size))]
            search.tell(tried)
            best = min(best, *tried, key=lambda one: one[1])
    return Found(loss_of(prepared, split, best[0]), time.process_time() - began, best[1])
