"""Evidence of generalized linear models in Laplace's approximation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from worker.core.capabilities import Capability, Need
from worker.core.hypergradient import ExactHypergradient
from worker.core.losses import Score
from worker.core.objective.fits import AnchoredFits
from worker.core.objective.laplace_evidence import LaplaceFormula
from worker.core.objective.meaning import Meaning
from worker.core.objective.objective import Objective
from worker.core.objective.rough_loss import RoughLossRemark
from worker.core.objective.scored_rows import PredictedRows
from worker.core.rows.problem import Partition, Problem
from worker.core.selection.closed_form import ClosedForm
from worker.core.selection.selection_criterion import lacking
from worker.core.training import TrainingCriterion


@dataclass(frozen=True, slots=True)
class LaplaceEvidence(ClosedForm):
    """Marginal likelihood of a generalized linear model in Laplace's approximation (MacKay 1992), minus its logarithm.

    In nats. The prior is `theta ~ N(0, (n P)^-1)`, P the matrix of the penalty; the prior of the intercept is flat. A
    row of weight w counts as w rows. `gamma` has the shape 1, and `huber` errors of unit variance within delta.
    """

    kind: Literal["laplace_evidence"] = "laplace_evidence"

    needs: ClassVar[tuple[Need, ...]] = (frozenset({Capability.LIKELIHOOD}),)
    alternatives: ClassVar[tuple[str, ...]] = ("evidence", "approximate_leave_one_out", "k_fold")
    has_hessian: ClassVar[bool] = False
    takes_factor: ClassVar[bool] = True
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
        """The outer objective. It factors the Hessian of all coefficients, however many there are."""
        if (likelihood := training.parts.likelihood) is None:
            raise lacking(self.kind, training)
        systems = likelihood.factored_systems(problem, partition)
        total = float(problem.base_weights(partition.rows((0,))).sum())
        box = training.hyperparameters(problem)
        loss = likelihood.selection_loss(problem, None, partition.rows((0,)))
        fits = AnchoredFits(systems, box)
        rows = PredictedRows(fits, [system.loss for system in systems])
        return Objective(
            LaplaceFormula(fits, total), box, loss, systems[0].solver,
            meaning=Meaning(is_mean_loss=False, nats=total),
            warm=fits,
            pool=rows.pooled,
            notes=(RoughLossRemark(fits),),
        )  # fmt: skip
