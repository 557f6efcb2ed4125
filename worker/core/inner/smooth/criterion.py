"""The training criterion of a generalized linear model at fixed hyperparameters, and its derivatives at a point."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float

from worker.core.losses.derivatives import RowDerivatives
from worker.core.losses.training_loss import TrainingLoss
from worker.core.penalties.forms import Penalized
from worker.core.records import Array
from worker.core.rows.design import Design

RELATIVE_ROUNDING = 8 * np.finfo(float).eps  # of the terms of a gradient


@dataclass(frozen=True)
class Regularized:
    """`C(theta) = sum_i s_i loss(y_i, eta_i) + theta^T P theta / 2` with the shares `s`, which sum to one.

    `tied` are the intercepts of classes: a common shift of them changes no loss. Half the square of their sum is added
    to C, which keeps the sum at zero and changes nothing else.
    """

    loss: TrainingLoss
    design: Design
    y: Float[Array, " n"]
    offset: Float[Array, " n"] | None
    shares: Float[Array, " n"]
    penalty: Penalized
    tied: slice | None

    @property
    def m(self) -> int:
        """The number of outputs."""
        return self.loss.outputs

    @cached_property
    def second_moments(self) -> Float[Array, " mq"]:
        """The mean square of each column, weighted by the shares, repeated for each output."""
        return np.tile(self.design.diagonal([(0, 0, self.shares)], 1), self.m)

    def at(self, theta: Float[Array, " mq"]) -> Point:
        """Value and gradient at theta."""
        eta = self.design.predictor(theta)
        if self.offset is not None:
            eta += self.offset[:, None]
        # a row of weight zero does not count, even if its loss overflows
        counted = eta if self.shares.all() else np.where(self.shares[:, None] != 0, eta, 0.0)
        rows = self.loss.at(self.y, counted, np.ones(len(self.y)))
        slope = self.shares[:, None] * rows.slope
        prior = self.penalty.apply(theta)
        if self.tied is not None:
            prior[self.tied] += theta[self.tied].sum()
        with np.errstate(over="ignore", invalid="ignore"):
            value = float(self.shares @ rows.losses) + float(theta @ prior) / 2
            gradient = self.design.back(slope[:, :, None])[:, 0] + prior
        return Point(self, theta, eta, rows, value, gradient)


@dataclass(frozen=True, slots=True)
class Point:
    """C at theta. `rows` are the derivatives of the row losses, each with weight one."""

    of: Regularized
    theta: Float[Array, " mq"]
    eta: Float[Array, "n m"]
    rows: RowDerivatives
    value: float
    gradient: Float[Array, " mq"]

    def bend(self, V: Float[Array, "n m f"]) -> Float[Array, "n m f"]:
        """The second derivative of the data term in eta times each direction."""
        return self.of.shares[:, None, None] * self.rows.bend(V)

    def apply(self, D: Float[Array, "mq f"]) -> Float[Array, "mq f"]:
        """`H D`."""
        out = self.of.design.back(self.bend(self.of.design.along(D))) + self.of.penalty.apply(D)
        if self.of.tied is not None:
            out[self.of.tied] += D[self.of.tied].sum(axis=0)
        return out

    def hessian(self) -> Float[Array, "mq mq"]:
        """H as a matrix."""
        H = self.of.design.gram(self.blocks(), self.of.m)
        self.of.penalty.add_to(H)
        if self.of.tied is not None:
            H[self.of.tied, self.of.tied] += 1.0
        return H

    def diagonal(self) -> Float[Array, " mq"]:
        """The diagonal of H, at least machine epsilon times the largest curvature of a column."""
        of_rows, squares = self.of.design.diagonal(self.blocks(), self.of.m), self.of.second_moments
        diagonal = of_rows + self.of.penalty.whole_diagonal()
        if self.of.tied is not None:
            diagonal[self.of.tied] += 1.0
        if not of_rows.any() and self.of.design.intercept:  # held by its tie: see `straight.py`
            diagonal[:: self.of.design.q] += 1.0
        curvatures = np.divide(of_rows, squares, out=np.zeros_like(of_rows), where=squares > 0)
        smallest = np.finfo(float).eps * (curvatures.max(initial=0.0) or 1.0) * squares  # in the units of each column
        diagonal = np.maximum(diagonal, smallest)
        diagonal[diagonal == 0] = 1.0
        return diagonal

    def blocks(self) -> list[tuple[int, int, Float[Array, " n"]]]:
        """The curvatures of the data term for each pair of outputs, times the shares of the rows."""
        return [(a, b, self.of.shares * w) for a, b, w in self.rows.blocks()]

    def majorized(self) -> Point | None:
        """The point with the curvatures of a model that is nowhere below C; None if the curvatures of C do not jump."""
        rows = self.rows.majorized()
        return None if rows is None else replace(self, rows=rows)

    def unit(self, diagonal: Float[Array, " mq"], noise: float) -> float:
        """The unit of `gradient_norm`: the norm of theta in the metric `diagonal`, or `gradient_norm` at theta = 0.

        If this is no more than `noise`, as at a minimizer of zero, the unit is the size of the terms that are rounded.
        """
        size = float(np.sqrt(diagonal @ self.theta**2)) or self.gradient_norm(diagonal)
        return size if size > noise else noise / RELATIVE_ROUNDING or 1.0

    def gradient_norm(self, diagonal: Float[Array, " mq"]) -> float:
        """`sqrt(g^T diag(H)^-1 g)`: the length of a diagonal Newton step in the metric `diag(H)`."""
        return float(np.sqrt(np.sum(self.gradient**2 / diagonal)))

    def noise(self, diagonal: Float[Array, " mq"]) -> float:
        """The rounding error of `gradient_norm`."""
        slope = float(np.sqrt(self.of.shares @ np.sum(self.rows.slope**2, axis=1)))
        prior = self.of.penalty.apply(self.theta)
        return RELATIVE_ROUNDING * float(np.sqrt(np.sum((slope**2 * self.of.second_moments + prior**2) / diagonal)))
