"""What resampled selection criteria share: the types of their settings, blocks of rows and splits of folds."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge, Le, Lt

from worker.core.records import Array
from worker.core.rows.problem import Splits

MAX_FOLDS = 1000  # each split lists its folds: memory grows with the square of this
ENOUGH_ROWS = 100_000  # rows that stand for any larger number of them where splits are counted
Seed = Annotated[int, Ge(0), Lt(2**63)]
Row = Annotated[int, Ge(0), Lt(2**53)]
Group = Annotated[int, Ge(-(2**63)), Le(2**64 - 1)]
Fold = Annotated[int, Ge(0), Lt(MAX_FOLDS)]


def unassigned_blocks(n: int) -> Array:
    """The block of each of `n` rows, -1 for none yet; two bytes a row, for tables of many rows."""
    return np.full(n, -1, np.int16)


def leave_one_fold_out(folds: int) -> Splits:
    """A split for each fold, which is scored; the others train."""
    all_folds = range(folds)
    return tuple((tuple(f for f in all_folds if f != fold), (fold,)) for fold in all_folds)
