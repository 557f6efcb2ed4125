"""The columns of a dataset by name and by pattern."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from worker.contract.dataset import Column, DatasetBody
from worker.contract.faults import Fault, suggestion
from worker.contract.patterns import Pattern, Texts
from worker.core.records import Array

MOST_SUGGESTIONS = 2  # of a request


class Names:
    """The columns of a dataset by name."""

    def __init__(self, dataset: DatasetBody) -> None:
        self.dataset = dataset
        self.dense = {column.name: i for i, column in enumerate(dataset.columns)}
        self._suggestions = MOST_SUGGESTIONS

    def position(self, name: str) -> int | None:
        """The position of a column, the sparse ones after the dense ones."""
        if name in self.dense:
            return self.dense[name]
        sparse = self.dataset.sparse
        j = sparse.index(name) if sparse else None
        return None if j is None else len(self.dense) + j

    def column(self, position: int) -> Column | None:
        """The record of a dense column."""
        return self.dataset.columns[position] if position < len(self.dense) else None

    def __len__(self) -> int:
        return len(self.dense) + (self.dataset.sparse.columns if self.dataset.sparse else 0)

    @cached_property
    def texts(self) -> Texts:
        """The names of the dense columns."""
        return Texts(list(self.dense))

    def matching(self, text: str) -> Array:
        """A mask of the columns whose names match a pattern of `*`, `?` and `[...]`."""
        pattern, sparse = Pattern(text), self.dataset.sparse
        met = np.zeros(len(self), bool)
        met[pattern.among(self.texts)] = True
        if sparse:
            met[len(self.dense) :] = pattern.numbered(sparse.prefix, sparse.first, sparse.columns)
        return met

    def unknown(self, pointer: str, name: str) -> Fault:
        """The fault of a name that no column has."""
        shown = ""
        if self._suggestions:
            self._suggestions -= 1
            shown = suggestion(name, list(self.dense))
        sparse = self.dataset.sparse
        if not shown and sparse and sparse.columns:
            shown = f"; the sparse ones are {sparse.name(0)!r} to {sparse.name(sparse.columns - 1)!r}"
        return Fault(pointer, "unknown_column", f"The dataset has no column {name[:60]!r}{shown}.")
