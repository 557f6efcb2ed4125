"""Evidence of generalized linear models in Laplace's approximation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from worker.core.hypergradient import ExactHypergradient
from worker.core.objective.fits import AnchoredFits
from worker.core.objective.laplace_evidence import LaplaceFormula
from worker.core.objective.meaning import Meaning
from worker.core.objective.objective import Objective
from worker.core.objective.rough_loss import RoughLossRemark
from worker.core.objective.scored_rows import PredictedRows
from worker.core.rows.problem import Partition, Problem
from worker.core.selection.closed_form import ClosedForm, as_generalized_linear, with_factor
from worker.core.training import TableTraining


@dataclass(frozen=True, slots=True)
class LaplaceEvidence(ClosedForm):
    """Marginal likelihood of a generalized linear model in Laplace's approximation (MacKay 1992), minus its logarithm.

    In nats. The prior is `theta ~ N(0, (n P)^-1)`, P the matrix of the penalty; the prior of the intercept is flat. A
    row of weight w counts as w rows. `gamma` has the shape 1, and `huber` errors of unit variance within delta.
    """

    kind: Literal["laplace_evidence"] = "laplace_evidence"

    has_hessian: ClassVar[bool] = False

    def check(self, training: TableTraining, problem: Problem) -> None:
        """Raises ValueError unless the training criterion is a likelihood of rows with fixed weights."""
        if not as_generalized_linear(training, self.kind).row_loss(problem).is_likelihood:
            raise ValueError(
                f"laplace_evidence needs a likelihood, which {training.kind} is not; use logistic or k_fold"
            )
        if training.weights is not None:
            raise ValueError("laplace_evidence does not tune example weights; use approximate_leave_one_out")

    def objective(
        self,
        problem: Problem,
        partition: Partition,
        training: TableTraining,
        hypergradient: ExactHypergradient,
        trials: int = 1,
    ) -> Objective:
        """The outer objective. It factors the Hessian of all coefficients, however many there are."""
        self.check(training, problem)
        systems = with_factor(training, self.kind).systems(problem, partition)
        total = float(problem.base_weights(partition.rows((0,))).sum())
        box = training.hyperparameters(problem)
        loss = training.selection_loss(problem, training.score(None).in_units(problem, partition.rows((0,))))
        fits = AnchoredFits(systems, box)
        rows = PredictedRows(fits, [system.loss for system in systems])
        return Objective(
            LaplaceFormula(fits, total), box, loss, systems[0].solver,
            meaning=Meaning(is_mean_loss=False, nats=total),
            warm=fits,
            pool=rows.pooled,
            notes=(RoughLossRemark(fits),),
        )  # fmt: skip
