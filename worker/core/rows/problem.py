"""The table of a job, how its rows are cut into blocks and splits, and how missing values are filled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from worker.core.records import Array
from worker.core.rows.bases import Expansion
from worker.core.rows.matrices import Criteria
from worker.core.rows.tables import Table


@dataclass(frozen=True, slots=True)
class Imputation:
    """How missing values (NaN) are filled in each of the `columns` of a table that have any; none is filled twice.

    A mean or median is that of the values present in a split's training rows, zero where there are none.
    """

    columns: Int[Array, " q"]
    rules: tuple[Literal["mean", "median", "constant"], ...]
    constants: Float[Array, " q"]


@dataclass(frozen=True, slots=True)
class Problem:
    """The table: `X` has one column for each name in `features`, in their order and original units.

    `X` is an array, a memory map, a sparse array, or a table that makes its rows when asked; without an `imputation`
    it has no missing values. An `expansion` replaces columns by others once they are filled. The rest
    holds one entry a row where the caller gave the role: `time` in any unit,
    `weights` non-negative and fixed, `scoring` the same for validation rows where it differs; `source`, `groups` and
    `fold` are codes from 0 on, those of `source` counting through `source_names`. Where `y` is the number of a class,
    `classes` holds their names. `offset` is a known part of the linear predictor. `criteria` are what a caller brings
    instead of a table, which has no rows then.
    """

    X: Table | csr_array
    y: Float[Array, " n"]
    features: tuple[str, ...]
    imputation: Imputation | None = None
    expansion: Expansion | None = None
    time: Float[Array, " n"] | None = None
    weights: Float[Array, " n"] | None = None
    source: Int[Array, " n"] | None = None
    source_names: tuple[str, ...] = ()
    groups: Int[Array, " n"] | None = None
    fold: Int[Array, " n"] | None = None
    scoring: Float[Array, " n"] | None = None
    offset: Float[Array, " n"] | None = None
    classes: tuple[str, ...] = ()
    criteria: Criteria | None = None

    def base_weights(self, rows: Int[Array, " m"]) -> Float[Array, " m"]:
        """The fixed weights of the rows in the training criterion: one each where there are none."""
        return np.ones(len(rows)) if self.weights is None else self.weights[rows]

    def score_weights(self, rows: Int[Array, " m"]) -> Float[Array, " m"]:
        """The weights of the rows where they are scored: those of training unless the data has others."""
        return self.base_weights(rows) if self.scoring is None else self.scoring[rows]


@dataclass(frozen=True, slots=True)
class Partition:
    """Rows cut into blocks, and splits made of blocks.

    `block_of_row[i]` is the block of row i, or -1 for a row that no split uses. A split is a pair (training blocks,
    validation blocks). Every resampling scheme is one of these, so that statistics are built once a block.
    """

    block_of_row: Int[Array, " n"]
    splits: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return 1 + max(block for split in self.splits for part in split for block in part)

    def rows(self, blocks: tuple[int, ...]) -> Int[Array, " m"]:
        """Indices of the rows in the given blocks, ascending."""
        return np.flatnonzero(np.isin(self.block_of_row, blocks))
