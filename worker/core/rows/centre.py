"""Means with more digits than a double holds: a column may lie far from zero in units of its spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class Centre:
    """A point `high + low` for the columns of a table, not rounded to one double.

    A mean that is rounded to `high` is off by machine epsilon times its distance from zero. For epoch seconds that
    differ by milliseconds this is a visible part of the spread. Differences of rows from `high` are nearly exact
    (Sterbenz), and `low` is what is left.
    """

    high: Float[Array, " p"]
    low: Float[Array, " p"]

    @classmethod
    def at(cls, point: Float[Array, " p"]) -> Centre:
        """The point itself."""
        return cls(point, np.zeros_like(point))

    @classmethod
    def zero(cls, p: int) -> Centre:
        """The origin of p columns."""
        return cls.at(np.zeros(p))

    def moved(self, step: Float[Array, " p"]) -> Centre:
        """`self + step`, by an error-free sum (Knuth 1969, volume 2, section 4.2.2)."""
        step = self.low + step
        total = self.high + step
        taken = total - self.high
        return Centre(total, (self.high - (total - taken)) + (step - taken))

    def minus(self, other: Centre) -> Float[Array, " p"]:
        """`self - other`, rounded."""
        return (self.high - other.high) + (self.low - other.low)

    def of(self, columns: Any) -> Centre:
        """The entries of the chosen columns."""
        return Centre(self.high[columns], self.low[columns])

    def followed_by(self, other: Centre) -> Centre:
        """The entries of both."""
        return Centre(np.append(self.high, other.high), np.append(self.low, other.low))

    def subtracted_from(self, rows: Float[Array, "*n p"]) -> Float[Array, "*n p"]:
        """`rows - self`, as a new array."""
        out = rows - self.high
        if self.low.any():
            out -= self.low
        return out

    def times(self, theta: Float[Array, " p"]) -> float:
        """`self . theta`."""
        return float(self.high @ theta + self.low @ theta)
