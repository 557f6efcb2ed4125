"""The search: descend J from each start, with one step for each evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from worker.core.outer.descend import Search, Trials
from worker.core.records import Array, Outcome, Start, State, Step
from worker.core.search.one_start import search
from worker.core.search.plan import Plan, Prepared

Searches = Callable[[Prepared, int, Mapping[str, Array] | None], Search]


def tune(prepared: Prepared, resume: State | None = None, searches: Searches = search) -> Iterator[Step]:
    """Descend from each start in turn, with one step for each evaluation, and a last one with `ended` set.

    `resume` is the `state` of an earlier step: the run then goes on as if it had never stopped, bit for bit.
    `searches` does what `search` does, and may compute later starts in advance.
    """
    plan = prepared.plan
    done: tuple[Start, ...] = resume.starts[:-1] if resume else ()
    running = resume.starts[-1] if resume else None
    search_state = resume.search if resume else None
    for number in range(len(done), prepared.outer.starts):
        trials = Trials(searches(prepared, number, search_state))
        for trial in trials:
            running = running.after(trial) if running else Start.begin(trial)
            state = State(trial.state, (*done, running)) if trial.state is not None else None
            step = Step(trial.evaluation, trial.gradient_norm, (*done, running), state, None)
            yield step
            if spent := _spent_budget(plan, step):
                yield last_step((*done, replace(running, outcome=spent)), spent)
                return
        assert running is not None  # a search evaluates before it ends
        done = (*done, replace(running, outcome=_outcome_of_best(prepared, running, trials.outcome)))
        running, search_state = None, None
    yield last_step(done, None)


def _outcome_of_best(prepared: Prepared, start: Start, outcome: Outcome) -> Outcome:
    """The outcome of a search. One that stalled has converged if its best point is stationary.

    Rounding decides whether the last point of such a search is its best one.
    """
    if outcome is not Outcome.STALLED or start.best.gradient_error > 0:
        return outcome
    return prepared.outer.settled(prepared.objective, start.best) or outcome


def last_step(starts: tuple[Start, ...], spent: Outcome | None) -> Step:
    """The step that ends a search: at the best point, with the outcome of its start or with the budget `spent`."""
    best = min(starts, key=lambda start: start.best.value)
    return Step(best.best, best.gradient_norm, starts, None, spent or best.outcome)


def _spent_budget(plan: Plan, step: Step) -> Outcome | None:
    if plan.target_value is not None and step.best.best.value <= plan.target_value:
        return Outcome.TARGET_VALUE
    if plan.max_evaluations is not None and step.evaluations >= plan.max_evaluations:
        return Outcome.MAX_EVALUATIONS
    return None
