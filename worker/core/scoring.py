"""Selection losses: everything that a prediction can be scored by."""

from worker.core.glm.scores import Brier, Deviance, LogLoss, SmoothedError
from worker.core.glm.set_scores import SmoothedAuc, SmoothedF
from worker.core.losses import AbsoluteError, Huber, QuantileError, ResidualLoss, SquaredError
from worker.core.machines.platt import PlattLogLoss

Score = (
    SquaredError
    | Huber
    | AbsoluteError
    | QuantileError
    | LogLoss
    | Brier
    | Deviance
    | SmoothedError
    | SmoothedAuc
    | SmoothedF
    | PlattLogLoss
)

__all__ = [
    "AbsoluteError",
    "Brier",
    "Deviance",
    "Huber",
    "LogLoss",
    "PlattLogLoss",
    "QuantileError",
    "ResidualLoss",
    "Score",
    "SmoothedAuc",
    "SmoothedError",
    "SmoothedF",
    "SquaredError",
]
