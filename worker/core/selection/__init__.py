"""Selection criteria: how a trained model is scored.

A selection criterion gives a partition of the rows and, for one split, the value and explicit partial derivatives of
its loss in theta. It never differentiates through training.
"""

from worker.core.selection.closed_form import (
    ApproximateLeaveOneOut,
    Evidence,
    GeneralizedCV,
    LaplaceEvidence,
    LeaveOneOut,
    MarginalLikelihood,
    Reml,
)
from worker.core.selection.quadratic import QuadraticSelection
from worker.core.selection.resampled import GivenFolds, GroupKFold, Holdout, KFold, StratifiedKFold, WalkForward

TableSelection = (
    KFold
    | Holdout
    | GivenFolds
    | GroupKFold
    | StratifiedKFold
    | WalkForward
    | LeaveOneOut
    | ApproximateLeaveOneOut
    | GeneralizedCV
    | Evidence
    | MarginalLikelihood
    | Reml
    | LaplaceEvidence
)
Selection = TableSelection | QuadraticSelection

__all__ = [
    "ApproximateLeaveOneOut",
    "Evidence",
    "GeneralizedCV",
    "GivenFolds",
    "GroupKFold",
    "Holdout",
    "KFold",
    "LaplaceEvidence",
    "LeaveOneOut",
    "MarginalLikelihood",
    "QuadraticSelection",
    "Reml",
    "Selection",
    "StratifiedKFold",
    "TableSelection",
    "WalkForward",
]
