"""Selection losses: the members of the family `Score`, which score predictions."""

from worker.core.losses.classes import Brier, Deviance, LogLoss, SmoothedError
from worker.core.losses.platt import PlattLogLoss
from worker.core.losses.ranking import SmoothedAuc, SmoothedF
from worker.core.losses.residuals import AbsoluteError, Huber, QuantileError, ResidualLoss, SquaredError

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
