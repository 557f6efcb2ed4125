"""Generalized cross-validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worker.core.hypergradient import ExactHypergradient
from worker.core.objective.generalized_cv import GeneralizedCVObjective
from worker.core.objective.objective import Objective
from worker.core.rows.problem import Partition, Problem
from worker.core.selection.closed_form import ClosedForm, as_ridge, dual_matrix, sample_counts
from worker.core.training import TableTraining


@dataclass(frozen=True, slots=True)
class GeneralizedCV(ClosedForm):
    """Generalized cross-validation: `(RSS / n) / (1 - tr A / n)^2` (Golub, Heath and Wahba 1979)."""

    loss: Literal["squared_error"] = "squared_error"
    kind: Literal["generalized_cv"] = "generalized_cv"

    def objective(
        self,
        problem: Problem,
        partition: Partition,
        training: TableTraining,
        hypergradient: ExactHypergradient,
        trials: int = 1,
    ) -> Objective:
        """The outer objective, from the p x p or the n x n matrix, whichever costs less."""
        training = as_ridge(training, self.kind)
        systems = training.systems(problem, partition, dual=dual_matrix(hypergradient))
        box = training.hyperparameters(problem)
        return GeneralizedCVObjective(systems, box, hypergradient, **sample_counts(problem, partition, training))
