"""The one loop of all outer optimizers: from state to state, until the search has ended.

A step begins from nothing but the arrays of the last state. So a search that is resumed from a stored state takes the
same path, bit for bit, and an optimizer that keeps something elsewhere does not work at all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from worker.core.objective.objective import Objective
from worker.core.outer.search import SearchSettings
from worker.core.records import Array, Evaluation, Outcome, Trial

Search = Generator[Trial, None, Outcome]


@dataclass(frozen=True, slots=True)
class Optimizer(SearchSettings, ABC):
    """An outer optimizer: how it begins, how it takes a step, and when it has ended.

    `begin` and `step` yield the evaluations that lead to a point, and return that of the point itself, with a state.
    """

    approximates: ClassVar[bool] = False  # its evaluations have errors, and that of the result is repeated exactly

    @property
    @abstractmethod
    def kind(self) -> str:
        """Its name on the wire."""

    @property
    @abstractmethod
    def typical_evaluations(self) -> int:
        """How many evaluations of J one start takes in a typical job, for estimates."""

    @abstractmethod
    def begin(self, objective: Objective, rho: Float[Array, " k"]) -> Generator[Trial, None, Trial]:
        """The first point of a search from `rho`. Without a state if J is not defined there."""

    @abstractmethod
    def step(self, objective: Objective, state: dict[str, Array]) -> Generator[Trial, None, Trial | None]:
        """The next point; None if none is lower. It may change the arrays of the state, which are its own."""

    @abstractmethod
    def ended(self, objective: Objective, state: Mapping[str, Array]) -> Outcome | None:
        """The outcome if the search ends at this state; else None."""

    def search(self, objective: Objective, rho: Float[Array, " k"], state: Mapping[str, Array] | None = None) -> Search:
        """Trials from `rho`, or from the `state` of an earlier trial."""
        if state is None:
            first = yield from self.begin(objective, rho)
            yield first
            if first.evaluation.failure is not None:
                return first.evaluation.failure
            state = _state_of(first)
        while (outcome := self.ended(objective, state)) is None:
            new = yield from self.step(objective, {name: array.copy() for name, array in state.items()})
            if new is None:
                outcome = Outcome.STALLED
                break
            yield new
            state = _state_of(new)
        if self.approximates:
            yield self.trial(objective, objective.evaluate(state["rho"]), int(state["iteration"]))
        return outcome

    def trial(
        self, objective: Objective, at: Evaluation, iteration: int, memory: Mapping[str, Array] | None = None
    ) -> Trial:
        """The record of an evaluation. With the `memory` of the optimizer it has a state, if J is defined there."""
        if memory is None or at.failure is not None:
            state = None
        else:
            state = {"rho": at.rho, "value": np.array(at.value), "gradient": at.gradient, "per_split": at.per_split}
            state |= {"errors": np.array([at.value_error, at.gradient_error])} if self.approximates else {}
            state |= {**memory, "iteration": np.array(iteration)}
        return Trial(at, iteration, self.relative_gradient(objective, at), state)

    def stationary_or_spent(self, objective: Objective, state: Mapping[str, Array]) -> Outcome | None:
        """The outcome of a search whose gradient vanishes at a state of `trial`, or whose iterations are spent."""
        at = evaluation_of(state)
        return self.settled(objective, at) or self.out_of_iterations(objective, int(state["iteration"]))

    def resolve(self, k: int, *, has_hessian: bool, inexact: bool) -> Optimizer:
        """The optimizer itself, which was chosen, with the number of its iterations."""
        return self if self.max_iterations is not None else replace(self, max_iterations=self.most_iterations(k))

    def scans(self, k: int) -> bool:
        """Whether the box of `k` hyperparameters is scanned: only `auto` does."""
        return False


def evaluation_of(state: Mapping[str, Array]) -> Evaluation:
    """The evaluation that a state of `Optimizer.trial` holds."""
    errors = state["errors"].tolist() if "errors" in state else ()
    return Evaluation(state["rho"], float(state["value"]), state["gradient"], state["per_split"], None, *errors)


class Trials:
    """Iterates over the trials of a search, then holds its outcome."""

    outcome: Outcome

    def __init__(self, search: Search) -> None:
        self._search = search

    def __iter__(self) -> Iterator[Trial]:
        self.outcome = yield from self._search


def _state_of(trial: Trial) -> Mapping[str, Array]:
    assert trial.state is not None, "an optimizer goes on from a state"
    return trial.state
