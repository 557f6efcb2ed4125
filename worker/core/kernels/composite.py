"""Sums and products of kernels: multiple-kernel learning with tuned weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import MinLen
from jaxtyping import Float

from worker.core.family import ByKind
from worker.core.hyperparameters import Box, Hyperparameters
from worker.core.kernels.function import Evaluated, KernelFunction
from worker.core.kernels.points import Points
from worker.core.kernels.products import Linear, Polynomial
from worker.core.kernels.stationary import Matern, Periodic, RationalQuadratic, Rbf
from worker.core.records import Array

Simple = Rbf | Matern | RationalQuadratic | Periodic | Polynomial | Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """The product of kernels, such as a periodic one whose pattern changes over time."""

    factors: Annotated[tuple[Annotated[Simple, ByKind()], ...], MinLen(2)]
    name: str | None = None
    kind: Literal["product"] = "product"

    def over(self, features: Sequence[str], variances: Float[Array, " p"] | None = None) -> ProductOfFunctions:
        """The kernel of rows with these features. Raises ValueError when a factor does not fit them."""
        boxes, parts = _named_parts(self.factors, features, variances)
        return ProductOfFunctions(_joined_boxes(boxes), parts, unit=float(np.prod([part.unit for part in parts])))


@dataclass(frozen=True, slots=True)
class TermWeight(Box):
    """The box of the weights of the terms of a sum; the first term has the weight 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """`k_1 + sum_m weight_m k_m` with tuned weights; the first weight is 1, because the penalty sets the scale."""

    terms: Annotated[tuple[Annotated[Simple | Product, ByKind()], ...], MinLen(2)]
    weights: TermWeight = TermWeight()
    kind: Literal["sum"] = "sum"

    def over(self, features: Sequence[str], variances: Float[Array, " p"] | None = None) -> SumOfFunctions:
        """The kernel of rows with these features. Raises ValueError when a term does not fit them."""
        boxes, parts = _named_parts(self.terms, features, variances)
        weights = self.weights.hyperparameters(tuple(f"{name}.weight" for name in _names(self.terms)[1:]))
        units = np.array([parts[0].unit / part.unit for part in parts[1:]])
        whole = _joined_boxes([*boxes, self.weights.in_units(weights, units)])
        return SumOfFunctions(whole, parts, unit=parts[0].unit)


Kernel = Simple | Product | Sum


@dataclass(frozen=True, slots=True)
class ProductOfFunctions(KernelFunction):
    """A product of kernels."""

    parts: tuple[KernelFunction, ...]

    def at(self, X: Points, Z: Points, lam: Float[Array, " k"]) -> Evaluated:
        """The kernel of each pair."""
        each = [part.at(X, Z, own) for part, own in zip(self.parts, _lam_of_parts(self.parts, lam), strict=True)]

        def contract(K_bar: Float[Array, "n m"]) -> Float[Array, " k"]:
            """Contract each factor with the product of the others, not with a quotient: a factor may be zero."""
            found = []
            for j, one in enumerate(each):
                others = [other.K for i, other in enumerate(each) if i != j]
                found.append(one.contract(np.multiply.reduce([K_bar, *others])))
            return np.concatenate(found)

        def products(c: Float[Array, " m"], F: Float[Array, "n m"] | None) -> Float[Array, "n k"]:
            found, factors = [], [] if F is None else [F]
            for j, one in enumerate(each):
                others = [other.K for i, other in enumerate(each) if i != j]
                found.append(one.products(c, np.multiply.reduce([*factors, *others])))
            return np.hstack(found)

        return Evaluated(np.multiply.reduce([one.K for one in each]), contract, products)

    def diagonal(self, X: Points, lam: Float[Array, " k"]) -> Float[Array, " n"]:
        """`k(x, x)`."""
        each = zip(self.parts, _lam_of_parts(self.parts, lam), strict=True)
        return np.multiply.reduce([part.diagonal(X, own) for part, own in each])


@dataclass(frozen=True, slots=True)
class SumOfFunctions(KernelFunction):
    """A weighted sum of kernels; the weights are the last hyperparameters."""

    parts: tuple[KernelFunction, ...]

    def at(self, X: Points, Z: Points, lam: Float[Array, " k"]) -> Evaluated:
        """The kernel of each pair."""
        each = [part.at(X, Z, own) for part, own in zip(self.parts, _lam_of_parts(self.parts, lam), strict=True)]
        weights = self._weights(lam)
        K = each[0].K.copy()
        for weight, one in zip(weights[1:], each[1:], strict=True):
            K += weight * one.K

        def contract(K_bar: Float[Array, "n m"]) -> Float[Array, " k"]:
            found = [one.contract(weight * K_bar) for weight, one in zip(weights, each, strict=True)]
            of_weights = [weight * np.vdot(K_bar, one.K) for weight, one in zip(weights[1:], each[1:], strict=True)]
            return np.concatenate([*found, of_weights])

        def products(c: Float[Array, " m"], F: Float[Array, "n m"] | None) -> Float[Array, "n k"]:
            found = [weight * one.products(c, F) for weight, one in zip(weights, each, strict=True)]
            of_weights = [
                weight * ((one.K if F is None else one.K * F) @ c)
                for weight, one in zip(weights[1:], each[1:], strict=True)
            ]
            return np.hstack([*found, np.column_stack(of_weights)])

        def of_outer(a: Float[Array, " n"], c: Float[Array, " m"]) -> Float[Array, " k"]:
            found = [one.contract_outer(weight * a, c) for weight, one in zip(weights, each, strict=True)]
            of_weights = [weight * (a @ one.K @ c) for weight, one in zip(weights[1:], each[1:], strict=True)]
            return np.concatenate([*found, of_weights])

        return Evaluated(K, contract, products, of_outer)

    def diagonal(self, X: Points, lam: Float[Array, " k"]) -> Float[Array, " n"]:
        """`k(x, x)`."""
        each = zip(self._weights(lam), self.parts, _lam_of_parts(self.parts, lam), strict=True)
        return np.sum([weight * part.diagonal(X, own) for weight, part, own in each], axis=0)

    def _weights(self, lam: Float[Array, " k"]) -> Float[Array, " m"]:
        return np.append(1.0, lam[len(lam) - len(self.parts) + 1 :])


def _names(kernels: Sequence[Simple | Product]) -> list[str]:
    """The names of terms or factors. Raises ValueError if two are equal."""
    names = [one.name or one.kind for one in kernels]
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"two kernels are called {name!r}; give one of them a `name`")
        seen.add(name)
    return names


def _named_parts(
    kernels: Sequence[Simple | Product], features: Sequence[str], variances: Float[Array, " p"] | None
) -> tuple[list[Hyperparameters], tuple[KernelFunction, ...]]:
    """The boxes of the kernels, with their names as prefixes of the hyperparameters, and the kernels."""
    parts = tuple(one.over(features, variances) for one in kernels)
    named = zip(_names(kernels), parts, strict=True)
    return [part.box.prefixed(f"{name}.") for name, part in named], parts


def _joined_boxes(boxes: list[Hyperparameters]) -> Hyperparameters:
    joined = boxes[0]
    for box in boxes[1:]:
        joined = joined + box
    return joined


def _lam_of_parts(parts: tuple[KernelFunction, ...], lam: Float[Array, " k"]) -> list[Float[Array, " _"]]:
    ends = np.cumsum([len(part.box.names) for part in parts])
    return np.split(lam[: ends[-1]], ends[:-1])
