"""A kernel that the product does not have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float, Int

from worker.core.family import ByKind
from worker.core.kernels import Evaluated, KernelFunction, Points, SharedWidth, Widths
from worker.core.kernels.function import columns_of
from worker.core.kernels.widths import Grouped
from worker.core.records import Array


@dataclass(frozen=True, slots=True)
class CauchyFunction(KernelFunction):
    """A Cauchy kernel of given columns."""

    columns: Int[Array, " q"]
    widths: Grouped

    def at(self, X: Points, Z: Points, lam: Float[Array, " k"]) -> Evaluated:
        """`K = 1 / (1 + s)`, `dK / d log width_j = 2 K^2` times the sum of the squared differences of this width."""
        A, B = (
            X.scaled[:, self.columns] * self.widths.inverse(lam),
            Z.scaled[:, self.columns] * self.widths.inverse(lam),
        )
        gaps = (A[:, None, :] - B[None, :, :]) ** 2
        K = 1.0 / (1.0 + gaps.sum(axis=2))

        def products(c: Float[Array, " m"], F: Float[Array, "n m"] | None) -> Float[Array, "n k"]:
            M = 2.0 * K**2 if F is None else 2.0 * K**2 * F
            return self.widths.sums_of_rows(np.einsum("nm,nmq,m->nq", M, gaps, c))

        return Evaluated(K, lambda K_bar: self.widths.sums(np.einsum("nm,nmq->q", 2.0 * K_bar * K**2, gaps)), products)

    def diagonal(self, X: Points, lam: Float[Array, " k"]) -> Float[Array, " n"]:
        """Ones."""
        return np.ones(len(X))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cauchy:
    """`1 / (1 + s)`: similarity falls slowly with the distance."""

    features: tuple[str, ...] | None = None
    name: str | None = None
    widths: Annotated[Widths, ByKind(named=True)] = SharedWidth()  # noqa: RUF009 - frozen
    kind: Literal["cauchy"] = "cauchy"

    def over(self, features: Sequence[str], variances: Float[Array, " p"] | None = None) -> CauchyFunction:
        """The kernel of rows with these features. Raises ValueError when it does not fit them."""
        columns = columns_of(self.features, features)
        own = None if variances is None else variances[columns]
        widths = self.widths.over(features if self.features is None else self.features, own)
        return CauchyFunction(widths.box, columns, widths)
