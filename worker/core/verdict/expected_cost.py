"""The cost of a whole job before it runs: the search, the outer folds, the refit and the certificates."""

from __future__ import annotations

from dataclasses import replace

from worker.core.costs import Cost, Sizes, TrainingCost, Work
from worker.core.rows.problem import Problem
from worker.core.search.descents import PATH
from worker.core.search.plan import Plan, resolve
from worker.core.search.search_cost import expected_evaluations, search_work, sizes_of
from worker.core.verdict.certificates import TYPICAL_EVALUATIONS
from worker.core.verdict.curvature import MAX_HYPERPARAMETERS, evaluations_of_curvature

REMARKS = Work(calls=150.0)
PASSES_OF_REMARKS = 10.0  # of the table: fills, remarks about columns, scores


def expected_cost(plan: Plan, problem: Problem, rows: int, filled: float = 1.0) -> tuple[str, Cost]:
    """The solver of training and the cost of the job. Needs no rows, and a plan without faults.

    `rows`: how many there are, for which those of the problem may stand in; `filled`: the fraction of the table's
    values that are stored.
    """
    box = plan.hyperparameters(problem)
    hypergradient, outer = resolve(plan, problem, box)
    k, needed = len(box.names), expected_evaluations(plan, outer, box)
    evaluations = min(needed, plan.max_evaluations or needed)
    sizes = sizes_of(plan, problem, hypergradient, box, rows=rows, filled=filled)
    cost = plan.training.cost(problem, sizes)
    work = search_work(cost, outer, k, evaluations)
    shares = () if plan.nested is None else plan.nested.shares(plan.selection)
    refits = 1.0 if plan.spread_by == "auto" else 1.0 + len(PATH)  # in each outer fold
    for share in shares:
        fold = plan.training.cost(problem, _part(sizes, share))
        work += search_work(fold, outer, k, evaluations) + fold.refit * refits
    work += _conclusion(plan, cost, sizes, evaluations) + Work(
        passes=PASSES_OF_REMARKS * sizes.rows * len(problem.features) * filled
    )
    held = cost.held + (cost.tangents if outer.needs_hessian else 0.0)
    total = evaluations * (1 + len(shares))
    return cost.solver, Cost(total, needed, work.operations, 8.0 * held, work.seconds)


def _conclusion(plan: Plan, cost: TrainingCost, sizes: Sizes, evaluations: int) -> Work:
    """The certificates, the curvature and the refit."""
    exact = plan.selection.has_hessian and plan.training.parts.has_hessian
    again = TYPICAL_EVALUATIONS + evaluations_of_curvature(sizes.k, evaluations, exact=exact)
    work = cost.evaluation * again + cost.refit + REMARKS
    return work + cost.hessian if exact and sizes.k <= MAX_HYPERPARAMETERS else work


def _part(sizes: Sizes, share: float) -> Sizes:
    """The same with a fraction of the rows."""
    return replace(sizes, rows=int(share * sizes.rows), train=max(int(share * sizes.train), 1))
