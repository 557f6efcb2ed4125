"""The best intercept for fixed smooth parts of the predictors, which is not always a single one.

The hinges are straight outside their bends. Where the slopes of the rows balance and no row is in its bend, C does not
change with the intercept within an interval, whose ends are the kinks of two rows.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from worker.core.inner.kernel.row_losses import RowLosses
from worker.core.records import Array

BALANCED = 1e-14  # share of all slopes below which what is left of their sum is rounding


@dataclass(frozen=True, slots=True)
class BestIntercept:
    """`b`, and how it follows the smooth parts of the predictors: `db = -held @ d smooth`.

    Of an interval of minima, b is the middle: `held` is a half for the two rows whose kinks are its ends. An interval
    without an end, as of rows that are all of one class, gives the end that it has. Where the minimum is a single one,
    `held` is zero: b is then part of the system that theta solves.
    """

    b: float
    held: Float[Array, " n"]

    @classmethod
    def of(cls, rows: RowLosses, smooth: Float[Array, " n"]) -> BestIntercept | None:
        """By bisection over the sorted kinks, as the slope never falls with b; None for a loss that has no kinks."""
        places = (rows.kinks - smooth).ravel()
        if not len(places):
            return None
        order = np.argsort(places, kind="stable")
        ends = [rows.at(smooth + places[i]).slope for i in order[[0, -1]]]
        rounding = BALANCED * float(np.abs(ends).sum())

        def slope(place: int) -> float:
            total = float(rows.at(smooth + places[order[place]]).slope.sum())
            return 0.0 if abs(total) <= rounding else total

        inner = range(len(order))
        first, last = bisect_left(inner, 0.0, key=slope), bisect_right(inner, 0.0, key=slope) - 1
        held = np.zeros(len(smooth))
        if first > last:  # between two kinks the slope is linear
            below, above = slope(last), slope(first)
            from_, to = places[order[[last, first]]]
            return cls(float(from_ - below * (to - from_) / (above - below)), held)
        two = order[[first, last]]
        np.add.at(held, two % len(smooth), 0.5)
        return cls(float(places[two].mean()), held)
