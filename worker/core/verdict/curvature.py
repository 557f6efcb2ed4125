"""The shape of J at the result: whether it is a minimum, and how far each hyperparameter can move."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import eigh

from worker.core.objective.objective import Objective
from worker.core.records import Array, Evaluation

MOST = 500  # hyperparameters up to which the dense Hessian is computed for this
PART = 0.05  # share of a hyperparameter in flat directions from which on it is said to take part in them
LITTLE = 1e-3  # the same where else only one would be named: a joint change has two sides
FLAT = 1e-8  # of the unit of J for a change by a factor e: smaller curvatures cannot be told from zero
LARGEST_FINAL_SLOPE = 1e-5  # of the unit of J: the most that is left of a slope where a search has ended
BENT = 1e-6  # the same for curvatures below zero where the Hessian is made of differences of the gradient
DIFFERENCE = 2e-4  # on the scale of rho: these then err by 1e-8 of the curvature, and by rounding
ASYMMETRY = 1e-3  # of the largest entry; beyond, the gradient jumps between the points
STRIDE = 1e-2  # on the scale of rho, to both sides along the direction of least curvature: J has to agree
CONFIRMED, OFF = 0.25, 0.05  # share of a negative curvature, and of the largest one, that J has to confirm


@dataclass(frozen=True, slots=True)
class Curvature:
    """Of J on the scale of rho, over the unit of J, in the hyperparameters that no bound holds.

    `smallest` is the smallest eigenvalue of that part of the Hessian, None where bounds hold every hyperparameter.
    `inverse_diagonal` is the diagonal of its inverse (flat directions count as `FLAT`), one entry for each
    hyperparameter and NaN for one that a bound holds; None unless the point is a minimum. J does not depend on the
    `idle` hyperparameters, and is flat along joint changes of those in `joint`.
    """

    point: Literal["minimum", "flat", "saddle"]
    smallest: float | None
    inverse_diagonal: Float[Array, " k"] | None
    idle: Int[Array, " i"] = field(default_factory=lambda: np.empty(0, int))
    joint: Int[Array, " m"] = field(default_factory=lambda: np.empty(0, int))

    def half_widths(self, rise: float) -> Float[Array, " k"] | None:
        """How far each hyperparameter can move, the others following at their best, before J rises by `rise` units.

        In the quadratic model: `sqrt(2 rise (H^-1)_jj)`, on the scale of rho.
        """
        return None if self.inverse_diagonal is None else np.sqrt(2.0 * rise * self.inverse_diagonal)


def curvature(objective: Objective, at: Evaluation, gradients: int = 0) -> Curvature | None:
    """The curvature at a point where J was evaluated.

    Where J has no exact Hessian, by differences of its gradient if they take no more than so many `gradients`. None
    above `MOST` hyperparameters, where there is neither, and where J nearby does not confirm it: where its gradient
    jumps, as that of losses with corners does, the Hessian says little.
    """
    rho, unit = at.rho, objective.unit(at.value)
    bounds = objective.hyperparameters.at_bound(rho)
    inward = np.abs(objective.hyperparameters.projected(rho, at.gradient)) > LARGEST_FINAL_SLOPE * unit
    free = np.flatnonzero([bound is None or slopes for bound, slopes in zip(bounds, inward, strict=True)])
    exact = objective.has_hessian
    affordable = len(rho) <= MOST and (exact or 2 * len(free) <= gradients)
    if len(free) == 0 and len(rho) <= MOST:
        return Curvature("minimum", None, np.full(len(rho), np.nan))
    here = objective.value(rho) if affordable else np.inf  # training from scratch may not get where warm starts got
    if not np.isfinite(here):
        return None
    H = (objective.hessian(rho, free) if exact else _differences(objective, rho, free)) / unit
    if not np.isfinite(H).all():
        return None
    eigenvalues, vectors = eigh(H)
    # along an exchange of two hyperparameters that do the same, and where J levels off like a power of lam, the
    # curvature is what is left of the slope
    g = at.gradient[free] / unit
    noise = max(FLAT if exact else BENT, min(2.0 * float(np.abs(g).max()), LARGEST_FINAL_SLOPE))
    smallest, saddle = float(eigenvalues[0]), bool(eigenvalues[0] < -noise)
    direction = np.zeros(len(rho))
    direction[free] = vectors[:, 0]
    seen = _second_difference(objective, rho, here, direction) / unit
    off = max(OFF * float(np.abs(H).max()), noise)
    confirmed = seen <= CONFIRMED * smallest if saddle else abs(seen - smallest) <= off
    if not confirmed:
        return None
    if saddle:
        return Curvature("saddle", smallest, None)
    return _of_hessian(H, (eigenvalues, vectors), g, noise, free, len(rho))


def _of_hessian(
    H: Float[Array, "f f"],
    of_H: tuple[Float[Array, " f"], Float[Array, "f f"]],
    g: Float[Array, " f"],
    noise: float,
    free: Int[Array, " f"],
    k: int,
) -> Curvature:
    """Of a point that is no saddle, from Hessian and gradient over the unit of J; curvatures within noise are flat."""
    eigenvalues, vectors = of_H
    smallest, inverse = float(eigenvalues[0]), np.full(k, np.nan)
    inverse[free] = vectors**2 @ (1.0 / np.maximum(eigenvalues, FLAT))
    if smallest > noise:
        return Curvature("minimum", smallest, inverse)
    idle = (np.abs(H).max(axis=1) <= FLAT) & (np.abs(g) <= FLAT)  # a slope that does not bend is not flat
    share = (vectors[:, (eigenvalues <= noise) & (np.abs(vectors.T @ g) <= noise)] ** 2).sum(axis=1)
    joint = (share > PART) & ~idle
    if joint.sum() == 1:
        joint = (share > LITTLE) & ~idle
    return Curvature("flat", smallest, inverse, free[idle], free[joint])


def _second_difference(
    objective: Objective, rho: Float[Array, " k"], here: float, direction: Float[Array, " k"]
) -> float:
    """`d2J/ds2` along a direction of unit length, by values of J, which is `here` in the middle."""
    sides = sum(objective.value(rho + side * STRIDE * direction) for side in (-1, 1))
    return float(sides - 2.0 * here) / STRIDE**2


def _differences(objective: Objective, rho: Float[Array, " k"], free: Int[Array, " f"]) -> Float[Array, "f f"]:
    """The Hessian of J in the free hyperparameters by differences of its gradient; NaN where that is not smooth."""
    H = np.empty((len(free), len(free)))
    for row, j in enumerate(free):
        step = np.zeros(len(rho))
        step[j] = DIFFERENCE
        after, before = objective.evaluate(rho + step), objective.evaluate(rho - step)
        failed = after.failure or before.failure
        H[row] = np.nan if failed else (after.gradient - before.gradient)[free] / (2 * DIFFERENCE)
    smooth = np.abs(H - H.T).max() <= ASYMMETRY * np.abs(H).max()
    return (H + H.T) / 2 if smooth else np.full_like(H, np.nan)
