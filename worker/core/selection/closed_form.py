"""Selection criteria from one fit on all rows, without refitting.

They keep the total penalty `n lam` of all rows and, with `standardize`, the column scales of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from worker.core.hypergradient import CholeskyBackprop, ExactHypergradient
from worker.core.hyperparameters import Hyperparameters
from worker.core.objective.whole_sample import Sample
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem
from worker.core.training import KernelRidge, Ridge, TableTraining
from worker.core.training.generalized_linear import GeneralizedLinearTraining


@dataclass(frozen=True, slots=True)
class ClosedForm:
    """A selection criterion of one fit on all rows."""

    ordered: ClassVar[bool] = False
    closed_form: ClassVar[bool] = True
    leaves_rows_out: ClassVar[bool] = False  # whether J is of rows under fits without them
    keeps_groups: ClassVar[bool] = False  # each row is scored with the rest of its group in training
    has_hessian: ClassVar[bool] = True  # whether J has an exact Hessian

    def partition(self, rows: Int[Array, " m"], n: int, roles: Problem | None = None) -> Partition:
        """One block: every usable row trains and is scored. Raises ValueError if there are fewer than two."""
        if len(rows) < 2:
            raise ValueError("at least two rows are needed")
        block_of_row = np.full(n, -1)
        block_of_row[rows] = 0
        return Partition(block_of_row, (((0,), (0,)),))

    def hyperparameters(self) -> Hyperparameters | None:
        """Hyperparameters of the selection criterion: none here."""
        return None


def as_generalized_linear(training: TableTraining, kind: str) -> GeneralizedLinearTraining:
    """The training criterion, if it is a generalized linear model; else raises ValueError."""
    if isinstance(training, GeneralizedLinearTraining):
        return training
    exact_kind = {"approximate_leave_one_out": "leave_one_out", "laplace_evidence": "evidence"}[kind]
    has_squared_loss = isinstance(training, Ridge | KernelRidge)
    advice = (
        f"{exact_kind} is exact for {training.kind}"
        if has_squared_loss
        else f"use k_fold or holdout with {training.kind}"
    )
    raise ValueError(f"{kind} is for generalized linear models; {advice}")


def with_factor(training: TableTraining, kind: str) -> GeneralizedLinearTraining:
    """The training criterion with the solver that gives the factor that the selection criterion needs."""
    return replace(as_generalized_linear(training, kind), solver="newton_cholesky")


def as_ridge(training: TableTraining, kind: str) -> Ridge:
    """The training criterion, if it is ridge; else raises ValueError."""
    if isinstance(training, Ridge):
        return training
    advice = "approximate_leave_one_out" if kind in {"leave_one_out", "generalized_cv"} else "laplace_evidence"
    if not isinstance(training, GeneralizedLinearTraining):
        advice = "leave_one_out or evidence" if isinstance(training, KernelRidge) else "k_fold or holdout"
    raise ValueError(f"{kind} needs ridge, whose training criterion is quadratic; use {advice} here")


def dual_matrix(hypergradient: ExactHypergradient) -> bool | None:
    """`dual` for `Ridge.systems`: False for CholeskyBackprop, which needs the factor of H; else None, by cost."""
    return False if isinstance(hypergradient, CholeskyBackprop) else None


def sample_of(problem: Problem, partition: Partition, training: Ridge) -> Sample:
    """The sample that a criterion of all rows has."""
    return Sample(
        int(np.count_nonzero(problem.base_weights(partition.rows((0,))))),
        len(training.penalties(problem)[0].names),
        training.intercept,
        training.eliminates_intercept,
    )
