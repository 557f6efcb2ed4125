"""Measures of classifiers as they are meant, without the smoothing that a selection loss needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from worker.core.glm.set_scores import auc, error_rate, f_measure
from worker.core.records import Array

Measures = dict[str, float]  # NaN for what the rows do not determine


@dataclass(frozen=True, slots=True)
class Pooled:
    """The classes, predictors and weights of rows, of one model or of several."""

    y: Float[Array, " v"]
    eta: Float[Array, "v m"]
    w: Float[Array, " v"]

    @classmethod
    def of_parts(cls, parts: Sequence[tuple[Array, Array, Array]]) -> Pooled:
        """The rows of several splits together."""
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def measures(self) -> Measures:
        """`error_rate`; of two classes also `auc` and `f1`, both about the second class."""
        found = {"error_rate": error_rate(self.y, self.eta, self.w)}
        if self.eta.shape[1] > 1:
            return found
        positive, total = float(self.w @ self.y), float(self.w.sum())
        found["auc"] = auc(self.y, self.eta, self.w) if 0 < positive < total else np.nan
        found["f1"] = f_measure(self.y, self.eta, self.w, 1.0)
        return {name: float(np.minimum(value, 1.0)) for name, value in found.items()}  # rounding of weights
