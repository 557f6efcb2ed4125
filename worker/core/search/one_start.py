"""The search from one start: a descent and, if the plan asks for it, a coarse scan that shows where else to descend."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from worker.core.outer.descend import Search, Trials
from worker.core.outer.plateau import search_off_plateaus
from worker.core.outer.scan import MOST_POINTS, Scan, Survey, axes_of, in_turns
from worker.core.records import Array, Evaluation, Outcome, Start, Trial
from worker.core.search.plan import Prepared

MEMORY_PREFIX = "memory."  # in a state it marks arrays of the objective
SCAN_PREFIX = "scan."  # and this those of the scan; the others belong to the outer optimizer


def search(prepared: Prepared, number: int, state: Mapping[str, Array] | None = None) -> Search:
    """The trials of one start, from the `state` of an earlier one on. Other starts have no effect."""
    objective = prepared.objective
    rho = objective.hyperparameters.start(number, prepared.plan.seed)
    search_state, memory = (None, {}) if state is None else split(state, MEMORY_PREFIX)
    objective.recall(memory)
    trials = Trials(_way(prepared, number)(prepared, rho, search_state))
    for trial in trials:
        if trial.state is None:
            yield trial
        else:
            memory = {MEMORY_PREFIX + name: array for name, array in objective.memory().items()}
            yield replace(trial, state={**trial.state, **memory})
    return trials.outcome


Way = Callable[[Prepared, Float[Array, " k"], Mapping[str, Array] | None], Search]


def _way(prepared: Prepared, number: int) -> Way:
    if prepared.scans is None or number > 0:
        return _descent
    return _from_grid if prepared.scans == "grid" else _descents


def _descent(prepared: Prepared, rho: Float[Array, " k"], state: Mapping[str, Array] | None) -> Search:
    """The search. If it ends where hyperparameters are on plateaus, it starts again off these."""
    return (yield from search_off_plateaus(prepared.outer, prepared.objective, rho, state))


def split(state: Mapping[str, Array], prefix: str) -> tuple[dict[str, Array], dict[str, Array]]:
    """The arrays of a state whose names do not begin with the prefix, and those that do, without it."""
    others = {name: array for name, array in state.items() if not name.startswith(prefix)}
    return others, {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


@dataclass(frozen=True, slots=True)
class _Expedition:
    """Where descents and scan stand.

    `points`: how many the scan has looked at. `iterations`: of the descents that have ended, with their `outcomes`.
    `running`: the best of the descent that runs, if it has evaluated J; a descent runs while more have begun than
    ended.
    """

    survey: Survey
    points: int = 0
    iterations: int = 0
    outcomes: tuple[str, ...] = ()
    running: Start | None = None

    def arrays(self) -> dict[str, Array]:
        """All fields, for a checkpoint."""
        arrays = {
            **self.survey.arrays(), "points": np.array(self.points), "iterations": np.array(self.iterations),
            "outcomes": np.array(self.outcomes, dtype="U32"),
        }  # fmt: skip
        if self.running is not None:
            best = self.running.best
            numbers = [
                best.value,
                best.value_error,
                best.gradient_error,
                self.running.gradient_norm,
                self.running.iterations,
            ]
            arrays |= {"best": np.array([best.rho, best.gradient]), "best_numbers": np.array(numbers)}
        return arrays

    @classmethod
    def of_arrays(cls, s: Mapping[str, Array]) -> _Expedition:
        """The inverse of `arrays`."""
        running = None
        if "best" in s:
            (rho, gradient), (value, *errors, norm, iterations) = s["best"], s["best_numbers"].tolist()
            best = Evaluation(rho, value, gradient, np.empty(0), None, *errors)
            running = Start(best, best, norm, int(iterations), 0, None)
        outcomes = tuple(str(name) for name in s["outcomes"])
        return cls(Survey.of_arrays(s), int(s["points"]), int(s["iterations"]), outcomes, running)

    def begun(self, rho: Float[Array, " k"]) -> _Expedition:
        """At the beginning of a descent."""
        return replace(self, survey=self.survey.with_begun(rho))

    def after(self, trial: Trial, scan: Scan) -> _Expedition:
        """After one more evaluation of the descent that runs."""
        running = Start.begin(trial) if self.running is None else self.running.after(trial)
        return replace(self, survey=scan.learnt(self.survey, trial.evaluation), running=running)

    def ended(self, outcome: Outcome) -> _Expedition:
        """At the end of the descent that ran."""
        assert self.running is not None  # a descent evaluates before it ends
        survey = self.survey.with_end(self.running.best, self.running.gradient_norm)
        iterations = self.iterations + self.running.iterations
        return replace(
            self, survey=survey, iterations=iterations, outcomes=(*self.outcomes, outcome.name), running=None
        )

    @property
    def outcome(self) -> Outcome:
        """That of the best descent."""
        return Outcome[self.outcomes[self.survey.best_end]]


def _descents(prepared: Prepared, rho: Float[Array, " k"], state: Mapping[str, Array] | None) -> Search:
    """A descent from `rho`, then a scan of the box, and descents from where J is lower or could be.

    The first descent says below which J the scan has to look, and if the budget ends the search, its result is there.
    """
    objective, scan = prepared.objective, Scan.of(prepared.objective)
    outer_state, scan_state = ({}, {}) if state is None else split(state, SCAN_PREFIX)
    here = _Expedition.of_arrays(scan_state) if scan_state else _Expedition(Survey.empty(len(rho))).begun(rho)
    while True:
        if len(here.survey.begun) > len(here.outcomes):
            here = yield from _one_descent(prepared, scan, here, outer_state or None)
        outer_state = {}
        if here.iterations >= prepared.outer.most_iterations(len(rho)):
            return here.outcome
        here = yield from _scan(prepared, scan, here)
        new_start = scan.next_start(here.survey)
        if new_start is None:
            new_start = scan.doubtful_start(here.survey)
        if new_start is None:
            return here.outcome
        objective.forget()
        here = here.begun(new_start)


def _from_grid(prepared: Prepared, rho: Float[Array, " k"], state: Mapping[str, Array] | None) -> Search:
    """J at `rho` and on a coarse grid of the box, and a descent from the best of these points.

    A minimum between points of the grid is not looked for. Where all of them fail, the search ends as the first did.
    """
    objective, outer = prepared.objective, prepared.outer
    grid = np.vstack([rho, in_turns(axes_of(objective.hyperparameters))])
    outer_state, grid_state = ({}, {}) if state is None else split(state, SCAN_PREFIX)
    values = grid_state.get("values", np.empty(0))
    failure = None
    while len(values) < len(grid):
        at = outer.glance(objective, grid[len(values)])
        failure = failure or at.failure
        values = np.append(values, at.value)
        norm = outer.relative_gradient(objective, at) if at.failure is None else np.inf
        saved = None if at.failure else {f"{SCAN_PREFIX}values": values}
        yield Trial(at, 0, norm, saved, scanned=len(values) > 1)
    if failure is not None and not np.isfinite(values).any():
        return failure
    if not outer_state:
        objective.forget()
    trials = Trials(_descent(prepared, grid[int(np.argmin(values))], outer_state or None))
    for trial in trials:
        known = None if trial.state is None else {**trial.state, f"{SCAN_PREFIX}values": values}
        yield replace(trial, state=known)
    return trials.outcome


def _one_descent(
    prepared: Prepared, scan: Scan, here: _Expedition, state: Mapping[str, Array] | None
) -> Generator[Trial, None, _Expedition]:
    """The descent that has begun last, with what earlier ones have left of the iterations."""
    most = prepared.outer.most_iterations(len(prepared.objective.hyperparameters.names))
    outer = replace(prepared.outer, max_iterations=most - here.iterations)
    trials = Trials(_descent(replace(prepared, outer=outer), here.survey.begun[-1], state))
    for trial in trials:
        here = here.after(trial, scan)
        yield _saved(replace(trial, iteration=here.iterations + trial.iteration), here, trial.state)
    return here.ended(trials.outcome)


def _scan(prepared: Prepared, scan: Scan, here: _Expedition) -> Generator[Trial, None, _Expedition]:
    """The points of the scan, until one is lower than where descents ended or no more are worthwhile."""
    objective, outer = prepared.objective, prepared.outer
    if here.points == 0:
        objective.forget()
    while True:
        found = scan.on_grid(here.survey, here.points)
        if found is None:
            rho = None
            if here.points < MOST_POINTS[len(scan.unit)] and scan.next_start(here.survey) is None:
                rho = scan.between(here.survey)
            if rho is None:
                return here
            found = rho, max(here.points, len(scan.grid)) + 1
        rho, points = found
        at = outer.glance(objective, rho)
        here = replace(here, survey=here.survey.with_point(at), points=points)
        norm = outer.relative_gradient(objective, at) if at.failure is None else np.inf
        yield _saved(Trial(at, here.iterations, norm, None, scanned=True), here, None if at.failure else {})


def _saved(trial: Trial, here: _Expedition, state: Mapping[str, Array] | None) -> Trial:
    """The trial with a state that holds where descents and scan stand, if it has one."""
    if state is None:
        return trial
    return replace(trial, state={**state, **{SCAN_PREFIX + name: array for name, array in here.arrays().items()}})
