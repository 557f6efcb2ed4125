"""Penalized least squares with about 32 digits, to check what an ordinary fit has lost. For small tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from worker.core.linalg.double_double import DoubleDouble, product_of_columns, solve_positive
from worker.core.records import Array

# of each split, without and with the leverages of its rows; or of each row, without it, as leave-one-out needs
AccurateKind = Literal["residuals", "leverages", "refits"]


@dataclass(frozen=True, slots=True)
class AccurateFit:
    """What selection criteria need of a fit, right to the last digit.

    `residuals` of the scored rows with their `weights`, and `remainders`, one minus the leverages of the training rows
    (NaN if they were not asked for). `minimum` is the training criterion C there, and `log_determinant` that of its
    Hessian.
    """

    weights: Float[Array, " v"]
    residuals: Float[Array, " v"]
    remainders: Float[Array, " n"]
    minimum: float
    log_determinant: float


def accurate_fit(
    train: tuple[Float[Array, "n p"], Float[Array, " n"]],
    scored: tuple[Float[Array, "v p"], Float[Array, " v"]],
    weights: Float[Array, " v"],
    shares: Float[Array, " n"],
    P: Float[Array, "p p"],
    *,
    intercept: bool,
    leverages: bool = False,
) -> AccurateFit | None:
    """The fit of rows `(X, y)` with these shares and the penalty P; None if H is not positive definite.

    Without an intercept the mean m is one more row, of weight one: `H = H_c + m m^T` with H_c of the centred rows. Its
    part is added by the formula of Sherman and Morrison, as no digits are enough for columns far from zero.
    """
    s = DoubleDouble.of(shares)
    s /= s.sum()
    Z = DoubleDouble.of(np.column_stack(train))
    mean = (s[:, None] * Z).sum()
    Z = Z - mean[None]
    X, y, weighted = Z[:, :-1], Z[:, -1], s[:, None] * Z
    right = [product_of_columns(X, weighted[:, -1:]), mean[:-1][:, None], *([X.T] if leverages else [])]
    B = DoubleDouble(np.hstack([part.high for part in right]), np.hstack([part.low for part in right]))
    solved = solve_positive(product_of_columns(X, weighted[:, :-1]) + DoubleDouble.of(P), B)
    if solved is None:
        return None
    (solutions, pivots), one = solved, DoubleDouble.of(1.0)
    theta, k, columns = solutions[:, 0], solutions[:, 1], solutions[:, 2:]
    c, level = (mean[:-1] * k).sum(), DoubleDouble.of(0.0)
    if not intercept:
        level = (mean[-1] - (mean[:-1] * theta).sum()) / (one + c)  # the residual at the mean
        theta += k * level
    r = y - _predictor(X, theta) + level
    penalized = (theta * (DoubleDouble.of(P) * theta[None]).T.sum()).sum()
    minimum = (s * r * r).sum() + penalized
    remainders = np.full(len(shares), np.nan)
    if leverages:
        q = (X.T * columns).sum() + one
        if not intercept:
            b = one - _predictor(X, k)
            q = q - b * b / (one + c)
        remainders = (one - s * q).rounded()
    Z_scored = DoubleDouble.of(np.column_stack(scored)) - mean[None]
    residuals = Z_scored[:, -1] - _predictor(Z_scored[:, :-1], theta) + level
    log_determinant = float(np.log(pivots).sum()) + (0.0 if intercept else float(np.log((one + c).rounded())))
    return AccurateFit(weights, residuals.rounded(), remainders, float(minimum.rounded()) / 2, log_determinant)


def _predictor(X: DoubleDouble, theta: DoubleDouble) -> DoubleDouble:
    return (X * theta[None]).T.sum()
