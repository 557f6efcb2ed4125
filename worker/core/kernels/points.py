"""Rows as kernels use them, and squared distances of pairs of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from worker.core.records import Array

NEAR_SQUARED_DISTANCE = 1e-4  # relative to the squared norms; smaller ones are recomputed from differences
HELD_DIFFERENCES = 2_000_000  # values of differences held at a time: 16 MB


@dataclass(frozen=True, slots=True)
class Points:
    """Rows minus the training means: `scaled` as the kernel uses them, and in `original` units."""

    scaled: Float[Array, "n p"]
    original: Float[Array, "n p"]

    def __len__(self) -> int:
        return len(self.scaled)

    def rows(self, chosen: Int[Array, " m"] | slice) -> Points:
        """The chosen rows."""
        return Points(self.scaled[chosen], self.original[chosen])


def squared_distances(X: Float[Array, "n p"], Z: Float[Array, "m p"]) -> Float[Array, "n m"]:
    """`|x_i - z_k|^2` by one matrix product; near pairs by differences, because the product loses their digits."""
    a, b = np.einsum("ij,ij->i", X, X), np.einsum("ij,ij->i", Z, Z)
    S = X @ Z.T
    S *= -2.0
    S += a[:, None]
    S += b
    height = max(1, HELD_DIFFERENCES // max(len(Z), 1))
    for begin in range(0, len(X), height):
        chunk = slice(begin, begin + height)
        i, k = np.nonzero(S[chunk] <= NEAR_SQUARED_DISTANCE * (a[chunk, None] + b))
        width = max(1, HELD_DIFFERENCES // max(X.shape[1], 1))
        for first in range(0, len(i), width):
            pairs = slice(first, first + width)
            gap = X[begin + i[pairs]] - Z[k[pairs]]
            S[begin + i[pairs], k[pairs]] = np.einsum("ij,ij->i", gap, gap)
    return S


def gap_forms(X: Float[Array, "n p"], Z: Float[Array, "m p"], M: Float[Array, "n m"]) -> Float[Array, " p"]:
    """`sum_ik M_ik (x_ij - z_kj)^2` for each column j, by one matrix product."""
    return M.sum(1) @ X**2 + M.sum(0) @ Z**2 - 2.0 * np.einsum("ij,ij->j", X, M @ Z)


def gap_products(
    X: Float[Array, "n p"], Z: Float[Array, "m p"], M: Float[Array, "n m"], c: Float[Array, " m"]
) -> Float[Array, "n p"]:
    """`sum_k M_ik c_k (x_ij - z_kj)^2` for each row i and column j, by one matrix product."""
    scaled = c[:, None] * Z
    of_ones, of_rows, of_squares = np.split(
        M @ np.hstack([c[:, None], scaled, scaled * Z]), [1, 1 + X.shape[1]], axis=1
    )
    return of_ones * X**2 - 2.0 * X * of_rows + of_squares


def outer_gap_forms(
    X: Float[Array, "n p"], Z: Float[Array, "m p"], P: Float[Array, "n m"], a: Float[Array, " n"], c: Float[Array, " m"]
) -> Float[Array, " p"]:
    """`gap_forms` with `M_ik = a_i P_ik c_k`, without forming M."""
    scaled = c[:, None] * Z
    return (a * (P @ c)) @ X**2 + (a @ P) @ (scaled * Z) - 2.0 * np.einsum("i,ij,ij->j", a, X, P @ scaled)
