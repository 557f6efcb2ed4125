"""Scores of all validation rows together, smoothed so that they have derivatives: AUC and F measure.

The value of such a score is the sum of the weights times the score, so that it adds up and pools like a sum of losses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit

from worker.core.hyperparameters import Positive
from worker.core.losses.elementary import Column, PerRow, refuse_binary
from worker.core.losses.score import ClassScore, Prediction
from worker.core.records import Array

CHUNK_PAIRS = 200_000  # pairs of rows at a time: a few arrays of them stay in the processor's cache


@dataclass(frozen=True, slots=True)
class SmoothedAuc(ClassScore):
    """`1 - AUC` with a step of width `1 / slope`: the mean of `1 / (1 + e^(slope d))` over pairs of rows of each class.

    `d` is the predictor of the row of class 1 minus the predictor of the row of class 0. The weight of a pair is the
    product of its rows' weights. The time is proportional to the number of pairs.
    """

    slope: Positive = 10.0
    kind: Literal["smoothed_auc"] = "smoothed_auc"

    needs: ClassVar[Prediction] = "rank"
    by_row: ClassVar[None] = None
    calibrator: ClassVar[None] = None

    def at(self, y: PerRow, eta: Column, w: PerRow) -> Pairs:
        """The score with its derivatives."""
        pairs = _Pairwise(y == 1, self.slope * eta[:, 0], w)
        losses, steepness = np.zeros(len(y)), np.zeros(len(y))
        for i, j, gap in pairs.chunks():
            e = np.exp(-np.abs(gap))
            lost = np.where(gap > 0, e, 1.0) / (1.0 + e)
            steep = e / (1.0 + e) ** 2
            losses[i], steepness[i] = lost @ w[j], steep @ w[j]
            losses[j] += w[i] @ lost
            steepness[j] += w[i] @ steep
        losses /= pairs.opposite
        slope = self.slope * np.where(y == 1, -1.0, 1.0) * w * steepness * (w.sum() / pairs.weight)
        return Pairs(losses, slope[:, None], pairs, self.slope)

    def check(self, y: PerRow) -> None:
        """Raises ValueError unless y holds zeros and ones."""
        refuse_binary(y)

    def lacks(self, y: PerRow) -> str | None:
        """A sentence unless both classes are among the targets."""
        classes = np.unique(y)
        if classes.size > 1:
            return None
        return (
            f"the AUC compares two classes, and all validation rows are of class {classes[0]:g}; "
            "use stratified folds or more validation rows"
            if classes.size
            else "the AUC compares two classes, and no validation row has a weight"
        )


@dataclass(frozen=True, slots=True)
class _Pairwise:
    """Pairs of rows of class 1 and class 0, and their scaled predictors `z`."""

    positive: Bool[Array, " n"]
    z: PerRow
    w: PerRow

    @property
    def weight(self) -> float:
        """Sum of the weights of all pairs."""
        return float(self.w[self.positive].sum() * self.w[~self.positive].sum())

    @property
    def opposite(self) -> PerRow:
        """The total weight of the class that each row is compared with."""
        return np.where(self.positive, self.w[~self.positive].sum(), self.w[self.positive].sum())

    def chunks(self) -> Iterator[tuple[Array, Array, Float[Array, "a b"]]]:
        """Chunks of rows of class 1, all rows of class 0, and the differences of their scaled predictors."""
        i, j = np.flatnonzero(self.positive), np.flatnonzero(~self.positive)
        height = max(CHUNK_PAIRS // max(len(j), 1), 1)
        for start in range(0, len(i), height):
            chunk = i[start : start + height]
            yield chunk, j, self.z[chunk, None] - self.z[j]


@dataclass(frozen=True, slots=True)
class Pairs:
    """The smoothed AUC at one point. The loss of a row is the mean over the rows of the other class."""

    losses: PerRow
    slope: Column
    pairs: _Pairwise
    steepness: float

    @property
    def value(self) -> float:
        """Sum of the weights, times one minus the AUC."""
        return float(self.pairs.w @ self.losses)

    def bend(self, V: Float[Array, "n 1 f"]) -> Float[Array, "n 1 f"]:
        """The second derivative times each direction: a pair adds `second (v_i - v_j)` to i and the negative to j."""
        v, w = V[:, 0, :], self.pairs.w
        weighted = w[:, None] * np.column_stack([np.ones(len(w)), v])
        sums = np.zeros(weighted.shape)
        for i, j, gap in self.pairs.chunks():
            e = np.exp(-np.abs(gap))
            second = np.copysign(e * (1.0 - e) / ((1.0 + e) ** 2 * (1.0 + e)), gap)
            sums[i] = second @ weighted[j]
            sums[j] += second.T @ weighted[i]
        scale = self.steepness**2 * w.sum() / self.pairs.weight
        return (scale * w[:, None] * (sums[:, :1] * v - sums[:, 1:]))[:, None, :]


@dataclass(frozen=True, slots=True)
class SmoothedF(ClassScore):
    """`1 - F_beta` with soft counts: a row counts as predicted positive by `p = 1 / (1 + e^(-slope eta))`.

    `F_beta = (1 + beta^2) TP / (beta^2 P + S)` with `TP = sum w y p`, `P = sum w y` and `S = sum w p`.
    """

    slope: Positive = 10.0
    beta: Positive = 1.0
    kind: Literal["smoothed_f"] = "smoothed_f"

    needs: ClassVar[Prediction] = "rank"
    by_row: ClassVar[None] = None
    calibrator: ClassVar[None] = None

    def at(self, y: PerRow, eta: Column, w: PerRow) -> SoftCounts:
        """The score with its derivatives."""
        z = self.slope * eta[:, 0]
        p, rest = expit(z), expit(-z)
        counted = self.beta**2 * (w @ y) + w @ p
        missed = (w * y) @ rest
        lost = (self.beta**2 * missed + (w * (1.0 - y)) @ p) / counted
        inner = (1.0 - (1.0 + self.beta**2) * y - lost) / counted
        first = self.slope * p * rest
        return SoftCounts(float(w.sum()), float(lost), inner, first, -self.slope * np.tanh(z / 2), counted, y, w)

    def check(self, y: PerRow) -> None:
        """Raises ValueError unless y holds zeros and ones."""
        refuse_binary(y)

    def lacks(self, y: PerRow) -> str | None:
        """A sentence unless class 1 is among the targets."""
        if y.any():
            return None
        return (
            "the F measure counts rows of class 1, and no validation row is one; use stratified folds, "
            "more validation rows, or the other class as class 1"
            if y.size
            else "the F measure counts rows of class 1, and no validation row has a weight"
        )


@dataclass(frozen=True, slots=True)
class SoftCounts:
    """The smoothed F measure at one point, `lost = 1 - F`.

    `inner` is the derivative of `lost` in p divided by the row's weight, `first` is `dp/d eta`, `growth` the derivative
    of `log(first)` in eta, `counted` the denominator of F.
    """

    weight: float
    lost: float
    inner: PerRow
    first: PerRow
    growth: PerRow
    counted: float
    y: PerRow
    w: PerRow

    @property
    def losses(self) -> None:
        """None: single rows have no loss."""
        return

    @property
    def value(self) -> float:
        """Sum of the weights, times one minus F."""
        return self.weight * self.lost

    @property
    def slope(self) -> Column:
        """`df/d eta`."""
        return (self.weight * self.w * self.inner * self.first)[:, None]

    def bend(self, V: Float[Array, "n 1 f"]) -> Float[Array, "n 1 f"]:
        """The second derivative times each direction; the two sums couple the rows."""
        p_dot = (self.w * self.first)[:, None] * V[:, 0, :]
        lost_dot, counted_dot = self.inner @ p_dot, p_dot.sum(0)
        inner_dot = -(lost_dot + self.inner[:, None] * counted_dot) / self.counted
        own = (self.inner * self.growth)[:, None] * p_dot
        return (self.weight * (own + (self.w * self.first)[:, None] * inner_dot))[:, None, :]
