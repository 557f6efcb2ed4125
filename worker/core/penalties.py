"""Penalties `1/2 sum_j lam_j theta^T S_j theta` with one positive hyperparameter `lam_j` each.

Every member of `Penalty` says which columns a hyperparameter governs; `DiagonalPenalty` is the arithmetic that
training criteria use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt, MinLen
from jaxtyping import Float, Int

from worker.core.hyperparameters import Hyperparameters
from worker.core.records import Array

Positive = Annotated[float, Gt(0)]


@dataclass(frozen=True, slots=True)
class _Box:
    initial: Positive = 1.0
    lower: Positive = 1e-6
    upper: Positive = 1e6

    def __post_init__(self) -> None:
        if not self.lower < self.upper:
            raise ValueError(f"lower ({self.lower:g}) must be below upper ({self.upper:g})")
        if not self.lower <= self.initial <= self.upper:
            raise ValueError(
                f"initial ({self.initial:g}) must lie between lower ({self.lower:g}) and upper ({self.upper:g})"
            )

    def _hyperparameters(self, names: tuple[str, ...]) -> Hyperparameters:
        return Hyperparameters.positive(names, self.initial, self.lower, self.upper)


@dataclass(frozen=True, slots=True)
class Shared(_Box):
    """One penalty for all features, as in ordinary ridge regression."""

    kind: Literal["shared"] = "shared"

    def columns(self, features: tuple[str, ...]) -> tuple[Hyperparameters, Int[Array, " p"]]:
        """The hyperparameters, and for each feature the index of the one that governs it."""
        return self._hyperparameters(("penalty",)), np.zeros(len(features), int)


@dataclass(frozen=True, slots=True)
class PerFeature(_Box):
    """One penalty for each feature, which also selects features: an irrelevant one is driven to its upper bound."""

    kind: Literal["per_feature"] = "per_feature"

    def columns(self, features: tuple[str, ...]) -> tuple[Hyperparameters, Int[Array, " p"]]:
        """The hyperparameters, and for each feature the index of the one that governs it."""
        return self._hyperparameters(tuple(f"penalty[{name}]" for name in features)), np.arange(len(features))


@dataclass(frozen=True, slots=True, kw_only=True)
class PerGroup(_Box):
    """One penalty for each named group of features; every feature belongs to exactly one group.

    Without `groups` each column of the data is one: the features made of a categorical column share its penalty.
    """

    groups: Annotated[dict[str, tuple[str, ...]], MinLen(1)] | None = None
    kind: Literal["per_group"] = "per_group"

    def columns(self, features: tuple[str, ...]) -> tuple[Hyperparameters, Int[Array, " p"]]:
        """The hyperparameters, and for each feature the index of the one that governs it.

        Raises ValueError when a group names an unknown feature, or a feature is in no group or in two.
        """
        groups = {name: (name,) for name in features} if self.groups is None else self.groups
        position = {name: i for i, name in enumerate(features)}
        group_of: dict[str, str] = {}
        for group, members in groups.items():
            if not members:
                raise ValueError(f"group {group!r} has no features")
            for name in members:
                if name not in position:
                    raise ValueError(f"group {group!r} names the feature {name!r}, which the data does not have")
                if name in group_of:
                    raise ValueError(f"feature {name!r} is in the groups {group_of[name]!r} and {group!r}")
                group_of[name] = group
        if missing := [name for name in features if name not in group_of]:
            shown = ", ".join(repr(name) for name in missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise ValueError(f"every feature needs a group; in none: {shown}")
        order = {group: j for j, group in enumerate(groups)}
        names = tuple(f"penalty[{group}]" for group in groups)
        return self._hyperparameters(names), np.array([order[group_of[name]] for name in features])


Penalty = Shared | PerFeature | PerGroup


@dataclass(frozen=True, slots=True)
class DiagonalPenalty:
    """`S_j = diag(scale2)` on the columns that hyperparameter j governs, zero elsewhere.

    `scale2` is the squared unit of each column: the variance of the training rows when columns are standardized (so
    that the penalty applies to the scaled column), else 1. Methods take `diagonal`, the diagonal of `sum_j lam_j S_j`.
    """

    index: Int[Array, " p"]
    scale2: Float[Array, " p"]
    k: int
    one_column_each: bool
    by_hyperparameter: Int[Array, " p"]
    first: Int[Array, " k"]

    @classmethod
    def build(cls, index: Int[Array, " p"], scale2: Float[Array, " p"], k: int) -> DiagonalPenalty:
        """`index[c]` is the hyperparameter of column c; each of the `k` governs at least one column."""
        one_column_each = k == len(index) and bool((index == np.arange(k)).all())
        by_hyperparameter = np.argsort(index, kind="stable")
        return cls(
            index,
            scale2,
            k,
            one_column_each,
            by_hyperparameter,
            np.searchsorted(index[by_hyperparameter], np.arange(k)),
        )

    def diagonal(self, lam: Float[Array, " k"]) -> Float[Array, " p"]:
        """The diagonal of `sum_j lam_j S_j`."""
        return lam[self.index] * self.scale2

    def products(
        self, diagonal: Float[Array, " p"], v: Float[Array, " p"], chosen: Int[Array, " f"]
    ) -> Float[Array, "p f"]:
        """The columns `lam_j S_j v` for the chosen j, ascending."""
        columns = np.zeros((len(v), len(chosen)), order="F")
        position = np.full(self.k, -1)
        position[chosen] = np.arange(len(chosen))
        place = position[self.index]
        rows = np.flatnonzero(place >= 0)
        columns[rows, place[rows]] = (diagonal * v)[rows]
        return columns

    def contract(self, diagonal: Float[Array, " p"], uv: Float[Array, " p"]) -> Float[Array, " k"]:
        """`lam_j u^T S_j v` for each j, from the elementwise product `u * v`."""
        return np.bincount(self.index, weights=diagonal * uv, minlength=self.k)

    def contract_columns(
        self, diagonal: Float[Array, " p"], u: Float[Array, " p"], D: Float[Array, "p f"]
    ) -> Float[Array, "k f"]:
        """`lam_j u^T S_j D_l` for each j and each column of D."""
        return self.sum_columns(((diagonal * u)[:, None] * D).T).T

    def sum_columns(self, A: Float[Array, "n p"]) -> Float[Array, "n k"]:
        """Sums over the columns that each hyperparameter governs."""
        if self.one_column_each:
            return A
        return np.add.reduceat(A[:, self.by_hyperparameter], self.first, axis=1)
