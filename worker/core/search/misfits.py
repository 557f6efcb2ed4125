"""The one judge of whether the parts of a plan fit each other and the columns. It needs no rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from worker.core.capabilities import Capability, Misfit, Need, unmet
from worker.core.family import kind_of, members
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan
from worker.core.selection import Selection
from worker.core.training import Training

DURATION_NEEDS_DATES = (
    "A duration needs dates: upload the table as a dataset and name its column of dates in the field time of the data, "
    "or give a number of rows here."
)

SPREAD_NEEDS_NESTED = 'Nested values are those of outer folds: set nested, such as {"folds": 5}, or leave this out.'
SPREAD_NEEDS_AUTO = (
    "There is no spread to choose: that takes several hyperparameters of one kind (a penalty for each feature, say) "
    "whose spread is auto; leave this out."
)
SPREAD_NEEDS_ONE_START = (
    "With spread_by nested there is one start: further ones are searched with the spread that is chosen, which is "
    "known after the outer folds only; set this to 1, or spread_by to auto."
)


def misfits(plan: Plan, problem: Problem, rows: int) -> Iterator[Misfit]:
    """What does not fit in a plan. Without any, its objective can be made, unless the values in the rows forbid it.

    `rows`: the number of rows that are known to be used; zero if that is not known.
    """
    training, selection = plan.training, plan.selection
    if plan.outer.needs_hessian and not (selection.has_hessian and Capability.HESSIAN in training.parts.offers):
        lacking = training.kind if selection.has_hessian else selection.kind
        text = f"{plan.outer.kind} needs an exact Hessian, which {lacking} does not have; use lbfgs or auto."
        yield Misfit(("outer", "kind"), text)
    if problem.offset is not None and training.refuses_offset is not None:
        yield Misfit(("data", "offset"), training.refuses_offset)
    if not problem.time_in_days:
        for name in selection.durations:
            yield Misfit(("selection", name), DURATION_NEEDS_DATES)
    yield from training.misfits(problem, rows)
    yield from _misfits_of_selection(plan, problem)
    yield from _misfits_of_spread(plan, problem)
    if unmet(plan.hypergradient.needs, training.parts.offers):
        kind = plan.hypergradient.kind
        text = f"{kind} is for {_kinds_that_offer(plan.hypergradient.needs)}; with {training.kind} use implicit."
        yield Misfit(("hypergradient", "kind"), text)


def _misfits_of_spread(plan: Plan, problem: Problem) -> Iterator[Misfit]:
    """What a choice of the spread by nested values needs."""
    if plan.spread_by != "nested":
        return
    if plan.nested is None:
        yield Misfit(("spread_by",), SPREAD_NEEDS_NESTED)
    if plan.outer.starts > 1:
        yield Misfit(("outer", "starts"), SPREAD_NEEDS_ONE_START)
    try:
        families = plan.hyperparameters(problem).families
    except ValueError:  # which has been told
        return
    if all(family.spread != "auto" for family in families):
        yield Misfit(("spread_by",), SPREAD_NEEDS_AUTO)


def _misfits_of_selection(plan: Plan, problem: Problem) -> Iterator[Misfit]:
    training, selection = plan.training, plan.selection
    need = unmet(selection.needs, training.parts.offers)
    if need is not None:
        yield _about_need(plan, need)
        return
    if selection.takes_factor and (curved := training.parts.curved) is not None:
        try:
            curved.check_factor(problem)
        except ValueError as error:
            text = f"{selection.kind} needs the factor of the Hessian; {error}; use holdout or k_fold, with newton_cg"
            yield Misfit(("selection", "kind"), text, "too_large")
    if selection.takes_loss and (rows := training.parts.rows) is not None:
        try:
            rows.score(selection.given_loss)
        except ValueError as error:
            yield Misfit(("selection", "loss"), str(error))


def _about_need(plan: Plan, need: Need) -> Misfit:
    """A selection criterion needs what training lacks, or withholds with these settings."""
    training, selection = plan.training, plan.selection
    for capability, (name, remedy) in training.parts.withheld.items():
        if capability in need:
            return Misfit(("training", name), f"{selection.kind} {remedy}.")
    offers = training.parts.offers
    others: dict[str, Any] = {kind_of(member): member for member in members(Selection)}
    fitting = [kind for kind in selection.alternatives if not unmet(others[kind].needs, offers)]
    text = f"{selection.kind} is for {_kinds_that_offer((need,))}; with {training.kind} use {_listed(fitting, 'or')}."
    return Misfit(("selection", "kind"), text)


def _kinds_that_offer(needs: tuple[Need, ...]) -> str:
    """The training criteria that meet these needs with their default settings."""
    return _listed([kind_of(member) for member in members(Training) if not unmet(needs, member().parts.offers)], "and")


def _listed(names: list[str], word: str) -> str:
    """`a, b and c`."""
    return f" {word} ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
