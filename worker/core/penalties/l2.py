"""L2 penalties: one for all features, or one for each feature, group, class or coefficient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import MinLen
from jaxtyping import Int

from worker.core.hyperparameters import Box, Hyperparameters, LikeBox
from worker.core.names import places
from worker.core.penalties.forms import PenaltyForms
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class Shared(Box):
    """One penalty for all features, as in ordinary ridge regression."""

    kind: Literal["shared"] = "shared"

    names_features: ClassVar[bool] = False  # whether its settings name features

    def matrices(self, features: Sequence[str]) -> tuple[Hyperparameters, PenaltyForms]:
        """The hyperparameters and their matrices."""
        return self.hyperparameters(("penalty",)), PenaltyForms.shared(len(features))

    def matrices_of_classes(
        self, features: Sequence[str], classes: tuple[str, ...]
    ) -> tuple[Hyperparameters, PenaltyForms]:
        """The same hyperparameters for all classes; coefficients are ordered by class."""
        box, forms = self.matrices(features)
        return box, forms.repeated(len(classes))


@dataclass(frozen=True, slots=True)
class PerFeature(LikeBox):
    """One penalty for each feature. It selects features: the penalty of an irrelevant one goes to its upper bound.

    `groups` names features of a kind. Penalties of a kind differ from their own centre, and have a shared value of
    their own; features in no group are one more kind. Without it all features are of one kind.
    """

    kind: Literal["per_feature"] = "per_feature"
    groups: Annotated[dict[str, tuple[str, ...]], MinLen(1)] | None = None

    @property
    def names_features(self) -> bool:
        """Whether its settings name features."""
        return self.groups is not None

    def matrices(self, features: Sequence[str]) -> tuple[Hyperparameters, PenaltyForms]:
        """The hyperparameters and their matrices.

        Raises ValueError if a group is empty, or names an unknown feature, or one that it or another has named.
        """
        p = len(features)
        entries = np.arange(p), np.arange(p)
        box = self.hyperparameters(tuple(f"penalty[{name}]" for name in features))
        for name, members in self._kinds(features):
            box = box.alike(name, self.spread, members)
        return box, PenaltyForms.build(p, p, entries)

    def _kinds(self, features: Sequence[str]) -> list[tuple[str, Int[Array, " m"]]]:
        """A name and the ascending columns of each kind."""
        if self.groups is None:
            return [("penalty", np.arange(len(features)))]
        chosen = positions_of({f"group {name!r}": members for name, members in self.groups.items()}, features)
        columns, counts = np.unique(np.concatenate(chosen), return_counts=True)
        if counts.max() > 1:
            name = features[int(columns[int(np.argmax(counts > 1))])]
            raise ValueError(f"the feature {name!r} is in two groups: a penalty has one centre")
        kinds = [(f"penalty of {name}", np.sort(members)) for name, members in zip(self.groups, chosen, strict=True)]
        return [*kinds, ("penalty of others", np.setdiff1d(np.arange(len(features)), columns))]

    def matrices_of_classes(
        self, features: Sequence[str], classes: tuple[str, ...]
    ) -> tuple[Hyperparameters, PenaltyForms]:
        """The same hyperparameters for all classes; coefficients are ordered by class."""
        box, forms = self.matrices(features)
        return box, forms.repeated(len(classes))


@dataclass(frozen=True, slots=True)
class PerClass(LikeBox):
    """One penalty for all coefficients of each class."""

    kind: Literal["per_class"] = "per_class"

    names_features: ClassVar[bool] = False

    def matrices_of_classes(
        self, features: Sequence[str], classes: tuple[str, ...]
    ) -> tuple[Hyperparameters, PenaltyForms]:
        """The hyperparameters and their matrices; coefficients are ordered by class."""
        p, m = len(features), len(classes)
        entries = np.repeat(np.arange(m), p), np.arange(m * p)
        return self.like(tuple(f"penalty[{name}]" for name in classes)), PenaltyForms.build(m, m * p, entries)


@dataclass(frozen=True, slots=True)
class PerCoefficient(LikeBox):
    """One penalty for each feature and class, so one for each coefficient."""

    kind: Literal["per_coefficient"] = "per_coefficient"

    names_features: ClassVar[bool] = False

    def matrices_of_classes(
        self, features: Sequence[str], classes: tuple[str, ...]
    ) -> tuple[Hyperparameters, PenaltyForms]:
        """The hyperparameters and their matrices; coefficients are ordered by class."""
        k = len(features) * len(classes)
        names = tuple(f"penalty[{feature}, {name}]" for name in classes for feature in features)
        return self.like(names), PenaltyForms.build(k, k, (np.arange(k), np.arange(k)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PerGroup(LikeBox):
    """One penalty for each named group of features. Groups may overlap: their penalties then add up.

    Without `groups` each column of the data is a group: the features made from a categorical column share a penalty.
    """

    groups: Annotated[dict[str, tuple[str, ...]], MinLen(1)] | None = None
    kind: Literal["per_group"] = "per_group"

    names_features: ClassVar[bool] = True

    def matrices(self, features: Sequence[str]) -> tuple[Hyperparameters, PenaltyForms]:
        """The hyperparameters and their matrices.

        Raises ValueError if a group is empty, or names an unknown feature or one twice, or if a feature is in no group.
        """
        groups = {name: (name,) for name in features} if self.groups is None else self.groups
        chosen = positions_of({f"group {group!r}": members for group, members in groups.items()}, features)
        columns = np.concatenate(chosen)
        covered = np.zeros(len(features), bool)
        covered[columns] = True
        if not covered.all():
            missing = np.flatnonzero(~covered)
            shown = ", ".join(repr(features[i]) for i in missing[:5].tolist()) + (", ..." if len(missing) > 5 else "")
            raise ValueError(f"every feature needs a group; in none: {shown}")
        names = tuple(f"penalty[{group}]" for group in groups)
        entries = np.repeat(np.arange(len(groups)), [len(members) for members in chosen]), columns
        return self.like(names), PenaltyForms.build(len(names), len(features), entries)

    def matrices_of_classes(
        self, features: Sequence[str], classes: tuple[str, ...]
    ) -> tuple[Hyperparameters, PenaltyForms]:
        """The same hyperparameters for all classes; coefficients are ordered by class."""
        box, forms = self.matrices(features)
        return box, forms.repeated(len(classes))


def positions_of(members_of: Mapping[str, Sequence[str]], features: Sequence[str]) -> list[Int[Array, " m"]]:
    """Columns of the named features of each owner. Raises ValueError if there is none, or one is unknown or twice."""
    for owner, members in members_of.items():
        if not members:
            raise ValueError(f"{owner} has no features")
        if len(set(members)) < len(members):
            twice = next(name for name, count in Counter(members).items() if count > 1)
            raise ValueError(f"{owner} names the feature {twice!r} twice")
    every = [name for members in members_of.values() for name in members]
    columns = np.split(places(features, every), np.cumsum([len(members) for members in members_of.values()])[:-1])
    for (owner, members), chosen in zip(members_of.items(), columns, strict=True):
        if (chosen < 0).any():
            name = members[int(np.argmax(chosen < 0))]
            raise ValueError(f"{owner} names the feature {name!r}, which the data does not have")
    return columns
