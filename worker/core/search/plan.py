"""A plan, and its preparation: methods are chosen, rows assigned, statistics built once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from worker.core.hypergradient import ExactHypergradient, Hypergradient
from worker.core.hyperparameters import Hyperparameters
from worker.core.objective.objective import Objective
from worker.core.outer import Optimizer, Outer
from worker.core.outer.scan import points_of_grid
from worker.core.records import Array
from worker.core.rows.present import present_rows, restricted
from worker.core.rows.problem import Partition, Problem
from worker.core.rows.time_order import completed, in_order
from worker.core.search.nested import Nested, SpreadBy
from worker.core.selection import Selection
from worker.core.training import Training

Scans = Literal["after", "grid"] | None
MIN_TRIALS_PER_START = 12  # evaluations of J that one start takes at least, including those of the certificates


@dataclass(frozen=True, slots=True)
class Plan:
    """The training and selection criteria, the methods, and the budget of the search over all starts.

    `spread_by`: what chooses a spread that is `auto`, the rows of the selection or the outer folds of `nested`.
    """

    training: Training
    selection: Selection
    hypergradient: Hypergradient
    outer: Outer
    seed: int = 0
    test_fraction: float = 0.0
    max_evaluations: int | None = None
    target_value: float | None = None
    nested: Nested | None = None
    spread_by: SpreadBy = "auto"

    def hyperparameters(self, problem: Problem) -> Hyperparameters:
        """All hyperparameters: first those of training, then those of the selection criterion. Needs no rows.

        Raises ValueError if the training criterion does not fit the columns.
        """
        of_training, of_selection = self.training.hyperparameters(problem), self.selection.hyperparameters()
        return of_training if of_selection is None else of_training + of_selection

    def scans(self, box: Hyperparameters) -> bool:
        """Whether the box of the hyperparameters is scanned."""
        return self.outer.scans(len(box.names))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A problem with its plan resolved: no `auto` is left, rows are assigned, statistics are built.

    The problem has no absent rows, of which `left_out` were left out; the plan counts the others from 0. `scans`:
    whether the first start is followed by a coarse scan of the box, or preceded by a coarse grid, or neither.
    """

    problem: Problem
    plan: Plan
    hypergradient: ExactHypergradient
    outer: Optimizer
    rows: Int[Array, " m"]
    test_rows: Int[Array, " t"]
    partition: Partition
    objective: Objective
    scans: Scans
    left_out: int = 0

    @property
    def clusters(self) -> Int[Array, " n"]:
        """The cluster of each row: rows of one may depend on each other."""
        return self.plan.selection.clusters(self.problem, self.partition)

    @property
    def selection_rows(self) -> float:
        """How many rows J scores; with unequal weights, how many equal ones would say as much."""
        scored = np.unique(np.concatenate([self.partition.rows(rows) for _, rows in self.partition.splits]))
        weights = self.problem.score_weights(scored)
        return float(weights.sum() ** 2 / (weights @ weights))


def of_present_rows(problem: Problem, plan: Plan) -> tuple[Problem, Plan]:
    """Problem and plan without the rows of weight 0, which count no more than rows that are not there.

    Raises ValueError if the plan lists rows that do not fit.
    """
    n, kept = len(problem.y), present_rows(problem)
    if len(kept) == n:
        return problem, plan
    selection = replace(plan.selection, **plan.selection.settings_of_rows(kept, problem))
    return restricted(problem, kept), replace(plan, selection=selection)


def split_rows(n: int, plan: Plan, time: Float[Array, " n"] | None = None) -> tuple[Int[Array, " m"], Int[Array, " t"]]:
    """Rows to tune on and rows of the untouched test part, both ascending. Raises ValueError if that would be empty.

    With an ordered selection criterion the test part is the end of `time`, or of the table without `time`. Rows of
    equal time stay together: those of a run that the border would cut are tuned on.
    """
    count = round(plan.test_fraction * n)
    if plan.test_fraction > 0 and count == 0:
        raise ValueError(f"a test_fraction of {plan.test_fraction:g} of {n} rows holds out no row")
    if plan.selection.ordered and time is not None:
        order, clock = in_order(np.arange(n), time)
        border = completed(clock, n - count)
        if count and border == n:
            run = n - int(np.searchsorted(clock, clock[-1]))
            raise ValueError(
                f"the last {run} rows have the same time and stay together; hold out all of them, "
                f"a test_fraction of at least {run / n:.4g}"
            )
        return np.sort(order[:border]), np.sort(order[border:])
    if count == 0 or plan.selection.ordered:  # the test part of a series is its end
        return np.arange(n - count), np.arange(n - count, n)
    order = np.random.default_rng([plan.seed, 2]).permutation(n)
    return np.sort(order[count:]), np.sort(order[:count])


def resolve(plan: Plan, problem: Problem, box: Hyperparameters) -> tuple[ExactHypergradient, Optimizer]:
    """The methods that `auto` stands for. Needs no rows. `box`: all hyperparameters of the plan."""
    has_hessian = plan.selection.has_hessian and plan.training.parts.has_hessian
    inexact = has_hessian and plan.training.prefers_inexact(problem)
    return plan.hypergradient.resolve(), plan.outer.resolve(len(box.names), has_hessian=has_hessian, inexact=inexact)


def expected_trials(plan: Plan, box: Hyperparameters) -> int:
    """How many evaluations of J the search takes at least."""
    return MIN_TRIALS_PER_START * plan.outer.starts + (points_of_grid(box) if plan.scans(box) else 0)


def prepare(problem: Problem, plan: Plan) -> Prepared:
    """Assign rows and build all statistics that an evaluation needs, in one pass over the rows.

    Raises ValueError if the plan does not fit the data; the message names the place.
    """
    given = len(problem.y)
    problem, plan = of_present_rows(problem, plan)
    n = len(problem.y)
    rows, test_rows = split_rows(n, plan, problem.time)
    plan.training.check_target(problem)
    problem = plan.training.expanded(problem, rows)
    partition = plan.selection.partition(rows, n, problem)
    check_weights(plan, problem, partition)
    check_nested(plan, problem, rows)
    box = plan.hyperparameters(problem)
    hypergradient, outer = resolve(plan, problem, box)
    trials = expected_trials(plan, box)
    objective = plan.selection.objective(problem, partition, plan.training, hypergradient, trials)
    promised = plan.selection.has_hessian and plan.training.parts.has_hessian
    if outer.needs_hessian and promised and not objective.has_hessian:  # it would not fit in memory
        outer = plan.outer.resolve(len(box.names), has_hessian=False, inexact=False)
        if outer.needs_hessian:
            raise ValueError("the Hessian of J with so many hyperparameters and coefficients is too large; use lbfgs")
    scans: Scans = "after" if plan.scans(box) else None
    return Prepared(problem, plan, hypergradient, outer, rows, test_rows, partition, objective, scans, given - n)


def check_nested(plan: Plan, problem: Problem, rows: Int[Array, " m"], *, values: bool = True) -> None:
    """Raises ValueError if tuning without an outer fold is impossible; `values`: whether the values are known."""
    if plan.nested is None:
        return
    for number, (part, _) in enumerate(plan.nested.splits(plan.selection, rows, problem), start=1):
        partition = plan.selection.partition(part, len(problem.y), problem)
        try:
            if values:
                check_splits(plan, problem, partition)
            check_weights(plan, problem, partition)
        except ValueError as error:
            raise ValueError(f"without the rows of outer fold {number}, {error}") from error


def check_splits(plan: Plan, problem: Problem, partition: Partition) -> None:
    """Raises ValueError if a split lacks what training or the selection loss needs."""
    plan.training.check_splits(problem, partition, plan.selection.given_loss)


def check_weights(plan: Plan, problem: Problem, partition: Partition) -> None:
    """Raises ValueError if weights leave a split no row to train on, or nothing to score.

    Closed forms need two training rows. Leave-one-out of kernel ridge scores training rows only.
    """
    if problem.weights is None and problem.scoring is None:
        return
    min_rows = 2 if plan.selection.closed_form else 1
    rows = partition.used
    block = partition.block_of_row[rows]
    training_rows = np.bincount(block, problem.base_weights(rows) > 0, minlength=partition.blocks)
    scored = np.bincount(block, problem.score_weights(rows), minlength=partition.blocks)
    for number, (train, _) in enumerate(partition.splits, start=1):
        if (count := training_rows[list(train)].sum()) < min_rows:
            without_weight = "all rows but one" if count else "all rows"
            raise ValueError(f"{without_weight} that split {number} of {len(partition.splits)} trains on have weight 0")
    split_weights = plan.selection.split_weights or (1.0,) * len(partition.splits)
    weighted_splits = zip(split_weights, partition.splits, strict=True)
    if not any(weight and scored[list(validation)].any() for weight, (_, validation) in weighted_splits):
        raise ValueError("every row that would be scored has weight 0, or its split has")
    kernel_matrix = plan.training.parts.kernel_matrix
    if plan.selection.leaves_rows_out and kernel_matrix is not None:
        kernel_matrix.check_left_out(problem, rows)
