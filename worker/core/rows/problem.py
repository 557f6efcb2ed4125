"""The table of a job, how its rows are cut into blocks and splits, and how missing values are filled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from worker.core.records import Array
from worker.core.rows.bases import Expansion
from worker.core.rows.matrices import Criteria
from worker.core.rows.tables import Table

TRAINS, SCORED = 1, 2  # bits of the part that a row has in a split
MOST_BLOCKS_PER_SPLIT = 4  # walk-forward has a border before and after the rows that train and those that are scored
Splits = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]  # training blocks and validation blocks of each


@dataclass(frozen=True, slots=True)
class Imputation:
    """How missing values (NaN) are filled: `columns` are the columns that have any, each listed once.

    Means and medians are over the values present in a split's training rows, or zero if there are none.
    """

    columns: Int[Array, " q"]
    rules: tuple[Literal["mean", "median", "constant"], ...]
    constants: Float[Array, " q"]


@dataclass(frozen=True, slots=True)
class Problem:
    """The data of a job: `X` has one column for each name in `features`, in that order and in original units.

    `X` is an array, a memory map, a sparse array, or a table that makes its rows when they are read. It has missing
    values only with an `imputation`. An `expansion` replaces columns after they are filled. The other arrays have one
    entry per row, or are None if the caller did not give them: `time` in any unit, or in days since 1970-01-01 if
    `time_in_days`; fixed non-negative `weights`;
    `scoring`, the weights of validation rows if they differ; `source`, `groups` and `fold`, codes from 0, with
    `source` an index into `source_names`; `offset`, a known part of the linear predictor. If `y` holds class numbers,
    `classes` holds the class names. `criteria` replace the table, which then has no rows. `unexpanded` is the problem
    before an expansion replaced columns of X; None if none did. `variances` of the columns are the units of omitted
    boxes of hyperparameters, on the rows used for tuning; None without rows, or if no box needs them.
    """

    X: Table | csr_array
    y: Float[Array, " n"]
    features: Sequence[str]
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
    time_in_days: bool = False
    unexpanded: Problem | None = None
    variances: Float[Array, " p"] | None = None

    @property
    def columns(self) -> Table | csr_array:
        """The table before an expansion replaced columns: one column for each of the `features`."""
        return self.X if self.unexpanded is None else self.unexpanded.X

    def base_weights(self, rows: Int[Array, " m"]) -> Float[Array, " m"]:
        """The fixed weights of the rows in the training criterion; ones without `weights`."""
        return np.ones(len(rows)) if self.weights is None else self.weights[rows]

    def trained(self, rows: Int[Array, " m"]) -> Int[Array, " t"]:
        """The rows that train, without those of weight 0, which are scored only."""
        return rows if self.weights is None else rows[self.weights[rows] > 0]

    def score_weights(self, rows: Int[Array, " m"]) -> Float[Array, " m"]:
        """The weights of the rows when they are scored: `scoring`, or else the training weights."""
        return self.base_weights(rows) if self.scoring is None else self.scoring[rows]


@dataclass(frozen=True, slots=True)
class Partition:
    """Rows cut into blocks, and splits made of blocks.

    `block_of_row[i]` is the block of row i, or -1 for a row that no split uses. A split is a pair (training blocks,
    validation blocks). Every resampling scheme has this form, so that statistics are computed once per block.
    """

    block_of_row: Int[Array, " n"]
    splits: Splits

    @classmethod
    def whole(cls, rows: Int[Array, " m"], n: int) -> Partition:
        """One split of a table of n rows, whose given rows train and are scored."""
        block_of_row = np.full(n, -1, np.int8)
        block_of_row[rows] = 0
        return cls(block_of_row, (((0,), (0,)),))

    @property
    def used(self) -> Int[Array, " m"]:
        """Indices of the rows that splits use, ascending."""
        return np.flatnonzero(self.block_of_row >= 0)

    @classmethod
    def of_rows(cls, n: int, splits: Sequence[tuple[Int[Array, " t"], Int[Array, " v"]]]) -> Partition:
        """Splits of a table of n rows, given as training rows and validation rows, which may differ in any way.

        Rows that have the same part in every split are one block, so that there are at most n blocks.
        """
        parts = np.zeros((n, len(splits)), np.uint8)
        for split, (train, scored) in enumerate(splits):
            parts[train, split] |= TRAINS
            parts[scored, split] |= SCORED
        block_of_row, parts_of_block = _distinct(parts)
        return cls(block_of_row, _splits_of(parts_of_block))

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return 1 + max(block for split in self.splits for part in split for block in part)

    def rows(self, blocks: tuple[int, ...]) -> Int[Array, " m"]:
        """Indices of the rows in the given blocks, ascending."""
        return np.flatnonzero(np.isin(self.block_of_row, blocks))

    def only(self, split: tuple[tuple[int, ...], tuple[int, ...]]) -> Partition:
        """One of the splits, alone."""
        used = np.isin(self.block_of_row, split[0] + split[1])
        return Partition(np.where(used, self.block_of_row, -1), (split,))

    def of_few_blocks(self) -> list[Partition]:
        """The splits in their order, in partitions with few blocks each: this one, or if it has many, several.

        Repeats of K-fold cross-validation cut the rows into about as many blocks as there are rows; the K splits of one
        repeat need K blocks. Statistics of each block cost memory; each partition costs a pass over the rows.
        """
        blocks, splits = self.blocks, len(self.splits)
        if blocks <= MOST_BLOCKS_PER_SPLIT * splits:
            return [self]
        parts = np.zeros((blocks, splits), np.uint8)
        for split, (train, scored) in enumerate(self.splits):
            parts[list(train), split] |= TRAINS
            parts[list(scored), split] |= SCORED
        found, begin = list[Partition](), 0
        while begin < splits:
            end, place, of_block = begin + 1, *_distinct(parts[:, begin : begin + 1])
            while end < splits:
                wider, of_wider = _distinct(parts[:, begin : end + 1])
                if (
                    len(of_wider) > end + 1 - begin + 2
                ):  # K-fold: a block for each fold, one of the others, and the rest
                    break
                end, place, of_block = end + 1, wider, of_wider
            block_of_row = np.append(place, -1)[self.block_of_row]
            found.append(Partition(block_of_row, _splits_of(of_block)))
            begin = end
        return found


def _distinct(parts: Array) -> tuple[Array, Array]:
    """The block of each row of `parts`, -1 for one without any part, and the parts of each block.

    Blocks that the first split scores come first, then those that the second one scores, and so on.
    """
    keys = np.ascontiguousarray(parts).view(f"S{parts.shape[1]}").ravel()  # one comparison for all splits
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    of_block = parts[first[::-1]]
    block = len(first) - 1 - inverse
    if not of_block[-1].any():
        block[block == len(first) - 1] = -1
        of_block = of_block[:-1]
    return block, of_block


def _splits_of(parts_of_block: Array) -> Splits:
    return tuple(
        (tuple(np.flatnonzero(part & TRAINS).tolist()), tuple(np.flatnonzero(part & SCORED).tolist()))
        for part in parts_of_block.T
    )
