"""Selection criteria from one fit on all rows, without refitting.

All keep the total penalty `n lam` of the full data, and the full data's scales where columns are standardized.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int

from worker.core.hypergradient import CholeskyBackprop, ExactHypergradient
from worker.core.hyperparameters import Hyperparameters
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem
from worker.core.training import KernelRidge, Ridge, TableTraining
from worker.core.training.generalized_linear import GeneralizedLinearTraining


@dataclass(frozen=True, slots=True)
class ClosedForm:
    """A selection criterion of one fit on all rows."""

    ordered: ClassVar[bool] = False
    closed_form: ClassVar[bool] = True
    has_hessian: ClassVar[bool] = True  # whether J has an exact Hessian

    def partition(self, rows: Int[Array, " m"], n: int, roles: Problem | None = None) -> Partition:
        """One block: every usable row trains and is scored. Raises ValueError when there are fewer than two."""
        if len(rows) < 2:
            raise ValueError("at least two rows are needed")
        block_of_row = np.full(n, -1)
        block_of_row[rows] = 0
        return Partition(block_of_row, (((0,), (0,)),))

    def hyperparameters(self) -> Hyperparameters | None:
        """Those of the criterion itself."""
        return None


def as_generalized_linear(training: TableTraining, kind: str) -> GeneralizedLinearTraining:
    """Raises ValueError for quadratic training criteria."""
    if isinstance(training, GeneralizedLinearTraining):
        return training
    exact = {"approximate_leave_one_out": "leave_one_out", "laplace_evidence": "evidence"}[kind]
    squared = isinstance(training, Ridge | KernelRidge)
    instead = f"{exact} is exact for {training.kind}" if squared else f"use k_fold or holdout with {training.kind}"
    raise ValueError(f"{kind} is for generalized linear models; {instead}")


def with_factor(training: TableTraining, kind: str) -> GeneralizedLinearTraining:
    """With the solver whose factor the criterion needs."""
    return replace(as_generalized_linear(training, kind), solver="newton_cholesky")


def as_ridge(training: TableTraining, kind: str) -> Ridge:
    """Raises ValueError unless the training criterion is quadratic."""
    if isinstance(training, Ridge):
        return training
    instead = "approximate_leave_one_out" if kind in {"leave_one_out", "generalized_cv"} else "laplace_evidence"
    if not isinstance(training, GeneralizedLinearTraining):
        instead = "leave_one_out or evidence" if isinstance(training, KernelRidge) else "k_fold or holdout"
    raise ValueError(f"{kind} needs ridge, whose training criterion is quadratic; use {instead} here")


def dual_matrix(hypergradient: ExactHypergradient) -> bool | None:
    """None, for the cheaper matrix; False where what J depends on beyond theta is swept through the factor of H."""
    return False if isinstance(hypergradient, CholeskyBackprop) else None


def sample_counts(problem: Problem, partition: Partition, training: Ridge) -> dict[str, Any]:
    """Rows, penalties and intercept, as objectives of the whole sample count them."""
    return {
        "rows": int(np.count_nonzero(problem.base_weights(partition.rows((0,))))),
        "penalties": len(training.penalties(problem)[0].names),
        "has_intercept": training.intercept,
        "eliminated": training.eliminates_intercept,
    }
