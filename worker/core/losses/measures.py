"""Measures of classifiers without smoothing: error rate, AUC and F measure, of one split or pooled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from worker.core.losses.elementary import Column, PerRow
from worker.core.records import Array


def auc(y: PerRow, eta: Column, w: PerRow) -> float:
    """The weighted fraction of pairs of a row of each class that the predictor ranks correctly; ties count half."""
    _, rank = np.unique(eta[:, 0], return_inverse=True)
    positive, negative = np.bincount(rank, w * y), np.bincount(rank, w * (1.0 - y))
    ordered = positive @ (np.cumsum(negative) - negative / 2)
    return float(ordered / (positive.sum() * negative.sum()))


def f_measure(y: PerRow, eta: Column, w: PerRow, beta: float) -> float:
    """`F_beta` of predicting class 1 for a positive predictor; zero if no row has or is predicted class 1."""
    predicted = w * (eta[:, 0] > 0)
    counted = beta**2 * (w @ y) + predicted.sum()
    return float((1.0 + beta**2) * (predicted @ y) / counted) if counted > 0 else 0.0


def error_rate(y: PerRow, eta: Float[Array, "n m"], w: PerRow) -> float:
    """The weighted fraction of rows whose predicted class is wrong."""
    return float(w @ (predicted_class(eta) != y) / w.sum())


def predicted_class(eta: Float[Array, "n m"]) -> Int[Array, " n"]:
    """The predicted class number of each row: 1 if its one predictor is positive, or the largest of several."""
    return (eta[:, 0] > 0).astype(int) if eta.shape[1] == 1 else eta.argmax(1)


Measures = dict[str, float]  # NaN for a measure that the rows do not determine


@dataclass(frozen=True, slots=True)
class Pooled:
    """The classes, predictors and weights of rows, from one model or from several."""

    y: Float[Array, " v"]
    eta: Float[Array, "v m"]
    w: Float[Array, " v"]

    @classmethod
    def of_parts(cls, parts: Sequence[tuple[Array, Array, Array]]) -> Pooled:
        """The rows of several splits together."""
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def measures(self) -> Measures:
        """`error_rate`; with two classes also `auc` and `f1` of class 1."""
        found = {"error_rate": error_rate(self.y, self.eta, self.w)}
        if self.eta.shape[1] > 1:
            return found
        positive, total = float(self.w @ self.y), float(self.w.sum())
        found["auc"] = auc(self.y, self.eta, self.w) if 0 < positive < total else np.nan
        found["f1"] = f_measure(self.y, self.eta, self.w, 1.0)
        return {
            name: float(np.minimum(value, 1.0)) for name, value in found.items()
        }  # rounding of weights may exceed 1
