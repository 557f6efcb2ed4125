"""The interface of kernels: values for pairs of rows, and cotangents pulled back to rho."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from worker.core.hyperparameters import Hyperparameters
from worker.core.kernels.points import Points
from worker.core.names import places
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The kernel K between two sets of rows; `contract` gives `<K_bar, dK/drho_j>` for every hyperparameter j.

    `products` takes a vector c and factors F of the entries, or None for ones, and gives `(F * dK/drho_j) c`.

    The work is a few matrix products for any number of hyperparameters, without a matrix for each of them. For a
    cotangent `a c^T`, `of_outer` avoids forming that matrix, if the kernel supports it.
    """

    K: Float[Array, "n m"]
    contract: Callable[[Float[Array, "n m"]], Float[Array, " k"]]
    products: Callable[[Float[Array, " m"], Float[Array, "n m"] | None], Float[Array, "n k"]]
    of_outer: Callable[[Float[Array, " n"], Float[Array, " m"]], Float[Array, " k"]] | None = None

    def contract_outer(self, a: Float[Array, " n"], c: Float[Array, " m"]) -> Float[Array, " k"]:
        """`a^T dK/drho_j c` for every hyperparameter j."""
        return self.contract(np.outer(a, c)) if self.of_outer is None else self.of_outer(a, c)

    def along(self, c: Float[Array, " m"]) -> Float[Array, "n k"]:
        """`dK/drho_j c` for every hyperparameter j."""
        return self.products(c, None)


@dataclass(frozen=True, slots=True)
class KernelFunction(ABC):
    """A kernel over given features, with the box of its hyperparameters, all of which are positive.

    `unit`: its size if it grows with the features; 1 for a kernel with widths, which have the units of the features.
    """

    box: Hyperparameters
    unit: float = field(default=1.0, kw_only=True)

    @abstractmethod
    def at(self, X: Points, Z: Points, lam: Float[Array, " k"]) -> Evaluated:
        """The kernel of each pair, at natural hyperparameters."""

    @abstractmethod
    def diagonal(self, X: Points, lam: Float[Array, " k"]) -> Float[Array, " n"]:
        """`k(x, x)`."""


NO_SIMILAR_ROWS = (
    "No row is like another at the result: the kernel of different rows is nearly zero, so that little but the "
    "intercept was learnt. J is flat there; begin at larger initial widths, or take several starts."
)
MIN_MEAN_SIMILARITY = 1e-3  # mean over pairs of rows, relative to the kernel of a row with itself
SAMPLED_ROWS = 300  # first rows, whose pairs are compared


def dissimilarity_remark(kernel: KernelFunction, X: Points, lam: Float[Array, " k"]) -> tuple[str, ...]:
    """A remark if no row is similar to another under the kernel."""
    sample = X.rows(slice(0, SAMPLED_ROWS))
    K, norms = kernel.at(sample, sample, lam).K, np.sqrt(kernel.diagonal(sample, lam))
    if len(sample) < 2 or not norms.all():
        return ()
    similarity = np.abs(K / norms / norms[:, None]).sum() - len(sample)
    return (NO_SIMILAR_ROWS,) if similarity < MIN_MEAN_SIMILARITY * len(sample) * (len(sample) - 1) else ()


def columns_of(chosen: tuple[str, ...] | None, features: Sequence[str]) -> Int[Array, " q"]:
    """The columns of the chosen features, or all for None. Raises ValueError if one is unknown or named twice."""
    if chosen is None:
        return np.arange(len(features))
    if not chosen:
        raise ValueError("the kernel names no features; leave the list out for all of them")
    if len(set(chosen)) < len(chosen):
        raise ValueError("the kernel names a feature twice")
    columns = places(features, chosen)
    if (columns < 0).any():
        name = chosen[int(np.argmax(columns < 0))]
        raise ValueError(f"the kernel names the feature {name!r}, which the data does not have")
    return columns
