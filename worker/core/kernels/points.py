"""Rows as kernels see them, and what pairs of them have in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from worker.core.records import Array

NEAR = 1e-4  # share of the squared norms below which a squared distance is taken from differences, for its digits
HELD = 2_000_000  # values of differences held at a time


@dataclass(frozen=True, slots=True)
class Points:
    """Rows less the means of the training rows: in units of their standard deviations, and in `original` units."""

    scaled: Float[Array, "n p"]
    original: Float[Array, "n p"]

    def __len__(self) -> int:
        return len(self.scaled)

    def rows(self, some: Int[Array, " m"] | slice) -> Points:
        """Some of them."""
        return Points(self.scaled[some], self.original[some])


def squared_distances(X: Float[Array, "n p"], Z: Float[Array, "m p"]) -> Float[Array, "n m"]:
    """`|x_i - z_k|^2` by one product of matrices; near pairs from their differences, as that product loses digits."""
    a, b = np.einsum("ij,ij->i", X, X), np.einsum("ij,ij->i", Z, Z)
    S = X @ Z.T
    S *= -2.0
    S += a[:, None]
    S += b
    height = max(1, HELD // max(len(Z), 1))
    for begin in range(0, len(X), height):
        some = slice(begin, begin + height)
        i, k = np.nonzero(S[some] <= NEAR * (a[some, None] + b))
        width = max(1, HELD // max(X.shape[1], 1))
        for first in range(0, len(i), width):
            pairs = slice(first, first + width)
            gap = X[begin + i[pairs]] - Z[k[pairs]]
            S[begin + i[pairs], k[pairs]] = np.einsum("ij,ij->i", gap, gap)
    return S


def gap_forms(X: Float[Array, "n p"], Z: Float[Array, "m p"], M: Float[Array, "n m"]) -> Float[Array, " p"]:
    """`sum_ik M_ik (x_ij - z_kj)^2` for each column j, by one product of matrices."""
    return M.sum(1) @ X**2 + M.sum(0) @ Z**2 - 2.0 * np.einsum("ij,ij->j", X, M @ Z)


def outer_gap_forms(
    X: Float[Array, "n p"], Z: Float[Array, "m p"], P: Float[Array, "n m"], a: Float[Array, " n"], c: Float[Array, " m"]
) -> Float[Array, " p"]:
    """The same for `M_ik = a_i P_ik c_k`, without a matrix of that size."""
    scaled = c[:, None] * Z
    return (a * (P @ c)) @ X**2 + (a @ P) @ (scaled * Z) - 2.0 * np.einsum("i,ij,ij->j", a, X, P @ scaled)
