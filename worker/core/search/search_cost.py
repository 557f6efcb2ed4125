"""How many evaluations of J a search takes, and what its training depends on. Needs no rows."""

from __future__ import annotations

import numpy as np

from worker.core.costs import Sizes, TrainingCost, Work
from worker.core.hypergradient import ExactHypergradient
from worker.core.hyperparameters import Hyperparameters
from worker.core.outer import Optimizer
from worker.core.outer.scan import scan_evaluations
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem
from worker.core.search.descents import PATH
from worker.core.search.plan import Plan, expected_trials, split_rows
from worker.core.selection import KFold, Selection

FEW, PER_HYPERPARAMETER = 10, 8  # evaluations of a start: few hyperparameters take less than is typical of many
OF_OTHER_STARTS = 2  # times the evaluations of the first start, which is a reasonable point; others are random
OF_SHARED = {1: 18, 2: 90}  # evaluations for a shared value, by the number of hyperparameters left: grid and descent
OF_STAGE = 0.6  # of a stage of the path of hyper-priors, in units of a plain start: it begins near its end
CALLS_OF_TRIAL = 10.0  # of NumPy, in the optimizer
CUBES_OF_MODEL = 9.0  # flops of a trust region's eigendecomposition over the cube of the hyperparameters


def expected_evaluations(plan: Plan, outer: Optimizer, box: Hyperparameters) -> int:
    """Evaluations of J of one search over all of its starts, whatever the budget is."""
    k = len(box.names)
    most = outer.most_iterations(k) + 1
    of_start = min(outer.typical_evaluations, FEW + PER_HYPERPARAMETER * k, most)
    of_others = (outer.starts - 1) * min(OF_OTHER_STARTS * of_start, most)
    if not box.families:
        return of_start + of_others + (scan_evaluations(k) if plan.scans(box) else 0)
    free = k - sum(len(family.members) - 1 for family in box.families)
    shared = OF_SHARED.get(free) or min(outer.typical_evaluations, FEW + PER_HYPERPARAMETER * free, most)
    spreads = {family.spread for family in box.families}
    if spreads == {None}:
        return of_start + of_others + (scan_evaluations(k) if plan.scans(box) else 0) + shared
    stages = len(PATH) if "auto" in spreads else 1
    return shared + int(np.ceil(OF_STAGE * stages * of_start)) + of_others


def search_work(cost: TrainingCost, outer: Optimizer, k: int, evaluations: int) -> Work:
    """Preparing and evaluating J; with the exact Hessian at each evaluation, if the optimizer takes it."""
    trial = cost.evaluation + Work(passes=30.0 * k, calls=CALLS_OF_TRIAL)
    if outer.needs_hessian:
        trial += cost.hessian + Work(CUBES_OF_MODEL * k**3)
    return cost.preparation + trial * evaluations


def sizes_of(
    plan: Plan, problem: Problem, hypergradient: ExactHypergradient, box: Hyperparameters, *, rows: int, filled: float
) -> Sizes:
    """What the cost of training depends on, for so many rows, of which those of the problem may be a part."""
    there = len(problem.y)
    tuned, _ = split_rows(there, plan)
    partition = _stand_in_partition(plan.selection, tuned, problem)
    counts = np.bincount(partition.block_of_row + 1, minlength=partition.blocks + 1)[1:]
    train = max(int(counts[list(blocks)].sum()) for blocks, _ in partition.splits)
    scale = rows / max(there, 1)
    selection = plan.selection
    return Sizes(
        int(len(tuned) * scale), int(train * scale), len(partition.splits), filled, len(box.names),
        expected_trials(plan, box), selection.closed_form, selection.leaves_rows_out, hypergradient.needs_primal_factor,
    )  # fmt: skip


def _stand_in_partition(selection: Selection, rows: Array, problem: Problem) -> Partition:
    """The splits of rows that stand in for the real ones. Evenly spaced dates may allow none where the real ones do."""
    try:
        return selection.partition(rows, len(problem.y), problem)
    except ValueError:
        return KFold(folds=2).partition(rows, len(problem.y))
