"""The best intercept for fixed smooth parts of the predictors; it need not be unique.

A hinge is straight outside its curved part. If the slopes of the rows add up to zero and no row is curved, C is
constant in the intercept on an interval. The ends of the interval are kinks of two rows.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from worker.core.inner.kernel.row_losses import RowLosses
from worker.core.records import Array

LARGEST_ZERO_SLOPE = 1e-14  # relative to the |slopes| at the outermost kinks; a smaller sum of slopes counts as zero
EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class BestIntercept:
    """`b`, and its derivative with respect to the smooth parts of the predictors: `db = -held @ d smooth`.

    b is the middle of an interval of minima: `held` is 1/2 for the two rows whose kinks are its ends. If the interval
    has one end only, as with rows of a single class, b is that end. If the minimum is unique, `held` is zero: b is then
    part of the system that theta solves.
    """

    b: float
    held: Float[Array, " n"]

    @classmethod
    def of(cls, rows: RowLosses, smooth: Float[Array, " n"]) -> BestIntercept | None:
        """By bisection over the sorted kinks, as the slope never falls with b; None for a loss without kinks.

        C does not rise up to the first kink and does not fall beyond the last one, so one of the kinks is always found.
        """
        kinks = (rows.kinks - smooth).ravel()
        if not len(kinks):
            return None
        order = np.argsort(kinks, kind="stable")
        ends = [rows.at(smooth + kinks[i]).slope for i in order[[0, -1]]]
        # a predictor is rounded at the size of what it is the sum of, and its slope by that times the curvature
        largest_f = float(np.abs(smooth).max() + np.abs(kinks).max())
        rounding = LARGEST_ZERO_SLOPE * float(np.abs(ends).sum()) + EPS * rows.loss.largest_curvature * largest_f

        def slope(i: int) -> float:
            total = float(rows.at(smooth + kinks[order[i]]).slope.sum())
            return 0.0 if abs(total) <= rounding else total

        inner = range(len(order))
        first = min(bisect_left(inner, 0.0, key=slope), len(order) - 1)
        last = max(bisect_right(inner, 0.0, key=slope) - 1, 0)
        held = np.zeros(len(smooth))
        if first > last:  # between two kinks the slope is linear
            below, above = slope(last), slope(first)
            low, high = kinks[order[[last, first]]]
            return cls(float(low - below * (high - low) / (above - below)), held)
        end_kinks = order[[first, last]]
        np.add.at(held, end_kinks % len(smooth), 0.5)
        return cls(float(kinks[end_kinks].mean()), held)
