"""How well each hyperparameter is determined: between which values it lies."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from worker.core.objective.clustered import deviations_in_interval
from worker.core.objective.influence import Chosen
from worker.core.objective.meaning import HALF_A_NAT
from worker.core.objective.sandwich import standard_deviations
from worker.core.records import Array, Evaluation
from worker.core.search.descent import Descent
from worker.core.search.plan import Prepared
from worker.core.verdict.curvature import Curvature

Intervals = tuple[Float[Array, " k"], Float[Array, " k"]]


def intervals(prepared: Prepared, descent: Descent, at: Evaluation, shape: Curvature) -> Intervals | None:
    """The ends for each hyperparameter, in natural units and inside the box; None if they are not known.

    Of a likelihood: until J rises by half a nat, the others following at their best. Of a mean over rows: 95 % by the
    sandwich, over rows that might have been drawn in place of these. NaN at a bound, and where J is flat.
    Hyperparameters that share a value share an interval. `at` and `shape` are of what was descended.
    """
    if shape.inverse is None:
        return None
    unit = descent.objective.unit(at.value)
    if prepared.objective.meaning.nats is not None:
        deviations = shape.half_widths(HALF_A_NAT / unit)
    else:
        deviations = _of_rows(prepared, descent, at, shape.free, shape.inverse / unit)
    if deviations is None:
        return None
    half_widths, box = np.full(len(at.rho), np.nan), descent.objective.hyperparameters
    half_widths[shape.free] = deviations
    half_widths[np.concatenate([shape.idle, shape.joint])] = np.nan  # a quadratic model says nothing there
    ends = np.maximum(at.rho - half_widths, box.lower), np.minimum(at.rho + half_widths, box.upper)
    low, high = (end if descent.tie is None else descent.tie.expand(end) for end in ends)
    return descent.full.natural(low), descent.full.natural(high)


def _of_rows(
    prepared: Prepared, descent: Descent, at: Evaluation, free: Int[Array, " f"], inverse: Float[Array, "f f"]
) -> Float[Array, " f"] | None:
    """Half the widths on the scale of rho, from the influences of rows; None if there are none.

    The rows know nothing of a prior, which the inverse of the Hessian contains.
    """
    tie, objective = descent.tie, prepared.objective
    rho, to = (at.rho, np.arange(len(at.rho))) if tie is None else (tie.expand(at.rho), tie.to)
    numbers = np.flatnonzero(np.isin(to, free))
    chosen = Chosen(numbers, (to[numbers][:, None] == free).astype(float))
    sums = objective.gradient_sums(prepared.problem, prepared.partition, rho, chosen, prepared.clusters)
    V = None if sums is None else sums.covariance()
    if sums is None or V is None:
        return None
    return deviations_in_interval(sums.clusters) * standard_deviations(inverse, V)
