"""One descent of a search: of J, of J with a hyper-prior, or of J with one value for each family."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from worker.core.hyperparameters import Hyperparameters
from worker.core.objective.objective import Objective
from worker.core.objective.prior import HyperPrior
from worker.core.objective.tied import Tie
from worker.core.records import Evaluation, Trial
from worker.core.search.plan import Prepared


@dataclass(frozen=True, slots=True)
class Descent:
    """One search: `number` counts those of one objective, and `prepared` holds this objective.

    `spread` is None for J itself, zero for a shared value, else the scale of the hyper-prior.
    """

    prepared: Prepared
    number: int
    spread: float | None
    prior: HyperPrior | None = None
    tie: Tie | None = None

    @property
    def objective(self) -> Objective:
        """What is descended."""
        return self.prepared.objective

    @property
    def full(self) -> Hyperparameters:
        """All hyperparameters."""
        return self.objective.hyperparameters if self.tie is None else self.tie.full

    def told(self, trial: Trial) -> Trial:
        """The trial at all hyperparameters, its value told apart from the prior's."""
        at = trial.evaluation
        if self.tie is not None:
            at = self.tie.expanded(at)
        if self.prior is not None and at.failure is None:
            at = replace(at, prior=self.prior.value(at.rho))
        return replace(trial, evaluation=at)

    def descended(self, at: Evaluation) -> Evaluation:
        """The inverse: the evaluation of the objective that is descended."""
        if self.tie is None:
            return at
        rho = self.tie.reduce(at.rho)
        gradient = np.empty(len(rho))
        gradient[self.tie.to] = at.gradient
        return replace(at, rho=rho, gradient=gradient)
