"""The whole procedure: the search and, on request, its outer cross-validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from worker.core.objective.clustered import sums_by_cluster
from worker.core.objective.scored_model import scored_by
from worker.core.records import Array, Evaluation, FoldScore, SpreadScore, State, Step
from worker.core.rows.filled import filled_by
from worker.core.search.descents import BUDGET_OUTCOMES, Descents
from worker.core.search.one_start import search
from worker.core.search.plan import Prepared, expected_trials
from worker.core.search.tune import Searches, last_step, tune


def carry_out(prepared: Prepared, resume: State | None = None, searches: Searches = search) -> Iterator[Step]:
    """The steps of the search, then those of the outer folds, if any, then the last one with `ended` set.

    `resume` is the `state` of an earlier step; `searches` is for `tune`. An interrupted outer fold starts again and
    gives the same numbers.
    """
    plan = prepared.plan
    if resume is not None and all(start.outcome is not None for start in resume.starts):
        outcome = resume.starts[-1].outcome
        last = last_step(Descents(prepared), resume.starts, outcome if outcome in BUDGET_OUTCOMES else None)
    else:
        for step in tune(prepared, resume, searches):
            last = step
            if step.ended is None:
                yield step
    if plan.nested is None or last.ended is None or last.ended.is_failure:
        yield last
        return
    folds, descents = resume.folds if resume else (), Descents(prepared)
    if resume is None or any(start.outcome is None for start in resume.starts):  # else it is the step of `resume`
        yield _after_folds(descents, last, folds)
    splits = plan.nested.splits(plan.selection, prepared.rows, prepared.problem)
    clusters = plan.selection.clusters(prepared.problem, prepared.partition)
    for rows, scored in splits[len(folds) :]:
        fold = _restricted_to(prepared, rows)
        for step in tune(fold, None, searches):
            fold_step = step
            yield replace(last, ended=None, folds=folds)
        folds = (*folds, _fold_score(fold, fold_step, scored, clusters))
        yield _after_folds(descents, last, folds)
    yield descents.with_folds(replace(last, folds=folds))


def _after_folds(descents: Descents, last: Step, folds: tuple[FoldScore, ...]) -> Step:
    """The step after some outer folds, from which a run can go on."""
    step = descents.with_folds(replace(last, folds=folds))
    return replace(step, ended=None, state=State({}, last.starts, folds))


def _restricted_to(prepared: Prepared, rows: Int[Array, " t"]) -> Prepared:
    """The same procedure on these rows only."""
    plan, problem = prepared.plan, prepared.problem
    partition = plan.selection.partition(rows, len(problem.y), problem)
    trials = expected_trials(plan, prepared.objective.hyperparameters)
    objective = plan.selection.objective(problem, partition, plan.training, prepared.hypergradient, trials)
    return replace(prepared, rows=rows, test_rows=rows[:0], partition=partition, objective=objective)


def _fold_score(fold: Prepared, step: Step, scored: Int[Array, " v"], clusters: Int[Array, " n"]) -> FoldScore:
    """The score on the left-out rows of the refit at a fold's best point; NaN if there is no model.

    If the folds choose a spread, also of the refit with each spread of the path. `clusters` has the cluster of each row
    of the problem, in all outer folds the same.
    """
    plan, problem = fold.plan, filled_by(fold.problem, fold.rows)[0]

    def of(spread: float, best: Evaluation) -> SpreadScore:
        model, unknown = None, np.full((2, 1), np.nan)
        if np.isfinite(best.value):
            model = plan.training.model(problem, fold.rows, fold.objective.natural(best.rho))
        if model is None:
            return SpreadScore(spread, np.nan, best.selection, unknown)
        at = scored_by(model, fold.objective.loss, problem, scored)
        sums = unknown
        if at.losses is not None:
            sums = sums_by_cluster(at.losses, at.weights, clusters[scored], int(clusters.max()) + 1)
        return SpreadScore(spread, at.value, best.selection, sums)

    choice, path = step.choice, tuple[SpreadScore, ...]()
    if plan.spread_by == "nested" and choice is not None:
        ends = (replace(step, choice=replace(choice, spread=point.spread)).best for point in choice.path)
        path = tuple(of(point.spread, end.best) for point, end in zip(choice.path, ends, strict=True))
    own = next((one for one in path if choice is not None and one.spread == choice.spread), None)
    one = own or of(np.nan, step.best.best)
    weight = float(fold.problem.score_weights(scored).sum())
    counts = step.iterations, step.evaluations, step.scanned
    return FoldScore(one.value, weight, len(scored), one.selection_value, *counts, one.clusters, path)
