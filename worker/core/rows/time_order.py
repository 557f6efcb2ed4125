"""Rows in the order of time, and where such an order may be cut: never between rows of equal time."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Shaped

from worker.core.durations import LONGEST_DAYS, MICROSECONDS_PER_DAY
from worker.core.records import Array


def microseconds_of(days: Float[Array, " m"]) -> Int[Array, " m"]:
    """Dates in days as whole microseconds, so that sums with durations are exact. Raises ValueError far from today."""
    if np.abs(days).max(initial=0.0) > LONGEST_DAYS:
        raise ValueError("the time column holds dates more than 10,000 years from 1970; give rows instead of durations")
    return np.rint(days * MICROSECONDS_PER_DAY).astype(np.int64)


def in_order(rows: Int[Array, " m"], clock: Shaped[Array, " m"]) -> tuple[Int[Array, " m"], Shaped[Array, " m"]]:
    """Rows and their times in the order of time; rows of equal time keep their order."""
    order = np.argsort(clock, kind="stable")
    return rows[order], clock[order]


def run_starts(clock: Shaped[Array, " m"]) -> Int[Array, " r"]:
    """The places at which a run of equal times begins, in times that ascend."""
    return np.flatnonzero(np.append(True, clock[1:] != clock[:-1])[: len(clock)])


def completed(clock: Shaped[Array, " m"], place: int) -> int:
    """The place of a border that must not cut a run of equal times: the end of the run that it falls into."""
    if not 0 < place < len(clock):
        return place
    return int(np.searchsorted(clock, clock[place - 1], side="right"))
