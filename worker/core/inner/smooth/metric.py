"""A metric B that is nowhere above the Hessian H of a training criterion, in which errors can be measured for little.

`|delta|_B = sqrt(delta^T B delta)`, and `|r|_{B^-1}` for what is dual to it, such as gradients. As `B <= H`, a residual
r of a linear system in H leaves an error of at most `|r|_{B^-1}` in B, and so does a gradient r of C as long as H stays
above B: C is strongly convex in this metric with the modulus one.
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
class OfFactor:
    """`B = H = L L^T`."""

    L: Float[Array, "mq mq"]
    m: int

    def dual(self, r: Float[Array, " mq"]) -> float:
        """`|L^-1 r|`."""
        return float(np.linalg.norm(solve_lower(self.L, r)))

    def rows(self, design: Design) -> Float[Array, " n"]:
        """The root of the sum of `|z_ia|^2` over the outputs, which is no less than the largest."""
        q = design.q
        total = np.zeros(len(design))
        for a in range(self.m):
            for some, Z in design.dense_chunks():
                padded = np.zeros((self.m * q, len(Z)), order="F")
                padded[a * q : (a + 1) * q] = Z.T
                solved = solve_lower(self.L, padded, overwrite=True)
                total[some] += np.einsum("ij,ij->j", solved, solved)
        return np.sqrt(total)


@dataclass(frozen=True, slots=True)
class OfPenalty:
    """B of the diagonal penalty P and, where there are intercepts b, of what the data say of them.

    With curvatures `a_i >= 0` of the rows, their sum a and their weighted mean row x, the data contribute at least
    `a |Q (b + V x)|^2`, V the slopes of the outputs and Q the projection that takes the mean over outputs away, if
    there are several: then the sum of b has a square of its own in C. Without an intercept the data contribute nothing.
    """

    penalty: Float[Array, "m p"]
    intercept: bool
    curvature: float
    centre: Float[Array, " p"]

    @classmethod
    def build(cls, at: Point) -> OfPenalty | None:
        """At a point; None where the penalty leaves out a slope, or is not diagonal."""
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
        first = table[:, 0]
        about = first - first.mean() if m > 1 else first
        slopes = table[:, 1:] - np.outer(about, self.centre)
        free = first.mean() ** 2 if m > 1 else 0.0
        return float(np.sqrt(about @ about / self.curvature + free + np.sum(slopes**2 / self.penalty)))

    def rows(self, design: Design) -> Float[Array, " n"]:
        """With the weakest penalty over the outputs."""
        weakest = 1.0 / self.penalty.min(axis=0)
        if not self.intercept:
            return design.norms(weakest)[:, 0]
        scale = np.append(0.0, weakest)
        moved = np.append(0.0, self.centre * weakest)
        plain = design.norms(scale)[:, 0] ** 2
        about = np.maximum(plain - 2.0 * design.predictor(moved)[:, 0] + self.centre @ moved[1:], 0.0)
        if len(self.penalty) == 1:
            return np.sqrt(about + 1.0 / self.curvature)
        return np.sqrt(np.maximum(about, plain) + 1.0 / self.curvature + 1.0 / len(self.penalty))
