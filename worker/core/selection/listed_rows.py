"""Settings of selection criteria that list rows, when rows are left out: callers count the rows that they sent."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
from jaxtyping import Int

from worker.core.records import Array
from worker.core.rows.problem import Problem
from worker.core.selection import GivenFolds, Selection


def renumbered(selection: Selection, kept: Int[Array, " m"], problem: Problem) -> Selection:
    """The criterion for the rows `kept` (ascending) of the problem, which are numbered from 0 again.

    Raises ValueError if a setting does not fit the rows of the problem, or lists only rows that are left out.
    """
    n, changed = len(problem.y), dict[str, Any]()
    for field in fields(selection):
        value = getattr(selection, field.name)
        if field.name.endswith("_of_row") and value is not None:
            if len(value) != n:
                raise ValueError(f"{field.name} has {len(value)} entries, and the data has {n} rows")
            changed[field.name] = tuple(np.array(value)[kept].tolist())
    if (listed := getattr(selection, "validation_rows", None)) is not None:
        if max(listed) >= n:
            raise ValueError(
                f"validation_rows names row {max(listed)}, and the last row is {n - 1} (rows count from 0)"
            )
        position = np.full(n, -1)
        position[kept] = np.arange(len(kept))
        left = position[list(listed)]
        if not (left >= 0).any():
            raise ValueError("every row that validation_rows names has weight 0")
        changed["validation_rows"] = tuple(left[left >= 0].tolist())
    if isinstance(selection, GivenFolds):
        fold_of_row = problem.fold if selection.fold_of_row is None else np.array(selection.fold_of_row)
        if fold_of_row is not None and len(lost := np.setdiff1d(fold_of_row, fold_of_row[kept])):
            raise ValueError(
                f"every row of fold {lost[0]} has weight 0; leave these rows out, and number the other folds 0, 1, 2, "
                "... without gaps"
            )
    return replace(selection, **changed) if changed else selection
