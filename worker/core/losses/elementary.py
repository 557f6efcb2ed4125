"""What losses and scores of linear predictors share: exponentials at any scale, and what they refuse."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit

from worker.core.records import Array

PerRow = Float[Array, " n"]
Column = Float[Array, "n 1"]
Outputs = Float[Array, "n m"]
SLACK = 8 * np.finfo(float).eps  # how near to a kink rounding may have put a row, relative to the sizes involved
TINY = float(np.finfo(float).tiny)


def logistic_fall(near: PerRow, far: PerRow, gap: PerRow) -> PerRow:
    """`sigma'(near) - sigma'(far)` of `0 <= near <= far = near + gap`, free of cancellation."""
    return expit(-near) * expit(far) * -np.expm1(-gap) * (np.tanh(near / 2) + np.tanh(far / 2)) / 2


def softmax_terms(eta: Outputs) -> tuple[Outputs, Outputs, PerRow]:
    """How far each predictor is behind the largest one, `exp` of minus that, and its sum without the largest one."""
    behind = eta.max(1, keepdims=True) - eta
    e = np.exp(-behind)
    others = e.copy()
    others[np.arange(len(e)), behind.argmin(1)] = 0.0
    return behind, e, others.sum(1)


def probability_change(eta: Outputs, radius: PerRow) -> Outputs:
    """Largest change of each probability when predictors move by up to `radius`, and its log-odds by twice that."""
    _, e, others = softmax_terms(eta)
    total = (1.0 + others)[:, None]
    rest = np.where(e == 1.0, others[:, None], total - e)  # of two equal largest ones: `others` is right for both
    rare = np.maximum(np.minimum(e, rest) / total, TINY)
    stay = np.exp(-2.0 * radius)[:, None]
    return rare * (1.0 - rare) * -np.expm1(-2.0 * radius)[:, None] / (rare + (1.0 - rare) * stay)


def residuals(p: Outputs, observed: Outputs) -> Outputs:
    """`p - observed`, with `1 - p` of the observed class summed from the others."""
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
    """`e^(t + radius) - e^t`, also where the terms overflow."""
    with np.errstate(over="ignore"):
        return np.multiply(np.exp(t + radius), -np.expm1(-radius), out=np.zeros_like(t), where=radius > 0)


def reached(distance: PerRow, radius: PerRow, size: PerRow) -> PerRow:
    """1 where a move by `radius` can cover the distance, a difference of numbers of this size; else 0."""
    return ((distance <= radius + SLACK * size) & (radius > 0)).astype(float)


def half_a_row(w: PerRow) -> float:
    """Half the smallest weight that is not zero: what an empty class counts for."""
    return 0.5 * float(np.min(w, where=w > 0, initial=np.inf))


def log_shares(totals: Float[Array, " m"], w: PerRow) -> Float[Array, " m"]:
    """Logarithms of the totals, up to a constant; finite."""
    return np.log(np.maximum(totals, half_a_row(w))) if totals.any() else np.zeros(len(totals))


class RowError(ValueError):
    """The target of a row does not fit; `row` is its number, from 0."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


def refuse(wrong: Bool[Array, " n"], y: PerRow, remedy: str) -> None:
    """Raises RowError that names the first wrong row and the remedy."""
    if wrong.any():
        first = int(np.argmax(wrong))
        raise RowError(first, f"the target is {y[first]:g} in row {first} (rows count from 0); {remedy}")


def refuse_classes(y: PerRow, m: int) -> None:
    """Raises ValueError unless y holds numbers of m classes."""
    wrong = ~((y >= 0) & (y < m) & (y == np.floor(y)))
    refuse(wrong, y, f"this loss takes the number of the class, 0 to {m - 1}")


def refuse_binary(y: PerRow) -> None:
    """Raises ValueError unless y holds zeros and ones."""
    refuse((y != 0) & (y != 1), y, "this loss takes two classes, 0 and 1")
