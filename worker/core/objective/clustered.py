"""Standard errors of weighted means of rows that depend on each other within clusters.

The rows of a cluster may depend on each other in any way; rows of different clusters do not. Then the error of the mean
is a sum over clusters of independent parts, each of which is what the rows of one cluster add to it (Liang and Zeger
1986). With one row a cluster this is the usual standard error. Clusters are numbered from 0; those without a row of
positive weight do not count.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.special import stdtrit

from worker.core.records import Array

MOST_CLUSTERS = 2048  # that sums are kept for; they estimate an error to 2 %, and more would make checkpoints large
CONFIDENCE = 0.95  # of intervals


def error_of_mean(losses: Float[Array, " v"], weights: Float[Array, " v"], clusters: Int[Array, " v"]) -> float | None:
    """The standard error of `weights @ losses`, the weights summing to one; None for a single cluster.

    With m clusters the sum of squares is multiplied by `m / (m - 1)`, as the mean is estimated.
    """
    m = count_of(weights, clusters)
    if m < 2:
        return None
    deviations = losses - weights @ losses
    deviations *= weights  # in place: there may be many rows
    parts = np.bincount(clusters, deviations)
    return float(np.linalg.norm(parts) * np.sqrt(m / (m - 1)))


def paired(
    first: Float[Array, " v"], second: Float[Array, " v"], weights: Float[Array, " v"], clusters: Int[Array, " v"]
) -> tuple[float, float | None]:
    """The weighted mean of `first - second` on the same rows, and its standard error; None for a single cluster."""
    differences, weights = first - second, weights / weights.sum()
    return float(weights @ differences), error_of_mean(differences, weights, clusters)


def count_of(weights: Float[Array, " v"], clusters: Int[Array, " v"]) -> int:
    """The number of clusters that have a row of positive weight."""
    return int(np.count_nonzero(np.bincount(clusters, weights != 0)))


def deviations_in_interval(clusters: int) -> float:
    """How many standard errors an interval of `CONFIDENCE` extends to both sides.

    Student's t with one degree of freedom less than there are clusters: 1.96 for many, 2.8 for five, 12.7 for two.
    """
    return float(stdtrit(clusters - 1, (1.0 + CONFIDENCE) / 2.0))


def sums_by_cluster(
    losses: Float[Array, " v"], weights: Float[Array, " v"], clusters: Int[Array, " v"], size: int
) -> Float[Array, "2 c"]:
    """The sums of `w_i loss_i` and of `w_i` over the rows of each of `size` clusters: of parts of rows they add up.

    Clusters beyond `MOST_CLUSTERS` share a place with earlier ones: sums of independent clusters are independent, too.
    """
    counted = weights != 0  # the loss of a row of weight zero may be anything
    place, w, size = clusters[counted] % MOST_CLUSTERS, weights[counted], min(size, MOST_CLUSTERS)
    return np.array([np.bincount(place, w * losses[counted], size), np.bincount(place, w, size)])


def error_of_sums(sums: Float[Array, "2 c"]) -> float | None:
    """The standard error of the weighted mean, from the sums of all rows; None for a single cluster."""
    losses, weights = sums
    m, total = int(np.count_nonzero(weights)), float(weights.sum())
    if m < 2:
        return None
    parts = losses - float(losses.sum()) / total * weights
    return float(np.linalg.norm(parts) / total * np.sqrt(m / (m - 1)))
