"""Selection criteria: how a trained model is scored.

A selection criterion gives a partition of the rows and, for one split, the value and explicit partial derivatives of
its loss in theta. It never differentiates through training.
"""

from worker.core.selection.closed_form import Evidence, GeneralizedCV, LeaveOneOut, MarginalLikelihood, Reml
from worker.core.selection.quadratic import QuadraticSelection
from worker.core.selection.resampled import GivenFolds, GroupKFold, Holdout, KFold, WalkForward

TableSelection = (
    KFold
    | Holdout
    | GivenFolds
    | GroupKFold
    | WalkForward
    | LeaveOneOut
    | GeneralizedCV
    | Evidence
    | MarginalLikelihood
    | Reml
)
Selection = (
    KFold
    | Holdout
    | GivenFolds
    | GroupKFold
    | WalkForward
    | LeaveOneOut
    | GeneralizedCV
    | Evidence
    | MarginalLikelihood
    | Reml
    | QuadraticSelection
)

__all__ = [
    "Evidence",
    "GeneralizedCV",
    "GivenFolds",
    "GroupKFold",
    "Holdout",
    "KFold",
    "LeaveOneOut",
    "MarginalLikelihood",
    "QuadraticSelection",
    "Reml",
    "Selection",
    "WalkForward",
]
