"""What is wrong with a job spec beyond its schema: whether it fits its data, and its parts each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from worker.contract.columns import Selected
from worker.contract.combinations import combination_faults, target_faults
from worker.contract.criteria import criteria_faults
from worker.contract.data import MatricesData
from worker.contract.faults import Fault, sentence
from worker.contract.inline import inline_faults
from worker.contract.search_size import form_faults, size_faults, spline_faults
from worker.contract.spec import JobSpec
from worker.core.durations import MICROSECONDS_PER_DAY, microseconds
from worker.core.penalties.splines import SplineError, too_few
from worker.core.records import Array
from worker.core.rows.present import present_rows
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, check_nested, check_splits, check_weights, of_present_rows, split_rows
from worker.core.selection import QuadraticSelection, WalkForward
from worker.core.training import Quadratic, Training
from worker.core.training.linear import LinearPredictor

# Faults of these settings do not keep the splits from being checked.
APART_FROM_SPLITS = ("/training/penalty", "/training/weights", "/training/kernel", "/training/landmarks")


def faults(spec: JobSpec, selected: Selected | None = None) -> list[Fault]:
    """What a schema cannot say: the shape of the data, and whether data and plan fit together.

    `selected` is what the spec uses of its dataset, if it has one. Whether its values fit is seen by the worker.
    """
    if found := list(_kind_faults(spec)):
        return found
    if isinstance(spec.data, MatricesData):
        return list(criteria_faults(spec.criteria())) or list(combination_faults(spec.plan(), spec.problem(), 0))
    if selected is None:
        return list(inline_faults(spec.inline(), spec.training)) or list(_plan_faults(spec, spec.problem()))
    return list(_plan_faults(spec, outline(spec, selected), selected))


def _kind_faults(spec: JobSpec) -> Iterator[Fault]:
    """Criteria that do not go with each other or with the data: `quadratic` needs matrices, all others a table."""
    text = "The training criterion quadratic, the selection criterion quadratic and matrices as data go together; "
    if isinstance(spec.training, Quadratic):
        if not isinstance(spec.data, MatricesData):
            yield Fault("/data", "does_not_fit", text + "give `matrices`, `vectors` and `selection` here, not a table.")
        if not isinstance(spec.selection, QuadraticSelection):
            yield Fault("/selection/kind", "does_not_fit", text + "there are no rows to choose from; leave this out.")
        if spec.test_fraction:
            yield Fault("/test_fraction", "does_not_fit", "Matrices have no rows to hold out; leave this out.")
        if spec.nested is not None:
            yield Fault("/nested", "does_not_fit", "Matrices have no rows to leave out in turn; leave this out.")
        if spec.spread_by == "nested":
            yield Fault("/spread_by", "does_not_fit", "Matrices have no rows for outer folds; leave this out.")
    elif isinstance(spec.data, MatricesData):
        yield Fault("/training/kind", "does_not_fit", text + "set this to quadratic, or send a table.")
    elif isinstance(spec.selection, QuadraticSelection):
        yield Fault("/selection/kind", "does_not_fit", text + "choose a criterion that scores rows.")


def _plan_faults(spec: JobSpec, problem: Problem, selected: Selected | None = None) -> Iterator[Fault]:
    found = list(spline_faults(spec.training))
    if not found and selected is not None:
        found = list(size_faults(spec.training, selected.groups, len(selected.classes.names)))
    if found := found or list(form_faults(spec.training, len(problem.features))):
        yield from found
        return
    plan = spec.plan(selected.groups if selected else None)
    known = len(present_rows(problem)) if selected is None else 0 if selected.where else selected.rows
    found = list(combination_faults(plan, problem, known))
    found += _distinct_faults(spec.training, selected.distinct if selected else {})
    yield from found
    if not all(fault.pointer.startswith(APART_FROM_SPLITS) for fault in found):
        return
    if found := [] if selected else list(target_faults(plan.training, problem)):
        yield from found
        return
    try:
        problem, plan = of_present_rows(problem, plan)
    except ValueError as error:
        yield Fault("/selection", "does_not_fit", sentence(str(error)))
        return
    try:
        rows, _ = split_rows(len(problem.y), plan, problem.time)
    except ValueError as error:
        yield Fault("/test_fraction", "does_not_fit", sentence(str(error)))
        return
    if selected is None:  # of a dataset, the worker sees the values
        try:
            plan.training.expanded(problem, rows)
        except ValueError as error:
            place = f"/{error.number}" if isinstance(error, SplineError) else ""
            yield Fault(f"/training/splines{place}", "does_not_fit", sentence(str(error)))
            return
    if selected and isinstance(plan.selection, WalkForward) and plan.selection.durations:
        yield from _span_faults(plan.selection, selected)  # the splits are known when the dates are read
    elif not (selected and selected.where and plan.selection.entry_per_row):  # else when rows are counted
        yield from _split_faults(plan, problem, rows, values=selected is None)


def _span_faults(selection: WalkForward, selected: Selected) -> Iterator[Fault]:
    """Durations that are longer than the time from the first to the last row, so that nothing could be scored."""
    assert selected.dates is not None  # `combination_faults` has looked
    span = (selected.dates[1] - selected.dates[0]) * MICROSECONDS_PER_DAY
    lengths = [microseconds(given) for given in (selection.initial, selection.gap) if isinstance(given, str)]
    if sum(lengths) > span + 1:
        text = f"the dates span {span / MICROSECONDS_PER_DAY:.6g} days, and initial and gap leave none of them to score"
        yield Fault("/selection", "does_not_fit", sentence(text))


def _split_faults(plan: Plan, problem: Problem, rows: Array, *, values: bool) -> Iterator[Fault]:
    """Splits that cannot be made, or where the `values` are known cannot be trained on."""
    n = len(problem.y)
    try:
        partition = plan.selection.partition(rows, n, problem)
        if values:
            check_splits(plan, problem, partition)
    except ValueError as error:
        yield Fault("/selection", "does_not_fit", sentence(str(error)))
        return
    try:
        check_weights(plan, problem, partition)
    except ValueError as error:
        of_scoring = problem.scoring is not None and "score" in str(error)
        yield Fault("/data/scoring" if of_scoring else "/data/weights", "does_not_fit", sentence(str(error)))
        return
    try:
        check_nested(plan, problem, rows, values=values)
    except ValueError as error:
        yield Fault("/nested", "does_not_fit", sentence(str(error)))


def _distinct_faults(training: Training, distinct: Mapping[str, int]) -> Iterator[Fault]:
    """Splines of features of which the record of a dataset tells that they have too few distinct values."""
    for number, spline in enumerate(training.splines if isinstance(training, LinearPredictor) else ()):
        text = too_few(spline, distinct[spline.feature]) if spline.feature in distinct else None
        if text is not None:
            yield Fault(f"/training/splines/{number}", "does_not_fit", sentence(text))


def outline(spec: JobSpec, selected: Selected | None) -> Problem:
    """The problem without its values: as many rows as matter for the splits, stand-ins for groups and folds."""
    if selected is None:
        return spec.problem()
    n = selected.rows
    classes = selected.classes.names
    if spec.selection.enough_rows is not None:
        n = min(n, spec.selection.enough_rows)
    every = np.arange(n)
    # evenly spaced dates stand in only where they matter: rows of equal time are not known
    days = selected.dates if spec.selection.durations else None
    enough_groups = spec.selection.enough_groups
    grouped_rows = every if enough_groups is None else every % enough_groups
    return Problem(
        np.empty((n, 0)),
        every % max(len(classes), 1) + 0.0,
        selected.features,
        source=np.zeros(n, int) if "source" in selected.roles else None,
        source_names=selected.source_names,
        groups=grouped_rows if "groups" in selected.roles else None,
        fold=every % selected.folds if selected.folds else None,
        time=None if days is None else np.linspace(*days, n),
        time_in_days=days is not None,
        offset=np.zeros(n) if "offset" in selected.roles else None,
        classes=classes,
    )
