"""Selection losses: the members of the family `Score`, which score predictions."""

from worker.core.losses.choice import Score, chosen, scores_of
from worker.core.losses.classes import Brier, Deviance, LogLoss, SmoothedError
from worker.core.losses.platt import PlattLogLoss
from worker.core.losses.ranking import SmoothedAuc, SmoothedF
from worker.core.losses.residuals import AbsoluteError, Huber, QuantileError, ResidualScore, SquaredError
from worker.core.losses.score import Prediction, PredictorScore, ResidualLoss, SelectionLoss

__all__ = [
    "AbsoluteError",
    "Brier",
    "Deviance",
    "Huber",
    "LogLoss",
    "PlattLogLoss",
    "Prediction",
    "PredictorScore",
    "QuantileError",
    "ResidualLoss",
    "ResidualScore",
    "Score",
    "SelectionLoss",
    "SmoothedAuc",
    "SmoothedError",
    "SmoothedF",
    "SquaredError",
    "chosen",
    "scores_of",
]
