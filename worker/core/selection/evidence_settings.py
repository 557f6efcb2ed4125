"""Evidence: marginal likelihood and restricted marginal likelihood."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from worker.core.capabilities import Capability, Need
from worker.core.hypergradient import ExactHypergradient
from worker.core.hyperparameters import Box, Hyperparameters, Positive
from worker.core.losses import Score, SquaredError
from worker.core.objective.arithmetic_of_mean import Digits
from worker.core.objective.evidence import EvidenceFormula
from worker.core.objective.fits import DirectFits
from worker.core.objective.gaussian_process import GaussianProcessEvidence
from worker.core.objective.learning import LearningRemark
from worker.core.objective.meaning import Meaning
from worker.core.objective.objective import Objective
from worker.core.rows.problem import Partition, Problem
from worker.core.selection.closed_form import ClosedForm, dual_matrix
from worker.core.selection.selection_criterion import lacking
from worker.core.training import TrainingCriterion


@dataclass(frozen=True, slots=True)
class NoiseVariance(Box):
    """The box and the initial value of a noise variance that is tuned like a penalty, in natural units."""

    initial: Positive = 1.0
    lower: Positive = 1e-6
    upper: Positive = 1e6


@dataclass(frozen=True, slots=True)
class GaussianEvidence(ClosedForm, ABC):
    """The base of evidences of linear models and Gaussian processes; `integrate_intercept`: with a flat prior."""

    noise_variance: NoiseVariance | None = None

    needs: ClassVar[tuple[Need, ...]] = (frozenset({Capability.LEAST_SQUARES, Capability.KERNEL_MATRIX}),)
    alternatives: ClassVar[tuple[str, ...]] = ("laplace_evidence", "approximate_leave_one_out", "k_fold")
    integrate_intercept: ClassVar[bool]
    takes_loss: ClassVar[bool] = False
    given_loss: ClassVar[Score | None] = None

    @property
    @abstractmethod
    def kind(self) -> str:
        """Its name on the wire."""

    def hyperparameters(self) -> Hyperparameters | None:
        """The noise variance, if it is tuned."""
        return None if self.noise_variance is None else self.noise_variance.hyperparameters(("noise_variance",))

    def objective(
        self,
        problem: Problem,
        partition: Partition,
        training: TrainingCriterion,
        hypergradient: ExactHypergradient,
        trials: int = 1,
    ) -> Objective:
        """The outer objective, from the p x p or the n x n matrix, whichever costs less, or the kernel matrix."""
        noise, box = self.hyperparameters(), training.hyperparameters(problem)
        whole = box if noise is None else box + noise
        own = 0 if noise is None else len(noise.names)
        if (of_kernel := training.parts.kernel_matrix) is not None:
            split, kernel = of_kernel.trained_rows(problem, partition), of_kernel.function(problem)
            process = GaussianProcessEvidence(
                split, whole, kernel, noise=noise is not None, integrate_intercept=self.integrate_intercept
            )
            meaning = Meaning(is_mean_loss=False, nats=float(len(split.y)))
            remark = LearningRemark(kernel, split.X, whole, meaning, process.value, process.value_of_constant)
            return Objective(
                process, whole, SquaredError(), "kernel_matrix",
                meaning=meaning, own=own, noise=process.noise_variance, notes=(remark,),
            )  # fmt: skip
        if (least_squares := training.parts.least_squares) is None:
            raise lacking(self.kind, training)
        systems = least_squares.systems(problem, partition, dual=dual_matrix(hypergradient))
        fits = DirectFits(systems, whole, own)
        digits = Digits(fits, [system.loss for system in systems])
        formula = EvidenceFormula(
            fits, digits, hypergradient, least_squares.sample(problem, partition.rows((0,))),
            base=problem.base_weights(partition.rows((0,))),
            noise=noise is not None,
            integrate_intercept=self.integrate_intercept,
        )  # fmt: skip
        return Objective(
            formula, whole, SquaredError(), systems[0].solver,
            meaning=Meaning(is_mean_loss=False, nats=float(formula.sample.rows)),
            own=own,
            second=formula.hessian,
            noise=formula.noise_variance,
            arithmetic=formula,
            notes=(formula.remarks,),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Evidence(GaussianEvidence):
    """Marginal likelihood (MacKay 1992): minus its logarithm, in nats, is minimized. No intercept is integrated out.

    The model is `y ~ N(eta, s2)` with the prior `theta ~ N(0, s2 / n P^-1)`, P the matrix of the penalty. The noise
    variance s2 is the best one at these penalties or, with `noise_variance`, a hyperparameter.
    """

    kind: Literal["evidence"] = "evidence"

    integrate_intercept: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class MarginalLikelihood(GaussianEvidence):
    """Another name of `evidence`, with the same settings and results."""

    kind: Literal["marginal_likelihood"] = "marginal_likelihood"

    integrate_intercept: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Reml(GaussianEvidence):
    """Restricted marginal likelihood: the intercept is integrated out with a flat prior, too (Wood 2011)."""

    kind: Literal["reml"] = "reml"

    integrate_intercept: ClassVar[bool] = True
