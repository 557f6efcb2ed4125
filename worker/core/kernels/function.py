"""What a kernel gives to those who train with it: values for pairs of rows, and their cotangents in rho."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from worker.core.hyperparameters import Hyperparameters
from worker.core.kernels.points import Points
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The kernel of each row of one set with each of another, and `<K_bar, dK/drho_j>` for every hyperparameter j.

    No matrix is made for each hyperparameter: the work is a few products of matrices, whatever their number. Where the
    cotangent is `a c^T`, `of_outer` does without that matrix, if the kernel knows how.
    """

    K: Float[Array, "n m"]
    contract: Callable[[Float[Array, "n m"]], Float[Array, " k"]]
    of_outer: Callable[[Float[Array, " n"], Float[Array, " m"]], Float[Array, " k"]] | None = None

    def contract_outer(self, a: Float[Array, " n"], c: Float[Array, " m"]) -> Float[Array, " k"]:
        """`a^T dK/drho_j c` for every hyperparameter j."""
        return self.contract(np.outer(a, c)) if self.of_outer is None else self.of_outer(a, c)


@dataclass(frozen=True, slots=True)
class KernelFunction(ABC):
    """A kernel over given features, with the box of its hyperparameters, all of which are positive."""

    box: Hyperparameters

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
LEAST_SIMILARITY = 1e-3  # mean over pairs of rows, relative to the kernel of a row with itself
SAMPLE = 300  # rows that pairs are taken from


def dissimilarity_remark(kernel: KernelFunction, X: Points, lam: Float[Array, " k"]) -> tuple[str, ...]:
    """A sentence if the kernel tells every row from every other."""
    some = X.rows(slice(0, SAMPLE))
    K, own = kernel.at(some, some, lam).K, np.sqrt(kernel.diagonal(some, lam))
    if len(some) < 2 or not own.all():
        return ()
    likeness = np.abs(K / own / own[:, None]).sum() - len(some)
    return (NO_SIMILAR_ROWS,) if likeness < LEAST_SIMILARITY * len(some) * (len(some) - 1) else ()


def columns_of(chosen: tuple[str, ...] | None, features: tuple[str, ...]) -> Int[Array, " q"]:
    """The columns of the chosen features, all where none are named. Raises ValueError where one is not there."""
    if chosen is None:
        return np.arange(len(features))
    if not chosen:
        raise ValueError("the kernel names no features; leave the list out for all of them")
    if len(set(chosen)) < len(chosen):
        raise ValueError("the kernel names a feature twice")
    position = {name: j for j, name in enumerate(features)}
    for name in chosen:
        if name not in position:
            raise ValueError(f"the kernel names the feature {name!r}, which the data does not have")
    return np.array([position[name] for name in chosen])
