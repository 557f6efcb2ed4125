"""Parts shared by losses and scores: exponentials accurate at any scale, and checks of targets."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit

from worker.core.records import Array

PerRow = Float[Array, " n"]
Column = Float[Array, "n 1"]
Outputs = Float[Array, "n m"]
ROUNDING = 8 * np.finfo(float).eps  # rounding error of a difference, relative to its terms
SMALLEST_NORMAL = float(np.finfo(float).tiny)


def logistic_fall(near: PerRow, far: PerRow, gap: PerRow) -> PerRow:
    """`sigma'(near) - sigma'(far)` for `0 <= near <= far = near + gap`, free of cancellation."""
    return expit(-near) * expit(far) * -np.expm1(-gap) * (np.tanh(near / 2) + np.tanh(far / 2)) / 2


def softmax_terms(eta: Outputs) -> tuple[Outputs, Outputs, PerRow]:
    """The gap of each predictor to the largest one, `exp(-gap)`, and its sum without the largest one."""
    gap = eta.max(1, keepdims=True) - eta
    e = np.exp(-gap)
    others = e.copy()
    others[np.arange(len(e)), gap.argmin(1)] = 0.0
    return gap, e, others.sum(1)


def probability_change(eta: Outputs, radius: PerRow) -> Outputs:
    """Largest change of each probability when its log-odds move by `2 radius`, each predictor by up to `radius`."""
    _, e, others = softmax_terms(eta)
    total = (1.0 + others)[:, None]
    rest = np.where(e == 1.0, others[:, None], total - e)  # if two are largest, `others` is right for both
    rare = np.maximum(np.minimum(e, rest) / total, SMALLEST_NORMAL)
    stay = np.exp(-2.0 * radius)[:, None]
    return rare * (1.0 - rare) * -np.expm1(-2.0 * radius)[:, None] / (rare + (1.0 - rare) * stay)


def residuals(p: Outputs, observed: Outputs) -> Outputs:
    """`p - observed`; `1 - p` of the observed class is the sum of the others, free of cancellation."""
    others = np.where(observed > 0, 0.0, p)
    return others - observed * others.sum(1, keepdims=True)


def one_hot(y: PerRow, m: int) -> Outputs:
    """One in the column of the class, zero elsewhere."""
    return (y[:, None] == np.arange(m)).astype(float)


def exponential(eta: Outputs) -> Outputs:
    """`e^eta`, infinite beyond about 709."""
    with np.errstate(over="ignore"):
        return np.exp(eta)


def exp_less_line(t: PerRow) -> PerRow:
    """`e^t - 1 - t`, by its series near zero."""
    near = np.clip(t, -0.5, 0.5)
    series = np.ones_like(t)
    for k in range(16, 2, -1):
        series = 1.0 + near / k * series
    with np.errstate(over="ignore"):
        return np.where(np.abs(t) <= 0.5, near**2 / 2 * series, np.exp(t) - 1.0 - t)


def growth(t: PerRow, radius: PerRow) -> PerRow:
    """`e^(t + radius) - e^t`; infinite if the terms overflow."""
    with np.errstate(over="ignore"):
        return np.multiply(np.exp(t + radius), -np.expm1(-radius), out=np.zeros_like(t), where=radius > 0)


def reached(distance: PerRow, radius: PerRow, size: PerRow) -> PerRow:
    """1 if a move by `radius` can cover the distance, a difference of numbers of this `size`; else 0."""
    return ((distance <= radius + ROUNDING * size) & (radius > 0)).astype(float)


def half_a_row(w: PerRow) -> float:
    """Half the smallest nonzero weight: the weight of an empty class."""
    return 0.5 * float(np.min(w, where=w > 0, initial=np.inf))


def log_shares(totals: Float[Array, " m"], w: PerRow) -> Float[Array, " m"]:
    """Logarithms of the totals, up to a constant; finite, because an empty class counts as half a row."""
    return np.log(np.maximum(totals, half_a_row(w))) if totals.any() else np.zeros(len(totals))


class RowError(ValueError):
    """The target of a row is not valid; `row` is its number, from 0."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


def refuse(wrong: Bool[Array, " n"], y: PerRow, remedy: str) -> None:
    """Raises RowError with the first wrong row and the remedy."""
    if wrong.any():
        first = int(np.argmax(wrong))
        raise RowError(first, f"the target is {y[first]:g} in row {first} (rows count from 0); {remedy}")


def refuse_classes(y: PerRow, m: int) -> None:
    """Raises ValueError unless y holds class numbers below m."""
    wrong = ~((y >= 0) & (y < m) & (y == np.floor(y)))
    refuse(wrong, y, f"this loss takes the number of the class, 0 to {m - 1}")


def refuse_binary(y: PerRow) -> None:
    """Raises ValueError unless y holds zeros and ones."""
    refuse((y != 0) & (y != 1), y, "this loss takes two classes, 0 and 1")
