"""Training criteria: what is minimized over theta at given hyperparameters."""

from worker.core.training.ridge import Ridge

Training = Ridge

__all__ = ["Ridge", "Training"]
