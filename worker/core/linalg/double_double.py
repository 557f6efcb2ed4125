"""Arithmetic with about 32 digits: a number is an unevaluated sum of two doubles (Dekker 1971; Hida, Li, Bailey 2001).

It is some thirty times slower than doubles, the same on every processor, and for checks of small problems.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from worker.core.records import Array

Doubles = Any  # arrays; operations on arrays without an axis give scalars
SPLITTER = 2.0**27 + 1.0  # splits a double into two halves whose products are exact
PRODUCTS_AT_A_TIME = 200_000


@dataclass(frozen=True, slots=True)
class DoubleDouble:
    """Arrays `high + low` of one shape; `low` is at most half a unit in the last place of `high`."""

    high: Doubles
    low: Doubles

    @classmethod
    def of(cls, values: Doubles | float) -> DoubleDouble:
        """The doubles, exactly."""
        high = np.asarray(values, float)
        return cls(high, np.zeros_like(high))

    @property
    def T(self) -> DoubleDouble:
        """The transpose."""
        return DoubleDouble(self.high.T, self.low.T)

    def __getitem__(self, place: Any) -> DoubleDouble:
        return DoubleDouble(self.high[place], self.low[place])

    def __setitem__(self, place: Any, values: DoubleDouble) -> None:
        self.high[place], self.low[place] = values.high, values.low

    def __add__(self, other: DoubleDouble) -> DoubleDouble:
        total, rest = _two_sum(self.high, other.high)
        low, lower = _two_sum(self.low, other.low)
        total, rest = _quick_sum(total, rest + low)
        return DoubleDouble(*_quick_sum(total, rest + lower))

    def __neg__(self) -> DoubleDouble:
        return DoubleDouble(-self.high, -self.low)

    def __sub__(self, other: DoubleDouble) -> DoubleDouble:
        return self + -other

    def __mul__(self, other: DoubleDouble) -> DoubleDouble:
        product, rest = _two_product(self.high, other.high)
        return DoubleDouble(*_quick_sum(product, rest + (self.high * other.low + self.low * other.high)))

    def __truediv__(self, other: DoubleDouble) -> DoubleDouble:
        first = self.high / other.high
        left = self - other * DoubleDouble.of(first)
        second = left.high / other.high
        left = left - other * DoubleDouble.of(second)
        return DoubleDouble(*_quick_sum(first, second)) + DoubleDouble.of(left.high / other.high)

    def sum(self) -> DoubleDouble:
        """The sum over the first axis."""
        values = self
        while len(values.high) > 1:
            half = len(values.high) // 2
            pairs = values[:half] + values[half : 2 * half]
            rest = values[2 * half :]
            values = DoubleDouble(np.concatenate([pairs.high, rest.high]), np.concatenate([pairs.low, rest.low]))
        return values[0] if len(values.high) else DoubleDouble.of(np.zeros(self.high.shape[1:]))

    def rounded(self) -> Doubles:
        """The nearest doubles."""
        return self.high + self.low


def product_of_columns(A: DoubleDouble, B: DoubleDouble) -> DoubleDouble:
    """`A^T B` of matrices with the same rows."""
    n, p = A.high.shape
    q = B.high.shape[1]
    total = DoubleDouble.of(np.zeros((p, q)))
    size = max(1, PRODUCTS_AT_A_TIME // (p * q or 1))
    for begin in range(0, n, size):
        rows = slice(begin, begin + size)
        total += (A[rows][:, :, None] * B[rows][:, None, :]).sum()
    return total


def solve_positive(M: DoubleDouble, B: DoubleDouble) -> tuple[DoubleDouble, Float[Array, " p"]] | None:
    """`M^-1 B` of a symmetric positive definite M, and its pivots; None if one is not positive. Overwrites both."""
    p = len(M.high)
    for k in range(p):
        if not M.high[k, k] > 0:
            return None
        below = slice(k + 1, p)
        factor = M[below, k : k + 1] / M[k, k]
        M[below, below] = M[below, below] - factor * M[k : k + 1, below]
        B[below] = B[below] - factor * B[k : k + 1]
    for k in reversed(range(p)):
        right = slice(k + 1, p)
        known = (M[k, right][:, None] * B[right]).sum()
        B[k] = (B[k] - known) / M[k, k]
    return B, np.diag(M.high).copy()


def _two_sum(a: Doubles, b: Doubles) -> tuple[Doubles, Doubles]:
    total = a + b
    taken = total - a
    return total, (a - (total - taken)) + (b - taken)


def _quick_sum(a: Doubles, b: Doubles) -> tuple[Doubles, Doubles]:
    """For |a| >= |b|."""
    total = a + b
    return total, b - (total - a)


def _two_product(a: Doubles, b: Doubles) -> tuple[Doubles, Doubles]:
    product = a * b
    (a1, a2), (b1, b2) = _halves(a), _halves(b)
    return product, ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2


def _halves(a: Doubles) -> tuple[Doubles, Doubles]:
    scaled = SPLITTER * a
    first = scaled - (scaled - a)
    return first, a - first
