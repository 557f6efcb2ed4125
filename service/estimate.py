"""What a spec would do, without doing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.contract.abridged import abridge
from worker.contract.columns import Selected
from worker.contract.notes import Note, dataset_notes
from worker.contract.spec import JobSpec
from worker.contract.spec_faults import outline
from worker.core.hypergradient import CholeskyBackprop
from worker.core.hyperparameters import Hyperparameters
from worker.core.linalg.assembled import Assembly
from worker.core.losses.relative import RelativeDelta
from worker.core.outer.scan import TYPICAL_EVALUATIONS
from worker.core.records import Array
from worker.core.rows.held import MAX_COPIED_BYTES, MIN_SHARED_FRACTION
from worker.core.rows.problem import Partition, Problem
from worker.core.search.plan import Plan, expected_trials, of_present_rows, resolve, split_rows
from worker.core.selection import KFold, LeaveOneOut, QuadraticSelection, Selection
from worker.core.training import Quadratic
from worker.core.training.generalized_linear import GeneralizedLinearTraining
from worker.core.training.kernel_machines import KernelTraining
from worker.core.verdict.split_remarks import groups_apart, split_remarks

RATE = 1e10  # flops a second that one core reaches in the factorizations of mid-sized problems
OVERHEAD = 1e-4  # seconds for each split of an evaluation, whatever its size
FILL = 10  # entries of a sparse factor for one of the matrix, typical of grids and networks
DECOMPOSITION = 9  # flops of an eigendecomposition over the cube of its size
KERNEL = 100  # operations that an exponential and what surrounds it count for
NEWTON_STEPS, CG_STEPS = 4, 20  # of a fit that begins near its minimum, typical


def validation_view(
    spec: JobSpec, selected: Selected | None, description: dict[str, Any], fingerprint: str
) -> dict[str, Any]:
    """The spec with every default, the hyperparameters, the methods that `auto` picks, and the cost."""
    problem, plan = _outlined(spec, selected)
    box = plan.hyperparameters(problem)
    names = box.names
    hypergradient, outer = resolve(plan, problem, box)
    solver, cost = _estimated(spec, plan, problem, box, selected)
    return {
        "spec": abridge(description),
        "hyperparameters": len(names),
        "names": names[:1000],
        "method": {
            "hypergradient": hypergradient.kind,
            "outer": outer.kind,
            "solver": solver,
        },
        "cost": cost,
        "resolved": {} if selected else _resolved(problem, plan),
        "fingerprint": fingerprint,
        "notes": [note.model_dump() for note in _notes(plan, problem, selected)],
    }


def expected_cost(spec: JobSpec, selected: Selected | None) -> dict[str, float]:
    """The cost alone: evaluations, flops, bytes held at once, seconds on one core."""
    problem, plan = _outlined(spec, selected)
    return _estimated(spec, plan, problem, plan.hyperparameters(problem), selected)[1]


def _outlined(spec: JobSpec, selected: Selected | None) -> tuple[Problem, Plan]:
    return of_present_rows(outline(spec, selected), spec.plan(selected.groups if selected else None))


def _estimated(
    spec: JobSpec, plan: Plan, problem: Problem, box: Hyperparameters, selected: Selected | None
) -> tuple[str, dict[str, float]]:
    hypergradient, outer = resolve(plan, problem, box)
    n = selected.rows if selected else len(problem.y)
    filled = selected.filled if selected else 1.0
    return _cost(spec, plan, problem, box, n, (hypergradient.kind, outer.kind), filled)


def _notes(plan: Plan, problem: Problem, selected: Selected | None) -> list[Note]:
    """What the columns of a dataset were warned about, and what the splits should be known for."""
    about_splits = [
        Note(code="splits", severity="warning", text=text) for text in _about_splits(plan, problem, selected)
    ]
    return dataset_notes(selected.warnings if selected else ()) + about_splits


def _resolved(problem: Problem, plan: Plan) -> dict[str, float]:
    """Each delta of a Huber loss that is relative to the target, in its units."""
    if isinstance(plan.training, Quadratic):
        return {}
    rows, _ = split_rows(len(problem.y), plan, problem.time)
    places = {"/training/delta": plan.training, "/selection/loss/delta": getattr(plan.selection, "loss", None)}
    deltas = {place: getattr(owner, "delta", None) for place, owner in places.items()}
    return {place: delta.of(problem, rows) for place, delta in deltas.items() if isinstance(delta, RelativeDelta)}


def _about_splits(plan: Plan, problem: Problem, selected: Selected | None) -> tuple[str, ...]:
    """What the splits should be known for. Of a dataset only the roles of its columns are known here."""
    if isinstance(plan.training, Quadratic):
        return ()
    if selected is not None:
        torn = "groups" in selected.roles and not plan.selection.keeps_groups
        return (groups_apart(plan.selection, classes=bool(problem.classes), certain=False),) if torn else ()
    rows, _ = split_rows(len(problem.y), plan, problem.time)
    partition = plan.selection.partition(rows, len(problem.y), problem)
    return split_remarks(plan.selection, problem, rows, partition)


def _cost(
    spec: JobSpec, plan: Plan, problem: Problem, box: Hyperparameters, n: int, methods: tuple[str, str], filled: float
) -> tuple[str, dict[str, float]]:
    """Flops of statistics, factorizations and Hessians; bytes of what is held at once; seconds on one core.

    The splits are those of `problem`, whose rows stand for the n that there are. `filled`: the share of values stored.
    """
    hypergradient, outer = methods
    if isinstance(plan.training, Quadratic):
        return _cost_of_criteria(spec, plan, problem, box, outer)
    m, k = len(problem.y), len(box.names)
    rows, _ = split_rows(m, plan)
    assert not isinstance(plan.selection, QuadraticSelection)
    partition = _stand_in_partition(plan.selection, rows, problem)
    splits = len(partition.splits)
    sizes = np.bincount(partition.block_of_row + 1)[1:]
    train = max(int(sizes[list(blocks)].sum()) for blocks, _ in partition.splits) * n // m
    closed = spec.selection.closed_form
    evaluations = _evaluations(spec, plan, problem, box)
    if isinstance(plan.training, KernelTraining):
        return _cost_of_kernels(plan.training, len(problem.features), n, train, splits, evaluations, closed=closed)
    forms = plan.training.penalties(problem)[1]
    p = forms.p
    if isinstance(plan.training, GeneralizedLinearTraining):
        size_of_table = _Rows(n, train, splits, filled)
        return _cost_of_iterations(plan.training, problem, size_of_table, k, outer, evaluations, closed=closed)
    free = not closed or hypergradient == "implicit"  # else what J depends on is swept through the primal factor
    several = not closed or (free and isinstance(spec.selection, LeaveOneOut))
    trials = expected_trials(plan, box) if several else 1
    solver = plan.training.solver(train, forms, trials, dual=None if free else False)
    dual = solver == "dual"
    size = train if dual else p
    evaluation = splits * (
        (0 if solver == "spectral" else size**3 / 3)
        + 8 * size * p
        + (train**2 * p * filled if dual else 0)
        + (2 * n * p * size * filled if closed else 0)
    )
    hessian = splits * (4 * size * p * k + 2 * size * k * k) + 9 * k**3 if outer == "newton" else 0.0
    flops = n * p * p * filled + evaluations * (evaluation + hessian)
    flops += splits * DECOMPOSITION * p**3 if solver == "spectral" else 0.0
    held = splits * (3 * size * size + (2 * n * p * filled if dual else 0)) + 2 * n * p * filled
    seconds = flops / RATE + evaluations * splits * OVERHEAD
    cost = {"evaluations": evaluations, "flops": float(flops), "bytes": 8.0 * held, "seconds": seconds}
    return solver, cost


def _stand_in_partition(selection: Selection, rows: Array, problem: Problem) -> Partition:
    """The splits of rows that stand in for the real ones. Evenly spaced dates may allow none where the real ones do."""
    try:
        return selection.partition(rows, len(problem.y), problem)
    except ValueError:
        return KFold(folds=2).partition(rows, len(problem.y))


def _evaluations(spec: JobSpec, plan: Plan, problem: Problem, box: Hyperparameters) -> int:
    _, outer = resolve(plan, problem, box)
    typical = spec.outer.starts * min(outer.typical_evaluations, spec.outer.max_iterations + 1)
    typical += TYPICAL_EVALUATIONS[len(box.names)] if plan.scans(box) else 0
    return min(typical, spec.limits.evaluations or typical)


def _cost_of_criteria(
    spec: JobSpec, plan: Plan, problem: Problem, box: Hyperparameters, outer: str
) -> tuple[str, dict[str, float]]:
    """The same for criteria of the caller's own: how H is factored, and its cost."""
    criteria = problem.criteria
    assert criteria is not None
    swept = isinstance(spec.hypergradient, CholeskyBackprop)
    assembly = Assembly.build(criteria.matrices, "dense" if swept else None)
    p, k, w = criteria.p, criteria.k, assembly.width
    entries = {"dense": p * p, "banded": p * (w + 1), "sparse": FILL * len(assembly.rows)}[assembly.shape]
    factorization = {"dense": p**3 / 3, "banded": p * (w + 1) ** 2, "sparse": FILL * entries}[assembly.shape]
    evaluation = (3 if swept else 1) * factorization + 4 * entries + 4 * sum(A.nnz for A in criteria.matrices)
    hessian = 4 * entries * k + 4 * p * k * k + 9 * k**3 if outer == "newton" else 0.0
    evaluations = _evaluations(spec, plan, problem, box)
    flops = evaluations * (evaluation + hessian)
    held = 3 * entries + 4 * sum(A.nnz for A in criteria.matrices) + 2 * p * (k + 1)
    seconds = flops / RATE + evaluations * OVERHEAD
    cost = {"evaluations": evaluations, "flops": float(flops), "bytes": 8.0 * held, "seconds": seconds}
    return assembly.shape, cost


def _cost_of_kernels(
    training: KernelTraining, p: int, n: int, train: int, splits: int, evaluations: int, *, closed: bool
) -> tuple[str, dict[str, float]]:
    """The same for kernel machines: a factor of the curved rows for each Newton step, or of the landmarks."""
    steps = NEWTON_STEPS if training.classifies else 1
    if training.landmarks is None:
        flops = splits * (steps * train**3 / 3 + 4.0 * train * n * p + KERNEL * train * n + closed * 2.0 * train**3)
        held = 5.0 * train**2 + 2.0 * n * p
    else:
        m = min(training.landmarks.count, train)
        flops = splits * ((steps + 2) * train * m**2 + m**3 + 4.0 * n * m * p + KERNEL * n * m)
        held = 6.0 * n * m + 4.0 * m**2 + 2.0 * n * p
    seconds = evaluations * (flops / RATE + splits * OVERHEAD)
    cost = {"evaluations": evaluations, "flops": evaluations * flops, "bytes": 8.0 * held, "seconds": seconds}
    return "kernel_matrix" if training.landmarks is None else "landmarks", cost


@dataclass(frozen=True, slots=True)
class _Rows:
    """How many there are, in the largest training part, and splits; the share of their values that is stored."""

    n: int
    train: int
    splits: int
    filled: float


def _cost_of_iterations(
    training: GeneralizedLinearTraining,
    problem: Problem,
    rows: _Rows,
    k: int,
    outer: str,
    evaluations: int,
    *,
    closed: bool,
) -> tuple[str, dict[str, float]]:
    """The same where training iterates: by factors, or by products with the values that are stored."""
    n, train, splits, filled = rows.n, rows.train, rows.splits, rows.filled
    m = training.outputs(problem)
    size = training.coefficients(problem)
    q, solver = size // m, "newton_cholesky" if closed else training.method(size)
    entries = filled * (q - training.intercept) + training.intercept  # of a row
    # as in `worker/core/rows/held.py`
    shared = filled < 1.0 and 12 * n * entries > MAX_COPIED_BYTES and train >= MIN_SHARED_FRACTION * n
    product = 4.0 * (n if shared else train) * m * entries
    factored = solver == "newton_cholesky"
    direct = m * (m + 1) / 2 * 2.0 * train * entries * (q if filled == 1.0 else entries) + size**3 / 3
    fit = NEWTON_STEPS * (2 * product + direct) if factored else NEWTON_STEPS * CG_STEPS * product
    fit += closed * (2.0 * size**3 + m * (m + 1) * n * q * q)
    solve = 2.0 * size**2 if factored else CG_STEPS * product
    hessian = (k * (solve + product) + 2.0 * train * m * k * k + 9 * k**3) if outer == "newton" else 0.0
    flops = evaluations * splits * (fit + solve + hessian)
    stored = n * entries * (1.0 if filled == 1.0 else 1.5)  # beside a sparse value, its place
    held = (
        splits * (2 * size * size if factored else 10 * size) + (1 if shared else splits) * stored + splits * 4 * m * n
    )
    if outer == "newton":
        held += splits * size * k
    seconds = flops / RATE + evaluations * splits * NEWTON_STEPS * OVERHEAD
    return solver, {"evaluations": evaluations, "flops": float(flops), "bytes": 8.0 * held, "seconds": seconds}
