"""A selection criterion that the product does not have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float

from worker.core.capabilities import Capability, Need
from worker.core.hypergradient import ExactHypergradient
from worker.core.hypergradient.hessian_dependence import HessianDependence
from worker.core.inner.protocols import LeastSquaresFit
from worker.core.linalg.triangular import solve_lower, solve_lower_right
from worker.core.losses import Score, SquaredError
from worker.core.objective.fits import DirectFits
from worker.core.objective.mean_of_splits import residuals_of
from worker.core.objective.meaning import Meaning
from worker.core.objective.objective import Found, Objective, Residuals
from worker.core.objective.whole_sample import Sample
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem
from worker.core.selection.closed_form import ClosedForm, dual_matrix
from worker.core.selection.selection_criterion import lacking
from worker.core.training import TrainingCriterion


@dataclass(frozen=True, slots=True)
class AicFormula:
    """`J = n / 2 log(RSS / W) + tau` in nats, tau the trace of the hat matrix."""

    fits: DirectFits[LeastSquaresFit]
    hypergradient: ExactHypergradient
    sample: Sample

    def value(self, rho: Float[Array, " k"]) -> float:
        """J alone; infinite if training is singular."""
        found = self.found(rho)
        return np.inf if found is None else found.value

    def found(self, rho: Float[Array, " k"]) -> Found | None:
        """J and `dJ/drho`."""
        fits = self.fits.at(rho)
        if fits is None:
            return None
        fit, loss = fits[0], self.fits.systems[0].loss
        rss, theta_bar = loss.value_and_gradient(fit.theta)
        trace, slope = fit.of_inverse.hat_trace()
        value = self.sample.rows / 2 * np.log(rss / loss.weight) + trace

        def L_bar(L: Float[Array, "p p"]) -> Float[Array, "p p"]:
            half = solve_lower(L, np.asfortranarray(fit.in_rho.penalty.apply(np.eye(len(L)))))
            return 2.0 * solve_lower(L, solve_lower_right(L, half, transposed=True), transposed=True)

        def on_penalty() -> Float[Array, " k"]:
            return -self.sample.only_penalties(fit.in_rho.contract_matrix(fit.inverse()))

        of_trace = HessianDependence(lambda: slope, L_bar, on_penalty)
        gradient = self.hypergradient(fit, self.sample.rows / (2.0 * rss) * theta_bar, of_trace)
        return Found(float(value), gradient, np.array([value]))

    def residuals(self, rho: Float[Array, " k"]) -> Residuals | None:
        """The relative residuals of training and of the adjoint at this point."""
        return residuals_of(self.fits, rho)


@dataclass(frozen=True, slots=True)
class Aic(ClosedForm):
    """Akaike's information criterion (1974) with the effective number of parameters, over two: in nats."""

    kind: Literal["aic"] = "aic"

    needs: ClassVar[tuple[Need, ...]] = (frozenset({Capability.LEAST_SQUARES}),)
    alternatives: ClassVar[tuple[str, ...]] = ("generalized_cv", "laplace_evidence", "k_fold")
    has_hessian: ClassVar[bool] = False
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
        """The outer objective."""
        if (least_squares := training.parts.least_squares) is None:
            raise lacking(self.kind, training)
        systems = least_squares.systems(problem, partition, dual=dual_matrix(hypergradient))
        box, sample = training.hyperparameters(problem), least_squares.sample(problem, partition.rows((0,)))
        formula = AicFormula(DirectFits(systems, box), hypergradient, sample)
        meaning = Meaning(is_mean_loss=False, nats=float(sample.rows))
        return Objective(formula, box, SquaredError(), systems[0].solver, meaning=meaning)
