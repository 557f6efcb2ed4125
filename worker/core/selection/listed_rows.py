"""Settings of selection criteria that list rows. Callers count the rows that they sent, also those left out."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from worker.core.records import Array


def listed_or_column(listed: tuple[int, ...] | None, column: Array | None, n: int, names: tuple[str, str]) -> Array:
    """The listed value of each row, or the column with that role. Raises ValueError unless exactly one is given.

    `names` are those of the setting and of the role.
    """
    setting, role = names
    if listed is None and column is None:
        raise ValueError(f"give {setting} here, or name a column in the field {role} of the data")
    if listed is not None and column is not None:
        raise ValueError(f"{setting} is given here and {role} in the data; leave one of them out")
    if listed is not None and len(listed) != n:
        raise ValueError(f"{setting} has {len(listed)} entries, and the data has {n} rows")
    if listed is None:
        return np.asarray(column)
    return np.array(listed, np.int64 if max(listed) < 2**63 else object)  # never as floats, which merge integers


def entries_of(kept: Int[Array, " m"], values: tuple[int, ...] | None, n: int, setting: str) -> tuple[int, ...] | None:
    """The entries of the rows `kept` in a setting with one entry for each of `n` rows; None if it is not given.

    Raises ValueError if it has another number of entries.
    """
    if values is None:
        return None
    if len(values) != n:
        raise ValueError(f"{setting} has {len(values)} entries, and the data has {n} rows")
    return tuple(np.array(values)[kept].tolist())


def numbers_among(
    kept: Int[Array, " m"], listed: tuple[int, ...] | None, n: int, setting: str
) -> tuple[int, ...] | None:
    """The listed rows, of `n`, by their numbers among the rows `kept` (ascending); None if none are listed.

    Raises ValueError if one is not in the table, or if none is kept.
    """
    if listed is None:
        return None
    if max(listed) >= n:
        raise ValueError(f"{setting} names row {max(listed)}, and the last row is {n - 1} (rows count from 0)")
    position = np.full(n, -1)
    position[kept] = np.arange(len(kept))
    left = position[list(listed)]
    if not (left >= 0).any():
        raise ValueError(f"every row that {setting} names has weight 0")
    return tuple(left[left >= 0].tolist())
