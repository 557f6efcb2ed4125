"""How well each hyperparameter is determined: between which values it lies."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from worker.core.objective.clustered import deviations_in_interval
from worker.core.objective.meaning import HALF_A_NAT
from worker.core.objective.sandwich import GradientSums, row_gradients, standard_deviations
from worker.core.records import Array
from worker.core.search.plan import Prepared
from worker.core.verdict.curvature import Curvature

Intervals = tuple[Float[Array, " k"], Float[Array, " k"]]


def intervals(
    prepared: Prepared, rho: Float[Array, " k"], shape: Curvature, unit: float, clusters: Int[Array, " n"]
) -> Intervals | None:
    """The ends for each hyperparameter, on the scale of rho and inside the box; None if they are not known.

    Of a likelihood: until J rises by half a nat, the others following at their best. Of a mean over rows: 95 % by the
    sandwich, over rows that might have been drawn in place of these. `unit` is that of J in `shape`. NaN at a bound,
    and where J is flat.
    """
    if shape.inverse is None:
        return None
    if prepared.objective.meaning.nats is not None:
        deviations = shape.half_widths(HALF_A_NAT / unit)
    else:
        deviations = _of_rows(prepared, rho, shape, unit, clusters)
    if deviations is None:
        return None
    half_widths, box = np.full(len(rho), np.nan), prepared.objective.hyperparameters
    half_widths[shape.free] = deviations
    half_widths[np.concatenate([shape.idle, shape.joint])] = np.nan  # a quadratic model says nothing there
    return np.maximum(rho - half_widths, box.lower), np.minimum(rho + half_widths, box.upper)


def _of_rows(
    prepared: Prepared, rho: Float[Array, " k"], shape: Curvature, unit: float, clusters: Int[Array, " n"]
) -> Float[Array, " f"] | None:
    """Half the widths on the scale of rho, from the hypergradients of the rows; None if there are none."""
    chunks = prepared.objective.row_tangents(prepared.problem, prepared.partition, rho, shape.free)
    if chunks is None or shape.inverse is None:
        return None
    sums = GradientSums(int(clusters.max()) + 1, len(shape.free))
    for chunk in chunks:
        sums.add(row_gradients(chunk.slopes(chunk.eta), chunk.D), chunk.weights, clusters[chunk.rows])
    V = sums.covariance()
    if V is None:
        return None
    return deviations_in_interval(sums.clusters) * standard_deviations(shape.inverse / unit, V)
