"""L2 penalties: one for all features, or one for each feature, group, class or coefficient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import MinLen

from worker.core.hyperparameters import Box, Hyperparameters
from worker.core.penalties.forms import PenaltyForms


@dataclass(frozen=True, slots=True)
class Shared(Box):
    """One penalty for all features, as in ordinary ridge regression."""

    kind: Literal["shared"] = "shared"

    def matrices(self, features: tuple[str, ...]) -> tuple[Hyperparameters, PenaltyForms]:
        """The hyperparameters and their matrices."""
        p = len(features)
        entries = np.zeros(p, int), np.arange(p)
        return self.hyperparameters(("penalty",)), PenaltyForms.build(1, p, entries)


@dataclass(frozen=True, slots=True)
class PerFeature(Box):
    """One penalty for each feature. It selects features: the penalty of an irrelevant one goes to its upper bound."""

    kind: Literal["per_feature"] = "per_feature"

    def matrices(self, features: tuple[str, ...]) -> tuple[Hyperparameters, PenaltyForms]:
        """The hyperparameters and their matrices."""
        p = len(features)
        entries = np.arange(p), np.arange(p)
        names = tuple(f"penalty[{name}]" for name in features)
        return self.hyperparameters(names), PenaltyForms.build(p, p, entries)


@dataclass(frozen=True, slots=True)
class PerClass(Box):
    """One penalty for all coefficients of each class."""

    kind: Literal["per_class"] = "per_class"

    def matrices_of_classes(
        self, features: tuple[str, ...], classes: tuple[str, ...]
    ) -> tuple[Hyperparameters, PenaltyForms]:
        """The hyperparameters and their matrices; coefficients are ordered by class."""
        p, m = len(features), len(classes)
        entries = np.repeat(np.arange(m), p), np.arange(m * p)
        return self.hyperparameters(tuple(f"penalty[{name}]" for name in classes)), PenaltyForms.build(
            m, m * p, entries
        )


@dataclass(frozen=True, slots=True)
class PerCoefficient(Box):
    """One penalty for each feature and class, so one for each coefficient."""

    kind: Literal["per_coefficient"] = "per_coefficient"

    def matrices_of_classes(
        self, features: tuple[str, ...], classes: tuple[str, ...]
    ) -> tuple[Hyperparameters, PenaltyForms]:
        """The hyperparameters and their matrices; coefficients are ordered by class."""
        k = len(features) * len(classes)
        names = tuple(f"penalty[{feature}, {name}]" for name in classes for feature in features)
        return self.hyperparameters(names), PenaltyForms.build(k, k, (np.arange(k), np.arange(k)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PerGroup(Box):
    """One penalty for each named group of features. Groups may overlap: their penalties then add up.

    Without `groups` each column of the data is a group: the features made from a categorical column share a penalty.
    """

    groups: Annotated[dict[str, tuple[str, ...]], MinLen(1)] | None = None
    kind: Literal["per_group"] = "per_group"

    def matrices(self, features: tuple[str, ...]) -> tuple[Hyperparameters, PenaltyForms]:
        """The hyperparameters and their matrices.

        Raises ValueError if a group is empty, or names an unknown feature or one twice, or if a feature is in no group.
        """
        groups = {name: (name,) for name in features} if self.groups is None else self.groups
        position = {name: i for i, name in enumerate(features)}
        rows, columns = [], []
        for j, (group, members) in enumerate(groups.items()):
            chosen = positions_of(f"group {group!r}", members, position)
            rows += [j] * len(chosen)
            columns += chosen
        covered = set(columns)
        if missing := [name for i, name in enumerate(features) if i not in covered]:
            shown = ", ".join(repr(name) for name in missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise ValueError(f"every feature needs a group; in none: {shown}")
        names = tuple(f"penalty[{group}]" for group in groups)
        entries = np.array(rows), np.array(columns)
        return self.hyperparameters(names), PenaltyForms.build(len(names), len(features), entries)


def positions_of(owner: str, members: tuple[str, ...], position: dict[str, int]) -> list[int]:
    """Columns of the named features."""
    if not members:
        raise ValueError(f"{owner} has no features")
    if len(set(members)) < len(members):
        twice = next(name for i, name in enumerate(members) if name in members[:i])
        raise ValueError(f"{owner} names the feature {twice!r} twice")
    for name in members:
        if name not in position:
            raise ValueError(f"{owner} names the feature {name!r}, which the data does not have")
    return [position[name] for name in members]
