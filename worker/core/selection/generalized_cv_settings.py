"""Generalized cross-validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from worker.core.capabilities import Capability, Need
from worker.core.hypergradient import ExactHypergradient
from worker.core.losses import Score, SquaredError
from worker.core.objective.arithmetic_of_mean import Digits
from worker.core.objective.fits import DirectFits
from worker.core.objective.generalized_cv import GeneralizedCVFormula
from worker.core.objective.meaning import ONE_VALUE
from worker.core.objective.objective import Objective
from worker.core.rows.problem import Partition, Problem
from worker.core.selection.closed_form import ClosedForm, dual_matrix
from worker.core.selection.selection_criterion import lacking
from worker.core.training import TrainingCriterion


@dataclass(frozen=True, slots=True)
class GeneralizedCV(ClosedForm):
    """Generalized cross-validation: `(RSS / n) / (1 - tr A / n)^2` (Golub, Heath and Wahba 1979)."""

    loss: Literal["squared_error"] = "squared_error"
    kind: Literal["generalized_cv"] = "generalized_cv"

    needs: ClassVar[tuple[Need, ...]] = (frozenset({Capability.LEAST_SQUARES}),)
    alternatives: ClassVar[tuple[str, ...]] = ("leave_one_out", "approximate_leave_one_out", "k_fold")
    takes_loss: ClassVar[bool] = False
    given_loss: ClassVar[Score | None] = None

    def hyperparameters(self) -> None:
        """None: the selection criterion has no hyperparameters of its own."""

    def objective(
        self,
        problem: Problem,
        partition: Partition,
        training: TrainingCriterion,
        hypergradient: ExactHypergradient,
        trials: int = 1,
    ) -> Objective:
        """The outer objective, from the p x p or the n x n matrix, whichever costs less."""
        if (least_squares := training.parts.least_squares) is None:
            raise lacking(self.kind, training)
        systems = least_squares.systems(problem, partition, dual=dual_matrix(hypergradient))
        box, sample = training.hyperparameters(problem), least_squares.sample(problem, partition.rows((0,)))
        fits = DirectFits(systems, box)
        digits = Digits(fits, [system.loss for system in systems])
        formula = GeneralizedCVFormula(fits, digits, hypergradient, sample)
        return Objective(
            formula, box, SquaredError(), systems[0].solver,
            meaning=ONE_VALUE, second=formula.hessian, arithmetic=formula, notes=(formula.remarks,),
        )  # fmt: skip
