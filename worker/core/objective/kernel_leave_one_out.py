"""The outer objective of leave-one-out cross-validation of kernel ridge regression."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from worker.core.linalg import cholesky
from worker.core.losses import ResidualLoss
from worker.core.objective.objective import Scores
from worker.core.objective.one_kernel_fit import KernelSolution, OneKernelFit
from worker.core.objective.row_tangents import RowTangents, in_chunks
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem


@dataclass(frozen=True, slots=True)
class KernelLeaveOneOut(OneKernelFit):
    """Mean loss of `e_i = theta_i / P_ii`, the residual of row i under the fit without it (Allen 1974).

    As for linear ridge regression, the fit without row i keeps the total penalty and the weights of the others in C.
    """

    loss: ResidualLoss

    def scores(self, problem: Problem, partition: Partition, rho: Float[Array, " k"]) -> Scores | None:
        """The scores of single rows."""
        at = self._solve(rho)
        if at is None:
            return None
        losses = self.loss.of(self._left_out_residuals(at)[0])[0]
        return Scores(losses, self._weights(), problem.trained(partition.rows((0,))))

    def tangents(
        self, problem: Problem, partition: Partition, rho: Float[Array, " k"], chosen: Int[Array, " f"]
    ) -> Iterator[RowTangents] | None:
        """The rows with the predictors `y - e` of the fits without them; None if training is singular.

        `theta_j = -P A_j theta` and `q_ij = -p_i^T A_j p_i` with the columns `p_i` of P. The forms take n times the
        work of a contraction with one vector.
        """
        at = self._solve(rho)
        if at is None:
            return None
        e, q, P = self._left_out_residuals(at)
        ridge = self._training_hyperparameters(rho)[0] / self.split.shares
        moved = np.column_stack([ridge * at.theta, at.kernel.along(at.theta)])
        forms = [np.append(ridge @ p**2, at.kernel.contract_outer(p, p)) for p in P]
        projected = np.column_stack([at.project(column) for column in moved.T])
        eta_dot = (projected - e[:, None] * np.array(forms)) / q[:, None]
        rows = problem.trained(partition.rows((0,)))
        y, D = problem.y[rows], eta_dot[:, None, chosen]
        return in_chunks(RowTangents(rows, y, (y - e)[:, None], self._weights(), D, self.loss))

    def _value(self, rho: Float[Array, " k"], at: KernelSolution) -> float:
        return float(self._weights() @ self.loss.of(self._left_out_residuals(at)[0])[0])

    def _pullback(self, rho: Float[Array, " k"], at: KernelSolution) -> tuple[Float[Array, "n n"], Float[Array, " k"]]:
        """`A_bar = -(P theta_bar) theta^T - P diag(q_bar) P` with `theta_bar = e_bar / q`, `q_bar = -e_bar e / q`."""
        e, q, P = self._left_out_residuals(at)
        e_bar = self._weights() * self.loss.of(e)[1]
        A_bar = (P * (e_bar * e / q)) @ P
        pulled = np.outer(at.project(e_bar / q), at.theta)
        A_bar -= (pulled + pulled.T) / 2
        return A_bar, np.zeros(len(rho))

    def _weights(self) -> Float[Array, " n"]:
        return self.split.w_scored / self.split.weight

    def _left_out_residuals(
        self, at: KernelSolution
    ) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, "n n"]]:
        """The leave-one-out residuals, the diagonal of P, and P."""
        P = at.inverse()
        if at.total:
            P -= np.outer(at.a, at.a / at.total)
        q = cholesky.diagonal_of(P).copy()
        return at.theta / q, q, P
