"""Selection criteria in closed form: functions of the residuals r and the leverages h of one fit on all rows.

`h_i = x_i^T H^-1 x_i / n` (plus `1/n` with an intercept) is the diagonal of the matrix that maps y to its fit. Both
criteria keep the total penalty `n lam` of the full data, and the full data's scales where columns are standardized.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int

from worker.core.closed_form import ClosedFormObjective, Derivatives
from worker.core.hypergradient import ExactHypergradient
from worker.core.objective import Objective
from worker.core.records import Array, Partition, Problem
from worker.core.training import Training


@dataclass(frozen=True, slots=True)
class _ClosedForm(ABC):
    ordered: ClassVar[bool] = False
    closed_form: ClassVar[bool] = True

    def partition(self, rows: Int[Array, " m"], n: int, roles: Problem | None = None) -> Partition:
        """One block: every usable row trains and is scored. Raises ValueError when there are fewer than two."""
        del roles
        if len(rows) < 2:
            raise ValueError("at least two rows are needed")
        block_of_row = np.full(n, -1)
        block_of_row[rows] = 0
        return Partition(block_of_row, (((0,), (0,)),))

    def objective(
        self, problem: Problem, partition: Partition, training: Training, hypergradient: ExactHypergradient
    ) -> Objective:
        """The outer objective. Factors the p x p matrix whatever the number of rows."""
        systems = training.systems(problem, partition, dual=False, score_rows=True)
        box = training.hyperparameters(problem.features)
        return ClosedFormObjective(systems, box, hypergradient, self.derivatives, training.intercept)

    @abstractmethod
    def derivatives(self, r: Float[Array, " n"], h: Float[Array, " n"]) -> Derivatives:
        """Value and derivatives of the criterion in residuals and leverages."""


@dataclass(frozen=True, slots=True)
class LeaveOneOut(_ClosedForm):
    """Leave-one-out cross-validation without refitting: the mean of `(r_i / (1 - h_i))^2` (PRESS, Allen 1974)."""

    loss: Literal["squared_error"] = "squared_error"
    kind: Literal["leave_one_out"] = "leave_one_out"

    def derivatives(self, r: Float[Array, " n"], h: Float[Array, " n"]) -> Derivatives:
        """Value and derivatives of the criterion in residuals and leverages."""
        n, m = len(r), 1.0 - h
        e = r / m
        rr, rh, hh = 2.0 / (n * m**2), 4.0 * e / (n * m**2), 6.0 * e**2 / (n * m**2)

        def second(r_dot: Float[Array, "n f"], h_dot: Float[Array, "n f"]) -> Float[Array, "f f"]:
            mixed = (r_dot.T * rh) @ h_dot
            return (r_dot.T * rr) @ r_dot + mixed + mixed.T + (h_dot.T * hh) @ h_dot

        return Derivatives(float(np.mean(e**2)), 2.0 * e / (n * m), 2.0 * e**2 / (n * m), second, e**2)


@dataclass(frozen=True, slots=True)
class GeneralizedCV(_ClosedForm):
    """Generalized cross-validation: `(RSS / n) / (1 - tr A / n)^2` (Golub, Heath and Wahba 1979)."""

    loss: Literal["squared_error"] = "squared_error"
    kind: Literal["generalized_cv"] = "generalized_cv"

    def derivatives(self, r: Float[Array, " n"], h: Float[Array, " n"]) -> Derivatives:
        """Value and derivatives of the criterion in residuals and leverages."""
        n, rss = len(r), float(r @ r)
        q = 1.0 - float(h.sum()) / n

        def second(r_dot: Float[Array, "n f"], h_dot: Float[Array, "n f"]) -> Float[Array, "f f"]:
            trace_dot = h_dot.sum(axis=0)
            mixed = np.outer(r @ r_dot, trace_dot) * (4.0 / (n**2 * q**3))
            of_trace = np.outer(trace_dot, trace_dot) * (6.0 * rss / (n**3 * q**4))
            return (2.0 / (n * q**2)) * (r_dot.T @ r_dot) + mixed + mixed.T + of_trace

        h_bar = np.full(n, 2.0 * rss / (n**2 * q**3))
        return Derivatives(rss / (n * q**2), 2.0 * r / (n * q**2), h_bar, second, None)
