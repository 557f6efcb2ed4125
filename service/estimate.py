"""What a spec would do, without doing it."""

from __future__ import annotations

from typing import Any

from worker.contract.abridged import abridge
from worker.contract.columns import Selected
from worker.contract.notes import Note, dataset_notes, limit_notes
from worker.contract.spec import JobSpec
from worker.contract.spec_faults import outline
from worker.core.costs import Cost
from worker.core.losses.relative import RelativeDelta
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, of_present_rows, resolve, split_rows
from worker.core.verdict.expected_cost import expected_cost
from worker.core.verdict.split_remarks import groups_apart, split_remarks

MOST_NAMES = 1000  # of hyperparameters that a validation lists


def validation_view(
    spec: JobSpec, selected: Selected | None, description: dict[str, Any], fingerprint: str
) -> dict[str, Any]:
    """The spec with every default, the hyperparameters, the methods that `auto` picks, and the cost."""
    problem, plan = _outlined(spec, selected)
    box = plan.hyperparameters(problem)
    names = box.names
    hypergradient, outer = resolve(plan, problem, box)
    solver, cost = _estimated(problem, plan, selected)
    return {
        "spec": abridge(description),
        "hyperparameters": len(names),
        "names": names[:MOST_NAMES],
        "boxes": _boxes(problem, plan, known=selected is None),
        "method": {
            "hypergradient": hypergradient.kind,
            "outer": outer.kind,
            "solver": solver,
        },
        "cost": {
            "evaluations": cost.evaluations,
            "flops": cost.flops,
            "bytes": cost.bytes,
            "seconds": cost.seconds,
        },
        "resolved": _resolved(problem, plan, outer.most_iterations(len(names)), known=selected is None),
        "fingerprint": fingerprint,
        "notes": [
            note.model_dump()
            for note in [
                *_notes(plan, problem, selected),
                *limit_notes(spec.limits.seconds, spec.limits.evaluations, cost),
            ]
        ],
    }


def estimate(spec: JobSpec, selected: Selected | None) -> Cost:
    """The cost alone."""
    return _estimated(*_outlined(spec, selected), selected)[1]


def _outlined(spec: JobSpec, selected: Selected | None) -> tuple[Problem, Plan]:
    return of_present_rows(outline(spec, selected), spec.plan(selected.groups if selected else None))


def _estimated(problem: Problem, plan: Plan, selected: Selected | None) -> tuple[str, Cost]:
    """The solver and the cost. The rows of `problem` may stand for more of a dataset."""
    if selected is None:
        return expected_cost(plan, problem, len(problem.y))
    return expected_cost(plan, problem, selected.rows, selected.filled)


def _notes(plan: Plan, problem: Problem, selected: Selected | None) -> list[Note]:
    """What the columns of a dataset were warned about, and what the splits should be known for."""
    about_splits = [
        Note(code="splits", severity="warning", text=text) for text in _about_splits(plan, problem, selected)
    ]
    return dataset_notes(selected.warnings if selected else ()) + about_splits


def _boxes(problem: Problem, plan: Plan, *, known: bool) -> dict[str, list[float]] | None:
    """Initial values and bounds of the named hyperparameters; None if they depend on values that are not known."""
    if plan.training.needs_variances:
        if not known:
            return None
        problem = plan.training.expanded(problem, split_rows(len(problem.y), plan, problem.time)[0])
    box = plan.hyperparameters(problem)
    arrays = {"initial": box.natural(box.initial), "lower": box.box[0], "upper": box.box[1]}
    return {name: array[:MOST_NAMES].tolist() for name, array in arrays.items()}


def _resolved(problem: Problem, plan: Plan, iterations: int, *, known: bool) -> dict[str, float]:
    """The budget of iterations if it is not given, and each delta of a loss that is relative to the target."""
    budget = {} if plan.outer.max_iterations else {"/outer/max_iterations": iterations}
    return budget | (_deltas(problem, plan) if known else {})


def _deltas(problem: Problem, plan: Plan) -> dict[str, float]:
    """Each delta of a Huber loss that is relative to the target, in its units."""
    if problem.criteria is not None:
        return {}
    rows, _ = split_rows(len(problem.y), plan, problem.time)
    places = {"/training/delta": plan.training, "/selection/loss/delta": getattr(plan.selection, "loss", None)}
    deltas = {place: getattr(owner, "delta", None) for place, owner in places.items()}
    return {place: delta.of(problem, rows) for place, delta in deltas.items() if isinstance(delta, RelativeDelta)}


def _about_splits(plan: Plan, problem: Problem, selected: Selected | None) -> tuple[str, ...]:
    """What the splits should be known for. Of a dataset only the roles of its columns are known here."""
    if problem.criteria is not None:
        return ()
    if selected is not None:
        torn = "groups" in selected.roles and not plan.selection.keeps_groups
        return (groups_apart(plan.selection, classes=bool(problem.classes), certain=False),) if torn else ()
    rows, _ = split_rows(len(problem.y), plan, problem.time)
    partition = plan.selection.partition(rows, len(problem.y), problem)
    return split_remarks(plan.selection, problem, rows, partition)
