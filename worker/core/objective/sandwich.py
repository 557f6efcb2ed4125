"""The sampling covariance of hyperparameters: `H^-1 V H^-1` (Huber 1967; White 1982).

At a minimum of J over rows drawn anew, rho moves by `-H^-1` times the change of the gradient of J, and V is the
covariance of this change: from the influences of clusters of rows on the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from worker.core.objective.clustered import MOST_CLUSTERS
from worker.core.records import Array

SEED_OF_SAMPLE = 1


def row_gradients(slopes: Float[Array, "v m"], D: Float[Array, "v m f"]) -> Float[Array, "v f"]:
    """The hypergradient of each row's loss, from its slopes in eta and the tangents of eta."""
    return np.einsum("im,imj->ij", slopes, D)


@dataclass(slots=True)
class GradientSums:
    """The influences of `count` clusters of rows on the gradient of J, from chunks of rows that are added.

    A row acts where it is scored, by its hypergradient, and where it trains; the latter may be unknown. Clusters beyond
    `MOST_CLUSTERS` share a place with earlier ones: sums of independent clusters are independent, too.

    `overlap` is the share q of J's weight on rows that also train. At a minimum the two actions of such a row nearly
    cancel, and the gradient is a sum over pairs of rows: one trains, the other is scored. Squares of influences count
    each pair twice (Efron and Stein 1981), so that V is `1 - q / 2` times their sum. It is zero if only the action of
    scored rows is known. `whole` is the gradient of J where the clusters are a sample, a `share` of all.
    """

    count: int
    f: int
    overlap: float = 0.0
    scored: Float[Array, "c f"] = field(init=False)
    trained: Float[Array, "c f"] = field(init=False)
    weights: Float[Array, " c"] = field(init=False)
    share: float = field(init=False, default=1.0)
    whole: Float[Array, " f"] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        size = min(self.count, MOST_CLUSTERS)
        self.scored, self.trained = np.zeros((2, size, self.f))
        self.weights = np.zeros(size)

    def sample(self, share: float, fewest: int) -> Bool[Array, " c"] | None:
        """The places whose rows are to be added, a random share of them, but not fewer; None for all."""
        size = len(self.weights)
        number = max(int(share * size), fewest) if share < 1 else size
        if number >= size:
            return None
        sampled = np.zeros(size, bool)
        sampled[np.random.default_rng(SEED_OF_SAMPLE).permutation(size)[:number]] = True
        self.share = number / size
        return sampled

    def add(self, g: Float[Array, "v f"], weights: Float[Array, " v"], clusters: Int[Array, " v"]) -> None:
        """Scored rows: hypergradients, and weights in J, which sum to one over all chunks."""
        counted = np.flatnonzero(weights)
        w = weights[counted]
        self.add_scored(slice(None), w[:, None] * g[counted], clusters[counted])
        self.add_weights(w, clusters[counted])

    def add_scored(self, columns: slice, g: Float[Array, "v f"], clusters: Int[Array, " v"]) -> None:
        """Hypergradients of scored rows times their weights, for some columns of the gradient."""
        self.scored[:, columns] += self._by_place(clusters, g)

    def add_weights(self, weights: Float[Array, " v"], clusters: Int[Array, " v"]) -> None:
        """The weights of scored rows in J."""
        self.weights += np.bincount(clusters % MOST_CLUSTERS, weights, len(self.weights))

    def add_trained(self, columns: slice, influences: Float[Array, "n f"], clusters: Int[Array, " n"]) -> None:
        """Influences of training rows on some columns of the gradient."""
        self.trained[:, columns] += self._by_place(clusters, influences)

    def _by_place(self, clusters: Int[Array, " n"], values: Float[Array, "n f"]) -> Float[Array, "c f"]:
        """Sums over the rows of each place."""
        size, f = len(self.weights), values.shape[1]
        place = (clusters % MOST_CLUSTERS)[:, None] * f + np.arange(f)
        return np.bincount(place.ravel(), values.ravel(), size * f).reshape(size, f)

    @property
    def clusters(self) -> int:
        """How many have a scored row of positive weight; at most `MOST_CLUSTERS`, and of a sample as many as it has."""
        return int(np.count_nonzero(self.weights))

    @property
    def mean(self) -> Float[Array, " f"]:
        """The gradient of J, without a prior of the hyperparameters."""
        return self.scored.sum(axis=0) if self.whole is None else self.whole

    @property
    def parts(self) -> Float[Array, "c f"]:
        """The influence of each cluster."""
        return self.scored - self.weights[:, None] * self.mean + self.trained

    def covariance(self) -> Float[Array, "f f"] | None:
        """V, the covariance of the gradient; None for a single cluster.

        Without clusters, and if only scored rows act, V is `1 / n` times the covariance of the rows' hypergradients.
        """
        m = self.clusters
        if m < 2:
            return None
        parts = self.parts
        return parts.T @ parts * (m / (m - 1) * (1.0 - self.overlap / 2.0) / self.share)


def standard_deviations(inverse: Float[Array, "f f"], V: Float[Array, "f f"]) -> Float[Array, " f"]:
    """The square roots of the diagonal of `H^-1 V H^-1`."""
    return np.sqrt(np.maximum(np.einsum("ij,jk,ki->i", inverse, V, inverse, optimize=True), 0.0))
