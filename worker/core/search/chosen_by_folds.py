"""The choice of a spread by nested cross-validation, and the value of its folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from worker.core.records import EQUAL_VALUES, Choice, FoldScore


def pooled(folds: Sequence[FoldScore]) -> float:
    """The mean loss over the rows of all folds that score any; NaN if there is none, or a fold's refit failed."""
    weights = np.array([fold.weight for fold in folds])
    scored = weights > 0
    return float(weights[scored] @ [fold.value for fold in folds if fold.weight > 0] / weights.sum())


def chosen_by_folds(choice: Choice, folds: Sequence[FoldScore], *, shared_too: bool) -> Choice | None:
    """The spread of the path with the smallest pooled value, the smaller one of equal values; None if none has a value.

    A spread that a fold does not have is not compared. `shared_too`: whether a shared value, the spread 0, may be
    chosen.
    """
    counted = [fold for fold in folds if fold.weight > 0]
    common = set.intersection(*({one.spread for one in fold.path} for fold in counted)) if counted else set()
    spreads = sorted(
        point.spread
        for point in choice.path
        if point.spread in common and np.isfinite(point.value) and (point.spread > 0 or shared_too)
    )
    values = {spread: pooled([fold.at(spread) for fold in counted]) for spread in spreads}
    finite = [value for value in values.values() if np.isfinite(value)]
    if not finite:
        return None
    low = min(finite)
    equal = low + EQUAL_VALUES * abs(low)
    return replace(choice, spread=next(s for s in spreads if values[s] <= equal), by="nested")
