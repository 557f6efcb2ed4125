"""Settings of the selection criterion E: how a trained model is scored.

A selection criterion gives a partition of the rows and, for one split, the value and explicit partial derivatives of
its loss in theta. It never differentiates through training.
"""

from __future__ import annotations

from worker.core.selection.approximate_leave_one_out_settings import ApproximateLeaveOneOut
from worker.core.selection.evidence_settings import Evidence, MarginalLikelihood, Reml
from worker.core.selection.folds import GivenFolds, KFold, StratifiedKFold
from worker.core.selection.generalized_cv_settings import GeneralizedCV
from worker.core.selection.group_folds import GroupKFold, StratifiedGroupKFold
from worker.core.selection.holdout import Holdout
from worker.core.selection.laplace_evidence_settings import LaplaceEvidence
from worker.core.selection.leave_one_out_settings import LeaveOneOut
from worker.core.selection.own_criterion_settings import QuadraticSelection
from worker.core.selection.walk_forward import WalkForward

TableSelection = (
    KFold
    | Holdout
    | GivenFolds
    | GroupKFold
    | StratifiedKFold
    | StratifiedGroupKFold
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
    "StratifiedGroupKFold",
    "StratifiedKFold",
    "TableSelection",
    "WalkForward",
]
