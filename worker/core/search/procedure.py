"""The whole procedure: the search, and on request an outer cross-validation of all of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from worker.core.records import Array, FoldScore, Outcome, State, Step
from worker.core.rows.filled import filled_by
from worker.core.search.plan import TRIALS, Prepared, objective_of
from worker.core.search.refit import refit
from worker.core.search.tune import Searches, last_step, search, tune

BUDGETS = {Outcome.TARGET_VALUE, Outcome.MAX_EVALUATIONS}


def carry_out(prepared: Prepared, resume: State | None = None, searches: Searches = search) -> Iterator[Step]:
    """The steps of the search, then those of the outer folds, if any, then the last one with `ended` set.

    `resume` is the `state` of an earlier step, `searches` what `tune` takes. An outer fold that was interrupted begins
    anew, with the same numbers.
    """
    plan = prepared.plan
    if resume is not None and all(start.outcome is not None for start in resume.starts):
        outcome = resume.starts[-1].outcome
        last = last_step(resume.starts, outcome if outcome in BUDGETS else None)
    else:
        for step in tune(prepared, resume, searches):
            last = step
            if step.ended is None:
                yield step
    if plan.nested is None or last.ended is None or last.ended.is_failure:
        yield last
        return
    folds = resume.folds if resume else ()
    yield replace(last, ended=None, folds=folds, state=State({}, last.starts, folds))
    splits = plan.nested.splits(plan.selection, prepared.rows, prepared.problem)
    for rows, scored in splits[len(folds) :]:
        part = _on_rows(prepared, rows)
        for step in tune(part, None, searches):
            inner = step
            yield replace(last, ended=None, folds=folds)
        folds = (*folds, _score(part, inner, scored))
        yield replace(last, ended=None, folds=folds, state=State({}, last.starts, folds))
    yield replace(last, folds=folds)


def _on_rows(prepared: Prepared, rows: Int[Array, " t"]) -> Prepared:
    """The same procedure on some of the rows."""
    plan, problem = prepared.plan, prepared.problem
    partition = plan.selection.partition(rows, len(problem.y), problem)
    objective = objective_of(problem, partition, plan, prepared.hypergradient, TRIALS * prepared.outer.starts)
    return replace(prepared, rows=rows, test_rows=rows[:0], partition=partition, objective=objective)


def _score(part: Prepared, step: Step, scored: Int[Array, " v"]) -> FoldScore:
    """The refit at the best point of a fold, scored on the rows that were left out; NaN where there is none."""
    problem, _ = filled_by(part.problem, part.rows)
    best, model = step.best.best, None
    if np.isfinite(best.value):
        model = refit(part.plan.training, problem, part.rows, part.objective.natural(best.rho))
    value = np.nan if model is None else model.score(part.objective.loss, problem, scored)
    weight = float(part.problem.score_weights(scored).sum())
    return FoldScore(value, weight, len(scored), best.value, step.iterations, step.evaluations)
