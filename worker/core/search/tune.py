"""The search: one descent after the other, with one step for each evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from worker.core.outer.descend import Search, Trials
from worker.core.records import Array, Outcome, Start, State, Step
from worker.core.search.descent import Descent
from worker.core.search.descents import Descents
from worker.core.search.one_start import search
from worker.core.search.plan import Plan, Prepared

Searches = Callable[[Prepared, int, Mapping[str, Array] | None], Search]


def tune(prepared: Prepared, resume: State | None = None, searches: Searches = search) -> Iterator[Step]:
    """The descents in turn, with one step for each evaluation, and a last one with `ended` set.

    `resume` is the `state` of an earlier step: the run then goes on as if it had never stopped, bit for bit.
    `searches` does what `search` does, and may compute later starts in advance.
    """
    plan, descents = prepared.plan, Descents(prepared)
    done: tuple[Start, ...] = resume.starts[:-1] if resume else ()
    running = resume.starts[-1] if resume else None
    search_state = resume.search if resume else None
    if running is not None:  # it may have been stopped between its last evaluation and its end
        step = Step(running.best, running.gradient_norm, (*done, running), None, None)
        if spent := _spent_budget(plan, step):
            yield last_step(descents, (*done, replace(running, outcome=spent)), spent)
            return
    while (descent := descents.next(done)) is not None:
        trials = Trials(searches(descent.prepared, descent.number, search_state))
        for trial in map(descent.told, trials):
            running = running.after(trial) if running else Start.begin(trial, descent.spread)
            state = State(trial.state, (*done, running)) if trial.state is not None else None
            step = Step(trial.evaluation, trial.gradient_norm, (*done, running), state, None)
            yield step
            if spent := _spent_budget(plan, step):
                yield last_step(descents, (*done, replace(running, outcome=spent)), spent)
                return
        assert running is not None  # a search evaluates before it ends
        done = (*done, replace(running, outcome=_outcome_of_best(descent, running, trials.outcome)))
        running, search_state = None, None
    yield last_step(descents, done, None)


def _outcome_of_best(descent: Descent, start: Start, outcome: Outcome) -> Outcome:
    """The outcome of a search. One that stalled has converged if its best point is stationary.

    Rounding decides whether the last point of such a search is its best one.
    """
    if outcome is not Outcome.STALLED or start.best.gradient_error > 0:
        return outcome
    return descent.prepared.outer.settled(descent.objective, descent.descended(start.best)) or outcome


def last_step(descents: Descents, starts: tuple[Start, ...], spent: Outcome | None) -> Step:
    """The step that ends a search: at the best point, with the outcome of its start or with the budget `spent`."""
    choice = None if spent is Outcome.TARGET_VALUE else descents.choice_so_far(starts)
    step = Step(starts[0].best, np.nan, starts, None, None, (), choice)
    best = step.best
    return replace(step, at=best.best, gradient_norm=best.gradient_norm, ended=spent or best.outcome)


def _spent_budget(plan: Plan, step: Step) -> Outcome | None:
    if plan.target_value is not None and step.best.best.selection <= plan.target_value:
        return Outcome.TARGET_VALUE
    if plan.max_evaluations is not None and step.evaluations >= plan.max_evaluations:
        return Outcome.MAX_EVALUATIONS
    return None
