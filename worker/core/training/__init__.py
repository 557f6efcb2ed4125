"""Training criteria: what is minimized over theta at given hyperparameters."""

from worker.core.training.generalized_linear import (
    GammaRegression,
    HuberRegression,
    LogisticRegression,
    MultinomialRegression,
    PoissonRegression,
    SquaredHinge,
)
from worker.core.training.quadratic import Quadratic
from worker.core.training.ridge import Ridge

# those that are trained on the rows of a table
TableTraining = (
    Ridge
    | LogisticRegression
    | MultinomialRegression
    | PoissonRegression
    | GammaRegression
    | HuberRegression
    | SquaredHinge
)
Training = TableTraining | Quadratic

__all__ = [
    "GammaRegression",
    "HuberRegression",
    "LogisticRegression",
    "MultinomialRegression",
    "PoissonRegression",
    "Quadratic",
    "Ridge",
    "SquaredHinge",
    "TableTraining",
    "Training",
]
