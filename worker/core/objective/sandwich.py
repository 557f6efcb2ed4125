"""The sampling covariance of hyperparameters: `H^-1 V H^-1` (Huber 1967; White 1982).

At a minimum of J over rows drawn anew, rho moves by `-H^-1` times the change of the gradient of J. That gradient is a
weighted mean of the rows' hypergradients `g_i = sum_m slope_im deta_im/drho`, and V is the covariance of this mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from worker.core.objective.clustered import MOST_CLUSTERS
from worker.core.records import Array


def row_gradients(slopes: Float[Array, "v m"], D: Float[Array, "v m f"]) -> Float[Array, "v f"]:
    """The hypergradient of each row's loss, from its slopes in eta and the tangents of eta."""
    return np.einsum("im,imj->ij", slopes, D)


@dataclass(slots=True)
class GradientSums:
    """The sums of `w_i g_i` and `w_i` over the rows of each of `count` clusters, from chunks of rows that are added.

    Clusters beyond `MOST_CLUSTERS` share a place with earlier ones: sums of independent clusters are independent, too.
    """

    count: int
    f: int
    gradients: Float[Array, "c f"] = field(init=False)
    weights: Float[Array, " c"] = field(init=False)

    def __post_init__(self) -> None:
        size = min(self.count, MOST_CLUSTERS)
        self.gradients, self.weights = np.zeros((size, self.f)), np.zeros(size)

    def add(self, g: Float[Array, "v f"], weights: Float[Array, " v"], clusters: Int[Array, " v"]) -> None:
        """Rows with their weights in J, which sum to one over all chunks; those of weight zero do not count."""
        counted = np.flatnonzero(weights)
        place, w = clusters[counted] % MOST_CLUSTERS, weights[counted]
        members = sparse.csr_array((w, (place, np.arange(len(w)))), shape=(len(self.weights), len(w)))
        self.gradients += members @ g[counted]
        self.weights += members @ np.ones(len(w))

    @property
    def clusters(self) -> int:
        """How many have a row of positive weight; at most `MOST_CLUSTERS`."""
        return int(np.count_nonzero(self.weights))

    @property
    def mean(self) -> Float[Array, " f"]:
        """The gradient of J, without a prior of the hyperparameters."""
        return self.gradients.sum(axis=0)

    def covariance(self) -> Float[Array, "f f"] | None:
        """V, the covariance of the mean; None for a single cluster.

        Without clusters V is `1 / n` times the covariance of the rows' hypergradients.
        """
        m = self.clusters
        if m < 2:
            return None
        parts = self.gradients - self.weights[:, None] * self.mean
        return parts.T @ parts * (m / (m - 1))


def standard_deviations(inverse: Float[Array, "f f"], V: Float[Array, "f f"]) -> Float[Array, " f"]:
    """The square roots of the diagonal of `H^-1 V H^-1`."""
    return np.sqrt(np.maximum(np.einsum("ij,jk,ki->i", inverse, V, inverse, optimize=True), 0.0))
