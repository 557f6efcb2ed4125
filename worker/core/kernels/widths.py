"""Widths of kernels: one for all features, one for each (automatic relevance determination), or one for each group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import MinLen
from jaxtyping import Float, Int

from worker.core.hyperparameters import Box, Hyperparameters, Spread, units_of
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class _Widths(Box):
    """The box of widths. Given numbers are natural units, those of the (standardized) features.

    Omitted ones (null) are scale-free: the root of the number of features, 1e-2 and 1e4 in units of the standard
    deviation of the features. That is 1 where features are standardized.
    """

    defaults: ClassVar[tuple[float, float, float]] = (1.0, 1e-2, 1e4)

    def grouped(
        self, names: tuple[str, ...], of_feature: Int[Array, " p"], variances: Float[Array, " p"] | None
    ) -> Grouped:
        """Widths of these names, in units of the features if their variances are known."""
        k = len(names)
        units = np.ones(k) if variances is None else np.sqrt(units_of(of_feature, k, variances))
        box = self.in_units(self.hyperparameters(names), units, float(np.sqrt(len(of_feature))))
        return Grouped(box, of_feature)


@dataclass(frozen=True, slots=True)
class _LikeWidths(_Widths):
    """`spread`: how far widths may differ, by a hyper-prior on their logarithms; see penalties."""

    spread: Spread = "auto"

    def like(
        self, names: tuple[str, ...], of_feature: Int[Array, " p"], variances: Float[Array, " p"] | None
    ) -> Grouped:
        """Like widths of these names, in units of the features if their variances are known."""
        grouped = self.grouped(names, of_feature, variances)
        return replace(grouped, box=grouped.box.alike("width", self.spread))


@dataclass(frozen=True, slots=True)
class SharedWidth(_Widths):
    """One width for all features: distances are the same in every direction."""

    kind: Literal["shared"] = "shared"

    def over(self, features: Sequence[str], variances: Float[Array, " p"] | None = None) -> Grouped:
        """The widths of these features, in units of their variances if these are known."""
        return self.grouped(("width",), np.zeros(len(features), int), variances)


@dataclass(frozen=True, slots=True)
class WidthPerFeature(_LikeWidths):
    """One width for each feature: the width of an irrelevant feature is driven to its upper bound."""

    kind: Literal["per_feature"] = "per_feature"

    def over(self, features: Sequence[str], variances: Float[Array, " p"] | None = None) -> Grouped:
        """The widths of these features, in units of their variances if these are known."""
        names = tuple(f"width[{name}]" for name in features)
        return self.like(names, np.arange(len(features)), variances)


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthPerGroup(_LikeWidths):
    """One width for each named group of features; each feature is in exactly one."""

    groups: Annotated[dict[str, tuple[str, ...]], MinLen(1)]
    kind: Literal["per_group"] = "per_group"

    def over(self, features: Sequence[str], variances: Float[Array, " p"] | None = None) -> Grouped:
        """The widths of these features, in units of their variances if these are known.

        Raises ValueError unless each feature is in exactly one group.
        """
        of_feature: dict[str, int] = {}
        known = frozenset(features) if isinstance(features, tuple) else features
        for j, (group, members) in enumerate(self.groups.items()):
            if not members:
                raise ValueError(f"group {group!r} has no features")
            for name in members:
                if name not in known:
                    raise ValueError(f"group {group!r} names the feature {name!r}, which the kernel does not have")
                if name in of_feature:
                    raise ValueError(f"the feature {name!r} is in two groups of widths, and has one width")
                of_feature[name] = j
        if len(of_feature) < len(features):
            missing = islice((name for name in features if name not in of_feature), 5)
            raise ValueError(f"every feature needs a width; in no group: {', '.join(map(repr, missing))}")
        names = tuple(f"width[{group}]" for group in self.groups)
        return self.like(names, np.array([of_feature[name] for name in features]), variances)


Widths = SharedWidth | WidthPerFeature | WidthPerGroup


@dataclass(frozen=True, slots=True)
class Grouped:
    """The box of the widths, and which width each feature has."""

    box: Hyperparameters
    of_feature: Int[Array, " p"]

    def inverse(self, widths: Float[Array, " k"]) -> Float[Array, " p"]:
        """The factor of each feature: one over its width."""
        return 1.0 / widths[self.of_feature]

    def sums(self, by_feature: Float[Array, " p"]) -> Float[Array, " k"]:
        """Sums over the features of each width."""
        return np.bincount(self.of_feature, by_feature, minlength=len(self.box.names))

    def sums_of_rows(self, by_feature: Float[Array, "n p"]) -> Float[Array, "n k"]:
        """The same of each row; every width has a feature."""
        order = np.argsort(self.of_feature, kind="stable")
        begins = np.searchsorted(self.of_feature[order], np.arange(len(self.box.names)))
        return np.add.reduceat(by_feature[:, order], begins, axis=1)
