"""The training losses. Each has a file of its own; suites of all losses take them from here."""

from __future__ import annotations

from worker.core.losses.gamma import GammaLoss
from worker.core.losses.half_squared_error import HalfSquaredError
from worker.core.losses.huber import HuberLoss
from worker.core.losses.huberized_hinge import HuberizedHingeLoss
from worker.core.losses.logistic import LogisticLoss
from worker.core.losses.multinomial import MultinomialLoss
from worker.core.losses.poisson import PoissonLoss
from worker.core.losses.squared_hinge import SquaredHingeLoss
from worker.core.losses.training_loss import MachineLoss, TrainingLoss

# one example of each loss of generalized linear models
SMOOTH_LOSSES: tuple[TrainingLoss, ...] = (
    LogisticLoss(),
    MultinomialLoss(3),
    PoissonLoss(),
    GammaLoss(),
    HuberLoss(0.75),
    SquaredHingeLoss(),
)
# and of kernel machines
KERNEL_LOSSES: tuple[MachineLoss, ...] = (
    HalfSquaredError(),
    HuberizedHingeLoss(0.5),
    LogisticLoss(),
    SquaredHingeLoss(),
)

__all__ = [
    "KERNEL_LOSSES",
    "SMOOTH_LOSSES",
    "GammaLoss",
    "HalfSquaredError",
    "HuberLoss",
    "HuberizedHingeLoss",
    "LogisticLoss",
    "MachineLoss",
    "MultinomialLoss",
    "PoissonLoss",
    "SquaredHingeLoss",
    "TrainingLoss",
]
