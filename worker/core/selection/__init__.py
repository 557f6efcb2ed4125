"""Selection criteria: how a trained model is scored.

A selection criterion gives a partition of the rows and, for one split, the value and explicit partial derivatives of
its loss in theta. It never differentiates through training.
"""

from worker.core.selection.resampled import GivenFolds, Holdout, KFold

Selection = KFold | Holdout | GivenFolds

__all__ = ["GivenFolds", "Holdout", "KFold", "Selection"]
