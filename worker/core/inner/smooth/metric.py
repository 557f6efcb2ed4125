"""A metric `B <= H`, H the Hessian of a training criterion, in which errors are cheap to measure.

`|delta|_B = sqrt(delta^T B delta)`; `|r|_{B^-1}` is the dual norm, for gradients and residuals. Since `B <= H`, a
residual r of a linear system in H means an error of at most `|r|_{B^-1}` in B. The same holds for a gradient r of C as
long as H stays above B: C is then strongly convex in this metric with modulus one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from worker.core.inner.smooth.criterion import Point
from worker.core.linalg.triangular import solve_lower
from worker.core.records import Array
from worker.core.rows.design import Design


@runtime_checkable
class Metric(Protocol):
    """Norms dual to B."""

    def dual(self, r: Float[Array, " mq"]) -> float:
        """`|r|_{B^-1}`."""

    def rows(self, design: Design) -> Float[Array, " n"]:
        """For each row at least the largest `|sum_a c_a z_ia|_{B^-1}` with `|c| = 1`, `z_ia` the row in output a.

        The predictors of a row move by at most this times `|delta|_B`.
        """


@dataclass(frozen=True, slots=True)
class FactorMetric:
    """`B = H = L L^T`."""

    L: Float[Array, "mq mq"]
    m: int

    def dual(self, r: Float[Array, " mq"]) -> float:
        """`|L^-1 r|`."""
        return float(np.linalg.norm(solve_lower(self.L, r)))

    def rows(self, design: Design) -> Float[Array, " n"]:
        """The root of the sum of `|z_ia|^2` over the outputs: an upper bound of the largest."""
        q = design.q
        total = np.zeros(len(design))
        for a in range(self.m):
            for chunk, Z in design.dense_chunks():
                padded = np.zeros((self.m * q, len(Z)), order="F")
                padded[a * q : (a + 1) * q] = Z.T
                solved = solve_lower(self.L, padded, overwrite=True)
                total[chunk] += np.einsum("ij,ij->j", solved, solved)
        return np.sqrt(total)


@dataclass(frozen=True, slots=True)
class PenaltyMetric:
    """B from the diagonal penalty P and, if there are intercepts b, a lower bound of the data term.

    The rows have curvatures `a_i >= 0` with the sum a, and the weighted mean x. The data term is at least
    `a |Q (b + V x)|^2` with the slopes V of the outputs. Q removes the mean over several outputs, as C contains the
    square of the sum of b separately. Without an intercept the data term is bounded by zero.
    """

    penalty: Float[Array, "m p"]
    intercept: bool
    curvature: float
    centre: Float[Array, " p"]

    @classmethod
    def build(cls, at: Point) -> PenaltyMetric | None:
        """The metric at a point; None if a slope has no penalty, P is not diagonal or rows have no curvature."""
        m, design = at.of.m, at.of.design
        i = int(design.intercept)
        if at.of.penalty.blocks:
            return None
        penalty = at.of.penalty.diagonal.reshape(m, design.q)[:, i:]
        if not (penalty > 0).all():
            return None
        if not i:
            return cls(penalty, False, 1.0, np.zeros(design.q))
        a = at.of.shares * at.rows.least_curvature()
        total = float(a.sum())
        if not total > 0:
            return None
        return cls(penalty, True, total, design.back(a[:, None, None])[1:, 0] / total)

    def dual(self, r: Float[Array, " mq"]) -> float:
        """By the change of variables `b + V x`."""
        m = len(self.penalty)
        table = r.reshape(m, -1)
        if not self.intercept:
            return float(np.sqrt(np.sum(table**2 / self.penalty)))
        intercepts = table[:, 0]
        deviations = intercepts - intercepts.mean() if m > 1 else intercepts
        slopes = table[:, 1:] - np.outer(deviations, self.centre)
        mean_part = intercepts.mean() ** 2 if m > 1 else 0.0
        return float(np.sqrt(deviations @ deviations / self.curvature + mean_part + np.sum(slopes**2 / self.penalty)))

    def rows(self, design: Design) -> Float[Array, " n"]:
        """Bounds from the weakest penalty over the outputs."""
        weakest = 1.0 / self.penalty.min(axis=0)
        if not self.intercept:
            return design.norms(weakest)[:, 0]
        scale = np.append(0.0, weakest)
        centre_scaled = np.append(0.0, self.centre * weakest)
        squares = design.norms(scale)[:, 0] ** 2
        centred_squares = np.maximum(
            squares - 2.0 * design.predictor(centre_scaled)[:, 0] + self.centre @ centre_scaled[1:], 0.0
        )
        if len(self.penalty) == 1:
            return np.sqrt(centred_squares + 1.0 / self.curvature)
        return np.sqrt(np.maximum(centred_squares, squares) + 1.0 / self.curvature + 1.0 / len(self.penalty))
