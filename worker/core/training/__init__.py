"""Settings of the training criterion C, which is minimized over theta at given hyperparameters."""

from __future__ import annotations

from worker.core.training.classifiers import LogisticRegression, MultinomialRegression, SquaredHinge
from worker.core.training.kernel_classifiers import KernelLogistic, KernelSvm
from worker.core.training.kernel_ridge import KernelRidge
from worker.core.training.quadratic import Quadratic
from worker.core.training.regressions import GammaRegression, HuberRegression, PoissonRegression
from worker.core.training.ridge import Ridge
from worker.core.training.training_criterion import Model, TrainingCriterion

# criteria with one coefficient for each feature
LinearTraining = (
    Ridge
    | LogisticRegression
    | MultinomialRegression
    | PoissonRegression
    | GammaRegression
    | HuberRegression
    | SquaredHinge
)
KernelMachine = KernelRidge | KernelSvm | KernelLogistic
# criteria that are trained on the rows of a table
TableTraining = LinearTraining | KernelMachine
Training = TableTraining | Quadratic

__all__ = [
    "GammaRegression",
    "HuberRegression",
    "KernelLogistic",
    "KernelMachine",
    "KernelRidge",
    "KernelSvm",
    "LinearTraining",
    "LogisticRegression",
    "Model",
    "MultinomialRegression",
    "PoissonRegression",
    "Quadratic",
    "Ridge",
    "SquaredHinge",
    "TableTraining",
    "Training",
    "TrainingCriterion",
]
