"""The lists of an inline table as arrays. Each list is converted once, when its array is first needed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import Any, TypeVar

import numpy as np

from worker.contract.data import InlineData
from worker.core.records import Array

T = TypeVar("T", int, str)
FLOAT_ROLES = ("time", "offset", "weights", "scoring")


class InlineTable:
    """The arrays of an inline table with n rows and p columns; `data` are the lists that they are made of."""

    def __init__(self, data: InlineData) -> None:
        self.data = data

    @cached_property
    def widths(self) -> Array:
        """Number of values in each row of `x`."""
        return np.fromiter(map(len, self.data.x), int, len(self.data.x))

    @cached_property
    def values(self) -> Array:
        """All values of `x`, row after row. The rows may have different lengths."""
        return np.fromiter(chain.from_iterable(self.data.x), float, int(self.widths.sum()))

    @cached_property
    def X(self) -> Array:  # noqa: N802
        """The features, n x p. Raises ValueError if the rows have different lengths."""
        if (self.widths != self.widths[0]).any():
            raise ValueError("the rows of the table have different lengths")
        return self.values.reshape(len(self.widths), -1)

    @cached_property
    def features(self) -> tuple[str, ...]:
        """Names of the columns."""
        given = self.data.features
        return tuple(given) if given is not None else tuple(f"x{j}" for j in range(len(self.data.x[0])))

    @cached_property
    def y(self) -> Array:
        """The target of each row. The target holds numbers."""
        return np.array(self.data.y, dtype=float)

    @property
    def has_names(self) -> bool:
        """Whether the target holds names."""
        return bool(self.data.y) and isinstance(self.data.y[0], str)

    @cached_property
    def roles(self) -> dict[str, Array]:
        """The roles whose values are used as they are, those that the table has: `FLOAT_ROLES` and `fold`."""
        given = [(name, getattr(self.data, name), float) for name in FLOAT_ROLES] + [("fold", self.data.fold, int)]
        return {name: np.array(values, dtype=kind) for name, values, kind in given if values is not None}

    @cached_property
    def present(self) -> Array:
        """The rows that train or are scored: all but those of weight 0. All rows if the lengths do not fit."""
        n, weights = len(self.data.x), self.roles.get("weights")
        scoring = self.roles.get("scoring", weights)
        if weights is None or scoring is None or {len(self.data.y), len(weights), len(scoring)} != {n}:
            return np.arange(len(self.data.y))
        return np.flatnonzero((weights != 0) | (scoring != 0))

    @cached_property
    def classes(self) -> tuple[tuple[str, ...], Array]:
        """Names of the classes of the present rows, and the number of the class of each of these rows."""
        if self.has_names:
            names: Any = self.data.y
            return _numbered(_chosen(names, self.present))
        values, numbers = np.unique(self.y[self.present] + 0.0, return_inverse=True)  # zero has one sign
        return tuple(class_name(value) for value in values.tolist()), numbers

    @cached_property
    def sources(self) -> tuple[tuple[str, ...], Array]:
        """Names of the sources of the present rows, and the number of the source of each of these rows."""
        return _numbered(_chosen(self.data.source or [], self.present))

    @cached_property
    def groups(self) -> Array:
        """The number of the group of each row, from 0: the caller's own numbers may exceed 64 signed bits."""
        return _numbered(self.data.groups or [])[1]


def _chosen(values: Sequence[T], rows: Array) -> Sequence[T]:
    """The values of these rows."""
    return values if len(rows) == len(values) else [values[row] for row in rows.tolist()]


def _numbered(values: Sequence[T]) -> tuple[tuple[T, ...], Array]:
    """The distinct values in ascending order, and the place of each value among them."""
    distinct = sorted(set(values))
    place_of = {value: place for place, value in enumerate(distinct)}
    return tuple(distinct), np.fromiter((place_of[value] for value in values), int, len(values))


def class_name(value: Any) -> str:
    """A value as text. Numbers have as few digits as identify them, and whole ones have no decimal point."""
    return value if isinstance(value, str) else repr(float(value)).removesuffix(".0")
