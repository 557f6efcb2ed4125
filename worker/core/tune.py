"""The whole method on one page: prepare the statistics once, then descend J from each start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from worker.core.hypergradient import Auto as AutoHypergradient
from worker.core.hypergradient import ExactHypergradient, Hypergradient
from worker.core.hyperparameters import Hyperparameters
from worker.core.nested import Nested
from worker.core.outer import Auto as AutoOuter
from worker.core.outer import ConcreteOuter, Outer
from worker.core.outer.plateau import off_plateau
from worker.core.outer.search import Search
from worker.core.outer_objective import Objective
from worker.core.records import Array, Outcome, Partition, Problem, Start, State, Step, Trial
from worker.core.selection import LeaveOneOut, QuadraticSelection, Selection
from worker.core.training import KernelRidge, Quadratic, Training
from worker.core.training.generalized_linear import GeneralizedLinearTraining

MEMORY = "memory."  # prefix of the arrays of the objective in a state, beside those of the outer optimizer
TRIALS = 12  # evaluations that one start takes at least, those of the certificates included


@dataclass(frozen=True, slots=True)
class Plan:
    """Which training and selection criteria, which method, and the budget of the search over all starts."""

    training: Training
    selection: Selection
    hypergradient: Hypergradient
    outer: Outer
    seed: int = 0
    test_fraction: float = 0.0
    max_evaluations: int | None = None
    target_value: float | None = None
    nested: Nested | None = None

    def hyperparameters(self, problem: Problem) -> Hyperparameters:
        """All hyperparameters: those of training, then those of the selection criterion. Needs no rows.

        Raises ValueError when the training criterion does not fit the columns.
        """
        of_training, of_selection = self.training.hyperparameters(problem), self.selection.hyperparameters()
        return of_training if of_selection is None else of_training + of_selection


@dataclass(frozen=True, slots=True)
class Prepared:
    """A problem with its plan resolved: no `auto` is left, rows are assigned, statistics are built."""

    problem: Problem
    plan: Plan
    hypergradient: ExactHypergradient
    outer: ConcreteOuter
    rows: Int[Array, " m"]
    test_rows: Int[Array, " t"]
    partition: Partition
    objective: Objective


def split_rows(n: int, plan: Plan, time: Float[Array, " n"] | None = None) -> tuple[Int[Array, " m"], Int[Array, " t"]]:
    """Rows to tune on and rows of the untouched test part, both ascending. Raises ValueError if none would be left.

    The test part of an ordered selection criterion is the end of `time`, of the table without it.
    """
    count = round(plan.test_fraction * n)
    if plan.test_fraction > 0 and count == 0:
        raise ValueError(f"a test_fraction of {plan.test_fraction:g} of {n} rows holds out no row")
    if plan.selection.ordered and time is not None:
        order = np.argsort(time, kind="stable")
        return np.sort(order[: n - count]), np.sort(order[n - count :])
    if count == 0 or plan.selection.ordered:  # the future of the series
        return np.arange(n - count), np.arange(n - count, n)
    order = np.random.default_rng([plan.seed, 2]).permutation(n)
    return np.sort(order[count:]), np.sort(order[:count])


def resolve(plan: Plan, problem: Problem) -> tuple[ExactHypergradient, ConcreteOuter]:
    """The methods that `auto` stands for. Needs no rows."""
    hypergradient = (
        plan.hypergradient.resolve() if isinstance(plan.hypergradient, AutoHypergradient) else plan.hypergradient
    )
    if not isinstance(plan.outer, AutoOuter):
        return hypergradient, plan.outer
    k = len(plan.hyperparameters(problem).names)
    has_hessian, inexact = plan.selection.has_hessian and plan.training.has_hessian, False
    if has_hessian and isinstance(plan.training, GeneralizedLinearTraining):
        inexact = plan.training.method(plan.training.coefficients(problem)) == "newton_cg"
    return hypergradient, plan.outer.resolve(k, has_hessian=has_hessian, inexact=inexact)


def prepare(problem: Problem, plan: Plan) -> Prepared:
    """Assign rows and build the statistics: one pass over the rows, all that an evaluation will need.

    Raises ValueError when the plan does not fit the data; the message names the place.
    """
    n = len(problem.y)
    rows, test_rows = split_rows(n, plan, problem.time)
    if not isinstance(plan.training, Quadratic):
        plan.training.check_target(problem)
    problem = plan.training.expanded(problem, rows)
    partition = plan.selection.partition(rows, n, problem)
    check_weights(plan, problem, partition)
    check_nested(plan, problem, rows)
    hypergradient, outer = resolve(plan, problem)
    trials = TRIALS * outer.starts
    objective = objective_of(problem, partition, plan, hypergradient, trials)
    return Prepared(problem, plan, hypergradient, outer, rows, test_rows, partition, objective)


def check_nested(plan: Plan, problem: Problem, rows: Int[Array, " m"], *, values: bool = True) -> None:
    """Raises ValueError where tuning without some outer fold could not be done; `values`: whether they are known."""
    if plan.nested is None:
        return
    for number, (part, _) in enumerate(plan.nested.splits(plan.selection, rows, problem), start=1):
        partition = plan.selection.partition(part, len(problem.y), problem)
        try:
            if values:
                check_splits(plan, problem, partition)
            check_weights(plan, problem, partition)
        except ValueError as error:
            raise ValueError(f"without the rows of outer fold {number}, {error}") from error


def check_splits(plan: Plan, problem: Problem, partition: Partition) -> None:
    """Raises ValueError where a split lacks what training or the selection loss needs."""
    assert not isinstance(plan.training, Quadratic)
    loss = getattr(plan.selection, "loss", None)
    plan.training.check_splits(problem, partition, None if isinstance(loss, str) else loss)


def check_weights(plan: Plan, problem: Problem, partition: Partition) -> None:
    """Raise ValueError when weights leave a split no row to train on, or nothing to score at all.

    Closed forms need two rows, and that of kernel machines no other ones.
    """
    if problem.weights is None and problem.scoring is None:
        return
    least = 2 if plan.selection.closed_form else 1
    rows = np.flatnonzero(partition.block_of_row >= 0)
    block = partition.block_of_row[rows]
    heavy = np.bincount(block, problem.base_weights(rows) > 0, minlength=partition.blocks)
    scored = np.bincount(block, problem.score_weights(rows), minlength=partition.blocks)
    for number, (train, _) in enumerate(partition.splits, start=1):
        if (count := heavy[list(train)].sum()) < least:
            left = "all rows but one" if count else "all rows"
            raise ValueError(f"{left} that split {number} of {len(partition.splits)} trains on have weight 0")
    counted = getattr(plan.selection, "split_weights", None) or (1.0,) * len(partition.splits)
    each = zip(counted, partition.splits, strict=True)
    if not any(weight and scored[list(validation)].any() for weight, (_, validation) in each):
        raise ValueError("every row that would be scored has weight 0, or its split has")
    if isinstance(plan.training, KernelRidge) and isinstance(plan.selection, LeaveOneOut):
        plan.training.check_left_out(problem, rows)


def objective_of(
    problem: Problem, partition: Partition, plan: Plan, hypergradient: ExactHypergradient, trials: int
) -> Objective:
    """The outer objective. Raises ValueError when one criterion needs a table and the other none."""
    training, selection = plan.training, plan.selection
    if isinstance(training, Quadratic) and isinstance(selection, QuadraticSelection):
        return selection.objective(problem, training, hypergradient)
    if isinstance(training, Quadratic) or isinstance(selection, QuadraticSelection):
        raise ValueError("the training and the selection criterion quadratic go together")
    return selection.objective(problem, partition, training, hypergradient, trials)


def search(prepared: Prepared, number: int, state: Mapping[str, Array] | None = None) -> Iterator[Trial | Outcome]:
    """The trials of one start, from the `state` of an earlier one, then its outcome. Other starts change nothing."""
    objective = prepared.objective
    rho = objective.hyperparameters.start(number, prepared.plan.seed)
    of_search, memory = _split(state)
    objective.recall(memory)
    trials = _Told(_descent(prepared, rho, of_search))
    for trial in trials:
        if trial.state is None:
            yield trial
        else:
            memory = {MEMORY + name: array for name, array in objective.memory().items()}
            yield replace(trial, state={**trial.state, **memory})
    yield trials.outcome


def _descent(prepared: Prepared, rho: Float[Array, " k"], state: Mapping[str, Array] | None) -> Search:
    """The search; one that ends where it began begins again off the plateau, if it stood on one."""
    outer, objective = prepared.outer, prepared.objective
    trials = _Told(outer.search(objective, rho, state))
    moved = state is not None and bool(state["iteration"])
    for trial in trials:
        moved = moved or trial.iteration > 0
        yield trial
    if moved or trials.outcome not in {Outcome.CONVERGED, Outcome.AT_BOUNDS}:
        return trials.outcome
    foot = yield from off_plateau(outer, objective, rho)
    return trials.outcome if foot is None else (yield from outer.search(objective, foot))


class _Told:
    """The trials of a search, one by one, and its outcome once they are told."""

    outcome: Outcome

    def __init__(self, trials: Search) -> None:
        self._trials = trials

    def __iter__(self) -> Iterator[Trial]:
        self.outcome = yield from self._trials


def _split(state: Mapping[str, Array] | None) -> tuple[dict[str, Array] | None, dict[str, Array]]:
    """What the outer optimizer and what the objective put into a state."""
    if state is None:
        return None, {}
    memory = {name.removeprefix(MEMORY): array for name, array in state.items() if name.startswith(MEMORY)}
    return {name: array for name, array in state.items() if not name.startswith(MEMORY)}, memory


Searches = Callable[[Prepared, int, Mapping[str, Array] | None], Iterator[Trial | Outcome]]


def tune(prepared: Prepared, resume: State | None = None, searches: Searches = search) -> Iterator[Step]:
    """Descend from each start in turn; a step for each evaluation, and a last one with `ended` set.

    `resume` is the `state` of an earlier step: the run then goes on as if it had never stopped, bit for bit.
    `searches` gives what `search` gives, and may work on later starts ahead.
    """
    plan = prepared.plan
    done: tuple[Start, ...] = resume.starts[:-1] if resume else ()
    running = resume.starts[-1] if resume else None
    search_state = resume.search if resume else None
    for number in range(len(done), prepared.outer.starts):
        for event in searches(prepared, number, search_state):
            if isinstance(event, Outcome):
                assert running is not None  # a search evaluates before it ends
                done = (*done, replace(running, outcome=event))
                break
            running = running.after(event) if running else Start.begin(event)
            state = State(event.state, (*done, running)) if event.state is not None else None
            step = Step(event.evaluation, event.gradient_norm, (*done, running), state, None)
            yield step
            if spent := _spent(plan, step):
                yield last_step((*done, replace(running, outcome=spent)), spent)
                return
        running, search_state = None, None
    yield last_step(done, None)


def last_step(starts: tuple[Start, ...], spent: Outcome | None) -> Step:
    """The step that ends a search: at the best point, with the outcome of its start or with the budget `spent`."""
    best = min(starts, key=lambda start: start.best.value)
    return Step(best.best, best.gradient_norm, starts, None, spent or best.outcome)


def _spent(plan: Plan, step: Step) -> Outcome | None:
    if plan.target_value is not None and step.best.best.value <= plan.target_value:
        return Outcome.TARGET_VALUE
    if plan.max_evaluations is not None and step.evaluations >= plan.max_evaluations:
        return Outcome.MAX_EVALUATIONS
    return None
