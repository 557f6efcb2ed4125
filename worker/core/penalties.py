"""Penalties `1/2 sum_j lam_j theta^T S_j theta` with one positive hyperparameter `lam_j` each.

Every member of `Penalty` names its hyperparameters and gives the matrices S_j as `PenaltyForms`, the arithmetic that
training criteria use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Le, MinLen
from jaxtyping import Float, Int

from worker.core.family import ByKind
from worker.core.forms import Block, PenaltyForms
from worker.core.hyperparameters import Hyperparameters
from worker.core.records import Array
from worker.core.tables import LARGEST

ASYMMETRY = 1e-10  # relative to the largest entry: what rounding on its way here may have done to a matrix

Positive = Annotated[float, Gt(0)]


@dataclass(frozen=True, slots=True)
class Box:
    """The box and the initial value of hyperparameters that are positive."""

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

    def hyperparameters(self, names: tuple[str, ...]) -> Hyperparameters:
        """Hyperparameters of these names in the box."""
        return Hyperparameters.positive(names, self.initial, self.lower, self.upper)


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
    """One penalty for each feature, which also selects features: an irrelevant one is driven to its upper bound."""

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
        """The hyperparameters and their matrices, of the coefficients of one class after the other."""
        p, m = len(features), len(classes)
        entries = np.repeat(np.arange(m), p), np.arange(m * p)
        return self.hyperparameters(tuple(f"penalty[{name}]" for name in classes)), PenaltyForms.build(
            m, m * p, entries
        )


@dataclass(frozen=True, slots=True)
class PerCoefficient(Box):
    """One penalty for each feature and class, that is for each single coefficient."""

    kind: Literal["per_coefficient"] = "per_coefficient"

    def matrices_of_classes(
        self, features: tuple[str, ...], classes: tuple[str, ...]
    ) -> tuple[Hyperparameters, PenaltyForms]:
        """The hyperparameters and their matrices, of the coefficients of one class after the other."""
        k = len(features) * len(classes)
        names = tuple(f"penalty[{feature}, {name}]" for name in classes for feature in features)
        return self.hyperparameters(names), PenaltyForms.build(k, k, (np.arange(k), np.arange(k)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PerGroup(Box):
    """One penalty for each named group of features. Groups may overlap: their penalties then add up.

    Without `groups` each column of the data is one: the features made of a categorical column share its penalty.
    """

    groups: Annotated[dict[str, tuple[str, ...]], MinLen(1)] | None = None
    kind: Literal["per_group"] = "per_group"

    def matrices(self, features: tuple[str, ...]) -> tuple[Hyperparameters, PenaltyForms]:
        """The hyperparameters and their matrices.

        Raises ValueError when a group is empty or names an unknown feature or one twice, or a feature is in no group.
        """
        groups = {name: (name,) for name in features} if self.groups is None else self.groups
        position = {name: i for i, name in enumerate(features)}
        rows, columns = [], []
        for j, (group, members) in enumerate(groups.items()):
            chosen = _positions(f"group {group!r}", members, position)
            rows += [j] * len(chosen)
            columns += chosen
        covered = set(columns)
        if missing := [name for i, name in enumerate(features) if i not in covered]:
            shown = ", ".join(repr(name) for name in missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise ValueError(f"every feature needs a group; in none: {shown}")
        names = tuple(f"penalty[{group}]" for group in groups)
        entries = np.array(rows), np.array(columns)
        return self.hyperparameters(names), PenaltyForms.build(len(names), len(features), entries)


def _positions(owner: str, members: tuple[str, ...], position: dict[str, int]) -> list[int]:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    name: str
    features: tuple[str, ...] | None = None

    def columns(self, features: tuple[str, ...]) -> list[int]:
        """The columns that the form is about: all of them when `features` is null."""
        position = {name: i for i, name in enumerate(features)}
        return _positions(f"form {self.name!r}", features if self.features is None else self.features, position)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity(_Form):
    """The sum of squares of the coefficients of the named features: an ordinary ridge penalty on them."""

    kind: Literal["identity"] = "identity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference(_Form):
    """The sum of squared differences of coefficients of neighbours in the given order (Eilers and Marx 1996).

    Order 1 pulls neighbours together, 2 towards a line, 3 towards a parabola. `cyclic`: the last is next to the first.
    """

    order: Annotated[int, Ge(1), Le(3)] = 1
    cyclic: bool = False
    kind: Literal["difference"] = "difference"

    def block(self, j: int, columns: Int[Array, " m"]) -> Block:
        """`D^T D` of m coefficients. Raises ValueError when there are too few."""
        m = len(columns)
        if m <= self.order:
            raise ValueError(f"form {self.name!r} takes differences of order {self.order} of {m} features; too few")
        return Block.of_root(j, columns, *differences_of(m, self.order, cyclic=self.cyclic))


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix(_Form):
    """Any symmetric positive semidefinite matrix, dense, one row for each of the named features."""

    matrix: tuple[tuple[float, ...], ...]
    kind: Literal["matrix"] = "matrix"

    def block(self, j: int, columns: Int[Array, " m"]) -> Block:
        """The matrix. Raises ValueError when its shape is wrong or it is not symmetric or not semidefinite."""
        m = len(columns)
        if len(self.matrix) != m or any(len(row) != m for row in self.matrix):
            raise ValueError(f"the matrix of form {self.name!r} must be {m} x {m}, one row for each of its features")
        return Block.of_matrix(j, columns, semidefinite(f"the matrix of form {self.name!r}", np.array(self.matrix)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Banded(_Form):
    """A symmetric positive semidefinite band matrix: `bands[0]` is its diagonal, `bands[d]` the d-th below it."""

    bands: Annotated[tuple[tuple[float, ...], ...], MinLen(1)]
    kind: Literal["banded"] = "banded"

    def block(self, j: int, columns: Int[Array, " m"]) -> Block:
        """The matrix. Raises ValueError when a band has the wrong length or the matrix is not semidefinite."""
        m = len(columns)
        S = np.zeros((m, m))
        for d, band in enumerate(self.bands):
            if len(band) != m - d:
                raise ValueError(f"band {d} of form {self.name!r} needs {max(m - d, 0)} values, and has {len(band)}")
            S += np.diag(band, -d) + (np.diag(band, d) if d else 0.0)
        return Block.of_matrix(j, columns, semidefinite(f"the matrix of form {self.name!r}", S))


Form = Identity | Difference | Matrix | Banded


@dataclass(frozen=True, slots=True, kw_only=True)
class QuadraticForms(Box):
    """One penalty for each of any quadratic forms of the coefficients; forms may overlap and need not cover all."""

    forms: Annotated[tuple[Annotated[Form, ByKind()], ...], MinLen(1)]
    kind: Literal["quadratic_forms"] = "quadratic_forms"

    def matrices(self, features: tuple[str, ...]) -> tuple[Hyperparameters, PenaltyForms]:
        """The hyperparameters and their matrices.

        Raises ValueError when a form does not fit its features, is not semidefinite, or has the name of another.
        """
        entries: tuple[list[int], list[int]] = ([], [])
        blocks = []
        for j, form in enumerate(self.forms):
            if form.name in {other.name for other in self.forms[:j]}:
                raise ValueError(f"two forms have the name {form.name!r}")
            columns = form.columns(features)
            if isinstance(form, Identity):
                entries[0].extend([j] * len(columns))
                entries[1].extend(columns)
            else:
                blocks.append(form.block(j, np.array(columns)))
        names = tuple(f"penalty[{form.name}]" for form in self.forms)
        pairs = np.array(entries[0], int), np.array(entries[1], int)
        return self.hyperparameters(names), PenaltyForms.build(len(names), len(features), pairs, blocks)


def differences_of(m: int, order: int, *, cyclic: bool) -> tuple[Float[Array, "r m"], int]:
    """The matrix D of differences of the given order of m neighbours, and its rank."""
    D = np.eye(m)
    for _ in range(order):
        D = np.roll(D, -1, axis=0) - D if cyclic else np.diff(D, axis=0)
    return D, m - (1 if cyclic else order)


def semidefinite(what: str, S: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """The symmetric part of S. Raises ValueError if S is not symmetric or has a negative eigenvalue."""
    size = np.abs(S).max()
    if size == 0:
        raise ValueError(f"{what} is zero")
    if size > LARGEST:
        raise ValueError(f"{what} has entries up to {size:g}, which overflow; rescale it")
    if np.abs(S - S.T).max() > ASYMMETRY * size:
        i, j = np.unravel_index(np.argmax(np.abs(S - S.T)), S.shape)
        raise ValueError(f"{what} is not symmetric: entries ({i}, {j}) and ({j}, {i}) differ")
    S = (S + S.T) / 2
    smallest = float(np.linalg.eigvalsh(S)[0])
    if smallest < -ASYMMETRY * size * len(S):
        raise ValueError(f"{what} is not positive semidefinite: its smallest eigenvalue is {smallest:g}")
    return S


Penalty = Shared | PerFeature | PerGroup | QuadraticForms
ClassPenalty = Penalty | PerClass | PerCoefficient
