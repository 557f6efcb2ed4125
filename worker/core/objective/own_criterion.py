"""The outer objective of a quadratic selection criterion that the caller brings: no rows, no splits, any sign."""

from __future__ import annotations

from worker.core.hypergradient import ExactHypergradient
from worker.core.hyperparameters import Hyperparameters
from worker.core.inner.given.matrix_sum import SumSystem
from worker.core.losses import SquaredError
from worker.core.objective.fits import DirectFits
from worker.core.objective.mean_of_splits import HessianOfMean, MeanOfSplits
from worker.core.objective.meaning import Meaning
from worker.core.objective.objective import Objective
from worker.core.records import Outcome

SMALLEST_UNIT = 1e-8  # relative to |E| at theta = 0; smaller values count as zero


def own_criterion(system: SumSystem, box: Hyperparameters, hypergradient: ExactHypergradient) -> Objective:
    """`J(rho) = E(theta(rho))` for a criterion E that the caller brings; only the caller knows which rise matters."""
    fits = DirectFits([system], box)
    return Objective(
        MeanOfSplits(fits, hypergradient),
        box,
        SquaredError(),
        system.solver,
        meaning=Meaning(is_mean_loss=False, smallest_unit=SMALLEST_UNIT * abs(system.loss.constant)),
        singular=Outcome.INDEFINITE,
        second=HessianOfMean(fits),
    )
