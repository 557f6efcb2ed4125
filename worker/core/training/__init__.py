"""Training criteria: what is minimized over theta at given hyperparameters."""

from worker.core.training.quadratic import Quadratic
from worker.core.training.ridge import Ridge

TableTraining = Ridge  # those that are trained on the rows of a table
Training = Ridge | Quadratic

__all__ = ["Quadratic", "Ridge", "TableTraining", "Training"]
