"""The family of selection losses, and which of them score what a training criterion predicts."""

from __future__ import annotations

from typing import Any

from worker.core.family import kind_of, members
from worker.core.losses.classes import Brier, Deviance, LogLoss, SmoothedError
from worker.core.losses.platt import PlattLogLoss
from worker.core.losses.ranking import SmoothedAuc, SmoothedF
from worker.core.losses.residuals import AbsoluteError, Huber, QuantileError, SquaredError
from worker.core.losses.score import Prediction, SelectionLoss

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


def scores_of(predicts: frozenset[Prediction]) -> tuple[type[Score], ...]:
    """The selection losses that need one of these, in the order of the family."""
    family: tuple[Any, ...] = members(Score)
    return tuple(score for score in family if score.needs in predicts)


def chosen(
    loss: SelectionLoss | None, predicts: frozenset[Prediction], default: SelectionLoss | None = None
) -> SelectionLoss:
    """The selection loss; by default `default`, or the first that scores such predictions.

    Raises ValueError for a loss that does not score them.
    """
    usual = default or scores_of(predicts)[0]()
    if loss is None:
        return usual
    if loss.needs not in predicts:
        kinds = [kind_of(score) for score in scores_of(predicts)]
        names = ", ".join([usual.kind, *(kind for kind in kinds if kind != usual.kind)])
        raise ValueError(f"{loss.kind} does not score this training criterion; use one of {names}")
    return loss
