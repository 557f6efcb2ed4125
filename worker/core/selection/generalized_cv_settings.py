"""Generalized cross-validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from worker.core.hypergradient import ExactHypergradient
from worker.core.losses import Score, SquaredError
from worker.core.objective.arithmetic_of_mean import Digits
from worker.core.objective.fits import DirectFits
from worker.core.objective.generalized_cv import GeneralizedCVFormula
from worker.core.objective.meaning import ONE_VALUE
from worker.core.objective.objective import Objective
from worker.core.rows.problem import Partition, Problem
from worker.core.selection.closed_form import ClosedForm, as_ridge, dual_matrix, sample_of
from worker.core.training import TableTraining


@dataclass(frozen=True, slots=True)
class GeneralizedCV(ClosedForm):
    """Generalized cross-validation: `(RSS / n) / (1 - tr A / n)^2` (Golub, Heath and Wahba 1979)."""

    loss: Literal["squared_error"] = "squared_error"
    kind: Literal["generalized_cv"] = "generalized_cv"

    takes_loss: ClassVar[bool] = False
    given_loss: ClassVar[Score | None] = None

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
        systems, box = (
            training.systems(problem, partition, dual=dual_matrix(hypergradient)),
            training.hyperparameters(problem),
        )
        fits = DirectFits(systems, box)
        digits = Digits(fits, [system.loss for system in systems])
        formula = GeneralizedCVFormula(fits, digits, hypergradient, sample_of(problem, partition, training))
        return Objective(
            formula, box, SquaredError(), systems[0].solver,
            meaning=ONE_VALUE, second=formula.hessian, arithmetic=formula, notes=(formula.remarks,),
        )  # fmt: skip
