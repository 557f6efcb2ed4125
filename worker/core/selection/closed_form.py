"""Selection criteria from one fit on all rows, without refitting.

All keep the total penalty `n lam` of the full data, and the full data's scales where columns are standardized.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Int

from worker.core.closed_form import LeaveOneOutObjective
from worker.core.family import ByKind
from worker.core.glm.closed_form import ApproximateLeaveOneOutObjective, LaplaceObjective
from worker.core.hypergradient import CholeskyBackprop, ExactHypergradient
from worker.core.hyperparameters import Hyperparameters
from worker.core.losses import ResidualLoss, SquaredError
from worker.core.machines.closed_form import GaussianProcessEvidence, KernelLeaveOneOut
from worker.core.matrix_criteria import EvidenceObjective, GeneralizedCVObjective
from worker.core.outer_objective import Objective
from worker.core.penalties import Box
from worker.core.records import Array, Partition, Problem
from worker.core.scoring import Score
from worker.core.training import KernelRidge, Ridge, SquaredHinge, TableTraining
from worker.core.training.generalized_linear import GeneralizedLinearTraining


@dataclass(frozen=True, slots=True)
class _ClosedForm:
    ordered: ClassVar[bool] = False
    closed_form: ClassVar[bool] = True
    has_hessian: ClassVar[bool] = True  # whether J has an exact Hessian

    def partition(self, rows: Int[Array, " m"], n: int, roles: Problem | None = None) -> Partition:
        """One block: every usable row trains and is scored. Raises ValueError when there are fewer than two."""
        del roles
        if len(rows) < 2:
            raise ValueError("at least two rows are needed")
        block_of_row = np.full(n, -1)
        block_of_row[rows] = 0
        return Partition(block_of_row, (((0,), (0,)),))

    def hyperparameters(self) -> Hyperparameters | None:
        """Those of the criterion itself."""
        return None


@dataclass(frozen=True, slots=True)
class LeaveOneOut(_ClosedForm):
    """Leave-one-out cross-validation without refitting: the mean loss of `r_i / (1 - h_i)` (PRESS, Allen 1974).

    `h_i` is the leverage of row i, the derivative of its fitted value in its target.
    """

    loss: Annotated[ResidualLoss, ByKind(named=True)] = SquaredError()  # noqa: RUF009 - frozen
    kind: Literal["leave_one_out"] = "leave_one_out"

    def objective(
        self,
        problem: Problem,
        partition: Partition,
        training: TableTraining,
        hypergradient: ExactHypergradient,
        trials: int = 1,
    ) -> Objective:
        """The outer objective."""
        if isinstance(training, KernelRidge):
            split, kernel = training.exact(problem, partition, self.kind), training.kernel.over(problem.features)
            return KernelLeaveOneOut(split, training.hyperparameters(problem), kernel, self.loss)
        training = _quadratic(training, self.kind)
        dual = _dual(hypergradient)
        trials = trials if dual is None else 1
        systems = training.systems(problem, partition, loss=self.loss, dual=dual, score_rows=True, trials=trials)
        base = problem.base_weights(partition.rows((0,)))
        box = training.hyperparameters(problem)
        return LeaveOneOutObjective(
            systems, box, hypergradient, self.loss, base=base, eliminated=training.eliminates_intercept
        )


@dataclass(frozen=True, slots=True)
class GeneralizedCV(_ClosedForm):
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
        """The outer objective, with the smaller of the p x p matrix and that of the rows."""
        del trials
        training = _quadratic(training, self.kind)
        systems = training.systems(problem, partition, dual=_dual(hypergradient))
        box = training.hyperparameters(problem)
        return GeneralizedCVObjective(systems, box, hypergradient, **_counts(problem, partition, training))


@dataclass(frozen=True, slots=True)
class NoiseVariance(Box):
    """The box and the initial value of a noise variance that is tuned like a penalty."""


@dataclass(frozen=True, slots=True)
class Evidence(_ClosedForm):
    """Marginal likelihood (MacKay 1992): minus its logarithm, in nats, is minimized; an intercept is left out of it.

    The model is `y ~ N(eta, s2)` with the prior `theta ~ N(0, s2 / n P^-1)`, P the matrix of the penalty. The noise
    variance s2 is the best one for the penalties, or with `noise_variance` a hyperparameter of its own.
    """

    noise_variance: NoiseVariance | None = None
    kind: Literal["evidence"] = "evidence"

    integrate_intercept: ClassVar[bool] = False

    def hyperparameters(self) -> Hyperparameters | None:
        """The noise variance, if it is tuned."""
        return None if self.noise_variance is None else self.noise_variance.hyperparameters(("noise_variance",))

    def objective(
        self,
        problem: Problem,
        partition: Partition,
        training: TableTraining,
        hypergradient: ExactHypergradient,
        trials: int = 1,
    ) -> Objective:
        """The outer objective, with the smaller of the p x p matrix and that of the rows, or the kernel matrix."""
        del trials
        noise, box = self.hyperparameters(), training.hyperparameters(problem)
        if isinstance(training, KernelRidge):
            return GaussianProcessEvidence(
                training.exact(problem, partition, self.kind), box if noise is None else box + noise,
                training.kernel.over(problem.features), SquaredError(),
                noise=noise is not None,
                integrate_intercept=self.integrate_intercept,
            )  # fmt: skip
        training = _quadratic(training, self.kind)
        systems = training.systems(problem, partition, dual=_dual(hypergradient))
        return EvidenceObjective(
            systems, box if noise is None else box + noise, hypergradient,
            **_counts(problem, partition, training),
            base=problem.base_weights(partition.rows((0,))),
            noise=noise is not None,
            integrate_intercept=self.integrate_intercept,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class MarginalLikelihood(Evidence):
    """Another name of `evidence`, with the same settings and the same numbers."""

    kind: Literal["marginal_likelihood"] = "marginal_likelihood"  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Reml(Evidence):
    """Restricted marginal likelihood: the intercept is integrated out with a flat prior, too (Wood 2011)."""

    kind: Literal["reml"] = "reml"  # type: ignore[assignment]

    integrate_intercept: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class ApproximateLeaveOneOut(_ClosedForm):
    """Leave-one-out cross-validation of a generalized linear model, by one Newton step a row (Rad and Maleki 2018).

    With squared loss it would be exact. `loss` is by default what the training criterion suggests.
    """

    loss: Annotated[Score, ByKind(named=True)] | None = None
    kind: Literal["approximate_leave_one_out"] = "approximate_leave_one_out"

    has_hessian: ClassVar[bool] = False

    def check(self, training: TableTraining) -> None:
        """Raises ValueError unless the training criterion is a generalized linear model."""
        _iterative(training, self.kind)

    def objective(
        self,
        problem: Problem,
        partition: Partition,
        training: TableTraining,
        hypergradient: ExactHypergradient,
        trials: int = 1,
    ) -> Objective:
        """The outer objective. Factors the Hessian of all coefficients whatever their number."""
        del trials
        self.check(training)
        factored, loss = _factored(training, self.kind), training.judge(problem, self.loss)
        systems = factored.systems(problem, partition, loss=self.loss)
        return ApproximateLeaveOneOutObjective(systems, training.hyperparameters(problem), hypergradient, loss)


@dataclass(frozen=True, slots=True)
class LaplaceEvidence(_ClosedForm):
    """Marginal likelihood of a generalized linear model in Laplace's approximation (MacKay 1992), minus its logarithm.

    In nats, up to a constant of the data. The prior is `theta ~ N(0, (n P)^-1)`, P the matrix of the penalty; the
    intercept has a flat one.
    """

    kind: Literal["laplace_evidence"] = "laplace_evidence"

    has_hessian: ClassVar[bool] = False

    def check(self, training: TableTraining) -> None:
        """Raises ValueError unless the training criterion is a likelihood of rows with fixed weights."""
        if isinstance(_iterative(training, self.kind), SquaredHinge):
            raise ValueError(
                "laplace_evidence needs a likelihood, which the squared hinge is not; use logistic or k_fold"
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
        """The outer objective. Factors the Hessian of all coefficients whatever their number."""
        del trials
        self.check(training)
        systems = _factored(training, self.kind).systems(problem, partition)
        total = float(problem.base_weights(partition.rows((0,))).sum())
        box = training.hyperparameters(problem)
        return LaplaceObjective(systems, box, hypergradient, training.judge(problem, None), total=total)


def _iterative(training: TableTraining, kind: str) -> GeneralizedLinearTraining:
    """Raises ValueError for quadratic training criteria."""
    if isinstance(training, GeneralizedLinearTraining):
        return training
    exact = {"approximate_leave_one_out": "leave_one_out", "laplace_evidence": "evidence"}[kind]
    squared = isinstance(training, Ridge | KernelRidge)
    instead = f"{exact} is exact for {training.kind}" if squared else f"use k_fold or holdout with {training.kind}"
    raise ValueError(f"{kind} is for generalized linear models; {instead}")


def _factored(training: TableTraining, kind: str) -> GeneralizedLinearTraining:
    """With the solver whose factor the criterion needs."""
    return replace(_iterative(training, kind), solver="newton_cholesky")


def _quadratic(training: TableTraining, kind: str) -> Ridge:
    """Raises ValueError unless the training criterion is quadratic."""
    if isinstance(training, Ridge):
        return training
    instead = "approximate_leave_one_out" if kind in {"leave_one_out", "generalized_cv"} else "laplace_evidence"
    if not isinstance(training, GeneralizedLinearTraining):
        instead = "leave_one_out or evidence" if isinstance(training, KernelRidge) else "k_fold or holdout"
    raise ValueError(f"{kind} needs ridge, whose training criterion is quadratic; use {instead} here")


def _dual(hypergradient: ExactHypergradient) -> bool | None:
    """None, for the cheaper matrix; False where what J depends on beyond theta is swept through the factor of H."""
    return False if isinstance(hypergradient, CholeskyBackprop) else None


def _counts(problem: Problem, partition: Partition, training: Ridge) -> dict[str, Any]:
    return {
        "rows": int(np.count_nonzero(problem.base_weights(partition.rows((0,))))),
        "penalties": len(training.penalties(problem)[0].names),
        "has_intercept": training.intercept,
        "eliminated": training.eliminates_intercept,
    }
