"""The outer objectives of resampled criteria: means over the validation rows, with the parts that each training has."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float

from worker.core.hypergradient import ExactHypergradient
from worker.core.hyperparameters import Hyperparameters
from worker.core.inner.kernel.kernel_fit import KernelSystem
from worker.core.inner.protocols import LeastSquaresSystem
from worker.core.inner.smooth.fit import GeneralizedLinear
from worker.core.losses import ResidualLoss, SquaredError
from worker.core.losses.score import PredictorScore
from worker.core.objective.arithmetic_of_mean import ArithmeticOfMean, Digits
from worker.core.objective.fits import AnchoredFits, DirectFits, SuccessiveFits
from worker.core.objective.learning import LearningRemark
from worker.core.objective.least_squares_influences import InfluencesOfLeastSquares
from worker.core.objective.linear_tangents import PredictedTangents, ReadTangents
from worker.core.objective.machine_tangents import TangentsOfMachines
from worker.core.objective.mean_of_splits import HessianOfMean, InexactMean, MeanOfSplits
from worker.core.objective.meaning import MEAN_LOSS
from worker.core.objective.objective import Objective
from worker.core.objective.rough_loss import RoughLossRemark
from worker.core.objective.scored_rows import PredictedRows, ReadRows
from worker.core.objective.smooth_influences import InfluencesOfSmooth
from worker.core.records import Array

MOST_TANGENTS = 100_000_000  # numbers in all dtheta/drho up to which there is a Hessian (800 MB)
Weights = Float[Array, " splits"] | None


def mean_of_ridge(
    systems: Sequence[LeastSquaresSystem],
    box: Hyperparameters,
    hypergradient: ExactHypergradient,
    loss: ResidualLoss | None = None,
    split_weights: Weights = None,
    *,
    eliminated: bool,
) -> Objective:
    """Of training that is solved directly. Validation rows are read from the table, as moments may stand for them.

    `eliminated`: there is an intercept that is not in theta.
    """
    fits, loss = DirectFits(systems, box), loss or SquaredError()
    return Objective(
        MeanOfSplits(fits, hypergradient, split_weights), box, loss, systems[0].solver, len(systems),
        second=HessianOfMean(fits, split_weights),
        rows=ReadRows(fits, loss, split_weights).scores,
        tangents=ReadTangents(fits, systems, loss, split_weights),
        influences=InfluencesOfLeastSquares(fits, systems, loss, split_weights, eliminated=eliminated),
        arithmetic=ArithmeticOfMean(Digits(fits, [system.loss for system in systems]), loss, split_weights),
    )  # fmt: skip


def mean_of_iterative(
    systems: Sequence[GeneralizedLinear],
    box: Hyperparameters,
    hypergradient: ExactHypergradient,
    loss: PredictorScore,
    split_weights: Weights = None,
) -> Objective:
    """Of iterative training, whose fits are warm started. There is a Hessian as long as its tangents fit in memory."""
    fits = AnchoredFits(systems, box)
    rows = PredictedRows(fits, [system.loss for system in systems], split_weights)
    tangents = sum(system.penalty.p for system in systems) * len(box.names)
    return Objective(
        MeanOfSplits(fits, hypergradient, split_weights), box, loss, systems[0].solver, len(systems),
        second=HessianOfMean(fits, split_weights) if tangents <= MOST_TANGENTS else None,
        approximation=InexactMean(fits, split_weights),
        warm=fits,
        rows=rows.scores,
        tangents=PredictedTangents(fits, split_weights),
        influences=InfluencesOfSmooth(fits, split_weights),
        pool=rows.pooled,
        notes=(RoughLossRemark(fits),),
    )  # fmt: skip


def mean_of_machines(
    systems: Sequence[KernelSystem],
    box: Hyperparameters,
    hypergradient: ExactHypergradient,
    loss: PredictorScore,
    split_weights: Weights = None,
) -> Objective:
    """Of kernel machines. Splits are fitted one at a time: kernel matrices are large."""
    fits, first = SuccessiveFits(systems, box), systems[0]
    formula = MeanOfSplits(fits, hypergradient, split_weights)
    rows = PredictedRows(fits, [system.loss for system in systems], split_weights)
    remark = LearningRemark(first.kernel, first.split.X, box, MEAN_LOSS, formula.value, formula.value)
    return Objective(
        formula, box, loss, first.solver, len(systems),
        warm=fits,
        rows=rows.scores,
        tangents=TangentsOfMachines(fits, split_weights),
        pool=rows.pooled,
        notes=(remark,),
    )  # fmt: skip
