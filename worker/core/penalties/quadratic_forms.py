"""Penalties that are quadratic forms of the coefficients: differences, matrices, bands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Le, MinLen
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from worker.core.family import ByKind
from worker.core.hyperparameters import Hyperparameters, LikeBox
from worker.core.penalties.forms import Block, PenaltyForms
from worker.core.penalties.l2 import positions_of
from worker.core.records import Array
from worker.core.rows.tables import LARGEST_MAGNITUDE

MAX_ASYMMETRY = 1e-10  # relative to the largest entry; smaller asymmetries are rounding before the matrix arrived


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form(ABC):
    name: str
    features: tuple[str, ...] | None = None

    """Without `features` it is of all of them."""

    @abstractmethod
    def parts(self, j: int, columns: Int[Array, " m"]) -> tuple[Int[Array, " d"], tuple[Block, ...]]:
        """The matrix as form j: the columns in which its diagonal is 1, and the rest. Raises ValueError if it misfits.

        The diagonal of the columns, or one block.
        """


class _FormOfBlock(_Form, ABC):
    """A form that is no diagonal matrix."""

    __slots__ = ()

    def parts(self, j: int, columns: Int[Array, " m"]) -> tuple[Int[Array, " d"], tuple[Block, ...]]:
        """One block."""
        return columns[:0], (self.block(j, columns),)

    @abstractmethod
    def block(self, j: int, columns: Int[Array, " m"]) -> Block:
        """The matrix as form j on these columns. Raises ValueError if it does not fit them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity(_Form):
    """The sum of squares of the coefficients of the named features: an ordinary ridge penalty on them."""

    kind: Literal["identity"] = "identity"

    def parts(self, j: int, columns: Int[Array, " m"]) -> tuple[Int[Array, " d"], tuple[Block, ...]]:
        """The diagonal of the columns."""
        return columns, ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference(_FormOfBlock):
    """The sum of squared differences of neighbouring coefficients, in the given order (Eilers and Marx 1996).

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
        root, rank = differences_of(m, self.order, cyclic=self.cyclic)
        factor = csr_array(root)  # of small integers, so that the product is exact
        return Block(j, columns, (factor.T @ factor).toarray(), root, rank)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix(_FormOfBlock):
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
class Banded(_FormOfBlock):
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
class QuadraticForms(LikeBox):
    """One penalty for each quadratic form of the coefficients; forms may overlap and need not cover all of them."""

    forms: Annotated[tuple[Annotated[Form, ByKind()], ...], MinLen(1)]
    kind: Literal["quadratic_forms"] = "quadratic_forms"

    names_features: ClassVar[bool] = True

    def matrices(self, features: Sequence[str]) -> tuple[Hyperparameters, PenaltyForms]:
        """The hyperparameters and their matrices.

        Raises ValueError when a form does not fit its features, is not semidefinite, or has the name of another.
        """
        columns_of_forms = self._columns(features)
        parts = [
            form.parts(j, columns) for j, (form, columns) in enumerate(zip(self.forms, columns_of_forms, strict=True))
        ]
        ones = [diagonal for diagonal, _ in parts]
        blocks = [block for _, rest in parts for block in rest]
        names = tuple(f"penalty[{form.name}]" for form in self.forms)
        pairs = np.repeat(np.arange(len(parts)), list(map(len, ones))), np.concatenate(ones)
        box = self.hyperparameters(names)
        kinds = [form.kind for form in self.forms]
        for kind in dict.fromkeys(kinds):  # forms of one kind are alike
            members = np.flatnonzero([one == kind for one in kinds])
            box = box.alike(f"penalty[{kind}]", self.spread, members)
        return box, PenaltyForms.build(len(names), len(features), pairs, blocks)

    def matrices_of_classes(
        self, features: Sequence[str], classes: tuple[str, ...]
    ) -> tuple[Hyperparameters, PenaltyForms]:
        """The same hyperparameters for all classes; coefficients are ordered by class."""
        box, forms = self.matrices(features)
        return box, forms.repeated(len(classes))

    def _columns(self, features: Sequence[str]) -> list[Int[Array, " m"]]:
        """The columns of each form. Raises ValueError as `matrices`."""
        twice = [name for name, count in Counter(form.name for form in self.forms).items() if count > 1]
        if twice:
            raise ValueError(f"two forms have the name {twice[0]!r}")
        for form in self.forms:
            if form.features is None and not len(features):
                raise ValueError(f"form {form.name!r} has no features")
        listed = {f"form {form.name!r}": form.features for form in self.forms if form.features is not None}
        found = iter(positions_of(listed, features) if listed else ())
        return [np.arange(len(features)) if form.features is None else next(found) for form in self.forms]


def differences_of(m: int, order: int, *, cyclic: bool) -> tuple[Float[Array, "r m"], int]:
    """The matrix D of differences of the given order for m neighbours, and its rank."""
    D = np.eye(m)
    for _ in range(order):
        D = np.roll(D, -1, axis=0) - D if cyclic else np.diff(D, axis=0)
    return D, m - (1 if cyclic else order)


def semidefinite(what: str, S: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """The symmetric part of S. Raises ValueError if S is not symmetric or has a negative eigenvalue."""
    size = np.abs(S).max()
    if size == 0:
        raise ValueError(f"{what} is zero")
    if size > LARGEST_MAGNITUDE:
        raise ValueError(f"{what} has entries up to {size:g}, which overflow; rescale it")
    if np.abs(S - S.T).max() > MAX_ASYMMETRY * size:
        i, j = np.unravel_index(np.argmax(np.abs(S - S.T)), S.shape)
        raise ValueError(f"{what} is not symmetric: entries ({i}, {j}) and ({j}, {i}) differ")
    S = (S + S.T) / 2
    smallest = float(np.linalg.eigvalsh(S)[0])
    if smallest < -MAX_ASYMMETRY * size * len(S):
        raise ValueError(f"{what} is not positive semidefinite: its smallest eigenvalue is {smallest:g}")
    return S
