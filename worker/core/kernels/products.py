"""Kernels of the scaled inner product `g = sum_j x_j z_j / width_j^2`, of features minus their training means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Le
from jaxtyping import Float, Int

from worker.core.family import ByKind
from worker.core.hyperparameters import Box, Hyperparameters, Positive, units_of
from worker.core.kernels.function import Evaluated, KernelFunction, columns_of
from worker.core.kernels.points import Points
from worker.core.kernels.widths import Grouped, SharedWidth, Widths
from worker.core.records import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """`sum_j x_j z_j`, or with widths `sum_j x_j z_j / width_j^2`: linear models with a penalty for each width.

    There are no `widths` by default: one width for all features has the same effect as the penalty.
    """

    features: tuple[str, ...] | None = None
    name: str | None = None
    widths: Annotated[Widths, ByKind(named=True)] | None = None
    kind: Literal["linear"] = "linear"

    def over(self, features: Sequence[str], variances: Float[Array, " p"] | None = None) -> ProductFunction:
        """The kernel of rows with these features. Raises ValueError when it does not fit them."""
        columns = columns_of(self.features, features)
        own = None if variances is None else variances[columns]
        if self.widths is not None:
            widths = self.widths.over(features if self.features is None else self.features, own)
            return ProductFunction(widths.box, columns, widths, 1, has_constant=False)
        none = Hyperparameters.positive((), 1.0, 0.5, 2.0)
        unit = 1.0 if own is None else float(units_of(np.zeros(len(own), int), 1, own)[0])
        return ProductFunction(none, columns, None, 1, has_constant=False, unit=unit)


@dataclass(frozen=True, slots=True)
class Constant(Box):
    """The box of the constant of a polynomial kernel."""

    initial: Positive = 1.0
    lower: Positive = 1e-4
    upper: Positive = 1e4


@dataclass(frozen=True, slots=True, kw_only=True)
class Polynomial:
    """`(constant + sum_j x_j z_j / width_j^2)^degree` with a tuned constant."""

    features: tuple[str, ...] | None = None
    name: str | None = None
    degree: Annotated[int, Ge(2), Le(10)] = 2
    constant: Constant = Constant()
    widths: Annotated[Widths, ByKind(named=True)] = SharedWidth()  # noqa: RUF009 - frozen
    kind: Literal["polynomial"] = "polynomial"

    def over(self, features: Sequence[str], variances: Float[Array, " p"] | None = None) -> ProductFunction:
        """The kernel of rows with these features. Raises ValueError when it does not fit them."""
        columns = columns_of(self.features, features)
        own = None if variances is None else variances[columns]
        widths = self.widths.over(features if self.features is None else self.features, own)
        box = widths.box + self.constant.hyperparameters(("constant",))
        return ProductFunction(box, columns, widths, self.degree, has_constant=True)


@dataclass(frozen=True, slots=True)
class ProductFunction(KernelFunction):
    """A power of an inner product of given columns."""

    columns: Int[Array, " q"]
    widths: Grouped | None
    degree: int
    has_constant: bool

    def at(self, X: Points, Z: Points, lam: Float[Array, " k"]) -> Evaluated:
        """The kernel of each pair."""
        A, B, constant = self._scaled(X, lam), self._scaled(Z, lam), float(lam[-1]) if self.has_constant else 0.0
        base = A @ B.T
        base += constant
        K = base if self.degree == 1 else base**self.degree

        def contract(K_bar: Float[Array, "n m"]) -> Float[Array, " k"]:
            M = K_bar if self.degree == 1 else self.degree * base ** (self.degree - 1) * K_bar
            of_widths = np.empty(0) if self.widths is None else self.widths.sums(-2.0 * np.einsum("ij,ij->j", A, M @ B))
            return np.append(of_widths, constant * M.sum()) if self.has_constant else of_widths

        def products(c: Float[Array, " m"], F: Float[Array, "n m"] | None) -> Float[Array, "n k"]:
            M = np.ones_like(base) if self.degree == 1 else self.degree * base ** (self.degree - 1)
            if F is not None:
                M = M * F
            found = np.empty((len(A), 0))
            if self.widths is not None:
                found = self.widths.sums_of_rows(-2.0 * A * (M @ (c[:, None] * B)))
            return np.column_stack([found, constant * (M @ c)]) if self.has_constant else found

        def of_outer(a: Float[Array, " n"], c: Float[Array, " m"]) -> Float[Array, " k"]:
            scaled = c[:, None] * B
            if self.degree == 1:
                return np.empty(0) if self.widths is None else self.widths.sums(-2.0 * (a @ A) * scaled.sum(0))
            M = self.degree * base ** (self.degree - 1)
            forms = np.einsum("i,ij,ij->j", a, A, M @ scaled)
            assert self.widths is not None
            return np.append(self.widths.sums(-2.0 * forms), constant * (a @ M @ c))

        return Evaluated(K, contract, products, of_outer)

    def diagonal(self, X: Points, lam: Float[Array, " k"]) -> Float[Array, " n"]:
        """`k(x, x)`."""
        A = self._scaled(X, lam)
        return (np.einsum("ij,ij->i", A, A) + (float(lam[-1]) if self.has_constant else 0.0)) ** self.degree

    def _scaled(self, X: Points, lam: Float[Array, " k"]) -> Float[Array, "n q"]:
        part = X.scaled[:, self.columns]
        return part if self.widths is None else part * self.widths.inverse(lam)
