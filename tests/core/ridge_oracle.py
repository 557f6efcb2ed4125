"""J of ridge regression in 150 digits, from the definition: naive refits, no identity that the core uses.

The data are taken as the doubles that they are. So many digits that every textbook formula is exact here: offsets of
1e15, sentinels and penalties lose at most 100 of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mpmath
import numpy as np

Number = Any  # mpmath has no types
Column = list[Number]
DIGITS = 150
WHOLE_SAMPLE = ("leave_one_out", "generalized_cv", "evidence", "marginal_likelihood", "reml")

mp = mpmath.mp.clone() if hasattr(mpmath.mp, "clone") else mpmath.MPContext()
mp.dps = DIGITS
ZERO, ONE = mp.mpf(0), mp.mpf(1)


def exact(values: Sequence[float] | np.ndarray) -> Column:
    """The doubles, without rounding."""
    return [mp.mpf(float(value)) for value in values]


@dataclass(frozen=True)
class Exact:
    """Ridge regression of `y` on the columns of `X`; `weights` train, `scoring` scores.

    `penalty_of_column[j]` is the index of the penalty of column j. Rows of weight zero do not train.
    """

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    scoring: np.ndarray
    penalty_of_column: Sequence[int]
    intercept: bool
    standardize: bool

    @cached_property
    def columns(self) -> list[Column]:
        return [exact(column) for column in self.X.T]

    @cached_property
    def target(self) -> Column:
        return exact(self.y)

    def fit(self, train: np.ndarray, lam: Sequence[Number], left_out: int | None = None) -> Fit:
        """The minimizer over the rows `train`; with `left_out` that row does not train, and C keeps its other terms."""
        used = [int(i) for i in train if self.weights[i] > 0]
        scale = self._squared_scales(used)
        rows = [i for i in used if i != left_out]
        w, total = exact(self.weights[rows]), mp.fsum(exact(self.weights[used]))
        columns = [[column[i] for i in rows] for column in (*self.columns, self.target)]
        mean = [mp.fdot(w, column) / mp.fsum(w) if self.intercept else ZERO for column in columns]
        centred = [[value - m for value in column] for column, m in zip(columns, mean, strict=True)]
        weighted = [[a * b for a, b in zip(w, column, strict=True)] for column in centred]
        p = len(self.columns)
        H = [[mp.fdot(weighted[j], centred[k]) / total if k <= j else ZERO for k in range(p)] for j in range(p)]
        for j in range(p):
            H[j][j] += lam[self.penalty_of_column[j]] * scale[j]
            for k in range(j):
                H[k][j] = H[j][k]
        b = [mp.fdot(weighted[j], centred[p]) / total for j in range(p)]
        P = [lam[self.penalty_of_column[j]] * scale[j] for j in range(p)]
        return Fit(self, rows, H, P, solve(H, b), mean)

    def _squared_scales(self, rows: list[int]) -> Column:
        """The variance of each column, and 1 of a constant one: what multiplies its penalty."""
        if not self.standardize:
            return [ONE] * len(self.columns)
        variances = [variance for _, variance in self.spreads(np.array(rows))[:-1]]
        return [variance or ONE for variance in variances]

    def spreads(self, train: np.ndarray) -> list[tuple[Number, Number]]:
        """Mean and variance of each column of `[X, y]` over the rows that train."""
        rows = [int(i) for i in train if self.weights[i] > 0]
        w = exact(self.weights[rows])
        total, result = mp.fsum(w), []
        for column in (*self.columns, self.target):
            values = [column[i] for i in rows]
            mean = mp.fdot(w, values) / total
            result.append((mean, mp.fdot(w, [(value - mean) ** 2 for value in values]) / total))
        return result


@dataclass(frozen=True)
class Fit:
    """A minimizer: the Hessian H of C about the origin of the rows, the diagonal of the penalty, theta, the origin."""

    of: Exact
    rows: list[int]
    H: list[Column]
    penalty: Column
    theta: Column
    mean: Column

    def centred_row(self, i: int) -> Column:
        return [column[i] - m for column, m in zip(self.of.columns, self.mean[:-1], strict=True)]

    def residual(self, i: int) -> Number:
        return self.of.target[i] - self.mean[-1] - mp.fdot(self.theta, self.centred_row(i))


def value(exact_ridge: Exact, kind: str, splits: list[tuple[np.ndarray, np.ndarray]], lam: Sequence[Number]) -> Number:
    """J. `splits` are pairs of training and validation rows; evidence takes the noise variance after the penalties."""
    if kind not in WHOLE_SAMPLE:
        return _resampled(exact_ridge, splits, lam)
    (train, _), *_ = splits
    if kind == "leave_one_out":
        return _leave_one_out(exact_ridge, train, lam)
    if kind == "generalized_cv":
        return _generalized_cv(exact_ridge, train, lam)
    return _evidence(exact_ridge, train, lam, restricted=kind == "reml")


def gradient(f: Callable[[Column], Number], rho: Sequence[float]) -> list[float]:
    """`df/drho` of a function of `exp(rho)`, by central differences that lose half of the digits."""
    step, slopes = mp.mpf(10) ** -40, []
    for j in range(len(rho)):
        ends = [f([mp.exp(mp.mpf(r) + (sign * step if k == j else 0)) for k, r in enumerate(rho)]) for sign in (1, -1)]
        slopes.append(float((ends[0] - ends[1]) / (2 * step)))
    return slopes


def _resampled(exact_ridge: Exact, splits: list[tuple[np.ndarray, np.ndarray]], lam: Sequence[Number]) -> Number:
    total, weight = ZERO, ZERO
    for train, validation in splits:
        fit = exact_ridge.fit(train, lam)
        for i in validation:
            w = mp.mpf(float(exact_ridge.scoring[i]))
            if w:
                total, weight = total + w * fit.residual(int(i)) ** 2, weight + w
    return total / weight


def _leave_one_out(exact_ridge: Exact, train: np.ndarray, lam: Sequence[Number]) -> Number:
    total, weight = ZERO, ZERO
    for i in train:
        w = mp.mpf(float(exact_ridge.scoring[i]))
        if w:
            residual = exact_ridge.fit(train, lam, left_out=int(i)).residual(int(i))
            total, weight = total + w * residual**2, weight + w
    return total / weight


def _generalized_cv(exact_ridge: Exact, train: np.ndarray, lam: Sequence[Number]) -> Number:
    """`(RSS / W) / (1 - tr A / n)^2`; row i of A is the fitted value of row i in all targets."""
    fit = exact_ridge.fit(train, lam)
    w = exact(exact_ridge.weights[fit.rows])
    trace, total = ZERO, mp.fsum(w)
    for i, w_i in zip(fit.rows, w, strict=True):
        row = fit.centred_row(i)
        trace += w_i / total * (mp.fdot(row, solve(fit.H, row)) + int(exact_ridge.intercept))
    scoring = exact(exact_ridge.scoring[train])
    squares = [fit.residual(int(i)) ** 2 for i in train]
    return mp.fdot(scoring, squares) / mp.fsum(scoring) / (1 - trace / len(w)) ** 2


def _evidence(exact_ridge: Exact, train: np.ndarray, lam: Sequence[Number], *, restricted: bool) -> Number:
    """Minus the log density of y, normal with the covariance `s2 V`, `V = 1/(n shares) + X P^-1 X^T / n`.

    X is centred at the weighted means if there is an intercept. That is known (at its best value) or integrated out.
    """
    fit = exact_ridge.fit(train, lam)
    n, w = len(fit.rows), exact(exact_ridge.weights[fit.rows])
    total, rows = mp.fsum(w), [fit.centred_row(i) for i in fit.rows]
    scaled = [[value / (n * P) for value, P in zip(row, fit.penalty, strict=True)] for row in rows]
    V = [[mp.fdot(a, b) for b in rows] for a in scaled]
    for i in range(n):
        V[i][i] += total / (n * w[i])
    y = [exact_ridge.target[i] for i in fit.rows]
    (Vy, V1), logarithm = solutions(V, [y, [ONE] * n])
    ones = mp.fsum(V1)
    square, degrees = mp.fdot(y, Vy), n
    if exact_ridge.intercept:
        square -= mp.fsum(Vy) ** 2 / ones
        if restricted:
            degrees, logarithm = n - 1, logarithm + mp.log(ones)
    penalties = 1 + max(exact_ridge.penalty_of_column)
    s2 = lam[penalties] if len(lam) > penalties else square / degrees
    return (degrees * mp.log(2 * mp.pi * s2) + logarithm + square / s2) / 2


def solve(A: list[Column], b: Column) -> Column:
    """`A^-1 b` for a positive definite A."""
    return solutions(A, [b])[0][0]


def solutions(A: list[Column], targets: list[Column]) -> tuple[list[Column], Number]:
    """`A^-1 b` for each b, and `log |A|`, by elimination without pivots: A is positive definite."""
    n = len(A)
    upper = [row[i:] + [b[i] for b in targets] for i, row in enumerate(A)]  # of the symmetric A, with right-hand sides
    for i in range(n):
        pivot_row = upper[i]
        for k in range(i + 1, n):
            factor = pivot_row[k - i] / pivot_row[0]
            if factor:
                upper[k] = [a - factor * b for a, b in zip(upper[k], pivot_row[k - i :], strict=True)]
    results = []
    for t in range(len(targets)):
        x: Column = []
        for i in reversed(range(n)):
            row = upper[i]
            x.insert(0, (row[n - i + t] - mp.fdot(row[1 : n - i], x)) / row[0])
        results.append(x)
    return results, mp.fsum(mp.log(row[0]) for row in upper)
