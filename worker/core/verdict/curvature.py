"""The shape of J at the result: whether it is a minimum, and how far each hyperparameter can move."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import eigh

from worker.core.objective.objective import Objective
from worker.core.records import Array, Evaluation

MAX_HYPERPARAMETERS = 500  # above, the dense Hessian is not computed for this
JOINT_FRACTION = 0.05  # a hyperparameter with more of its unit vector (squared norm) in flat directions is in `joint`
PARTNER_FRACTION = 1e-3  # the same if only one would be left: a joint change needs two
FLAT_CURVATURE = 1e-8  # in units of J for a change by a factor e; smaller ones cannot be distinguished from zero
LARGEST_FINAL_SLOPE = 1e-5  # in units of J: a search may end with this slope left
FLAT_CURVATURE_OF_DIFFERENCES = 1e-6  # the same for a Hessian from differences of the gradient
GRADIENT_DIFFERENCE_STEP = 2e-4  # on the scale of rho: differences err by 1e-8 of the curvature, and by rounding
LARGEST_ASYMMETRY = 1e-3  # of H, relative to its largest entry; above, the gradient jumps between the points
VALUE_DIFFERENCE_STEP = 1e-2  # on the scale of rho, to both sides along the least curvature: values of J check it
# fraction of a negative curvature that values of J have to show; error of others, relative to the largest entry of H
CONFIRMED_FRACTION, LARGEST_DISAGREEMENT = 0.25, 0.05


@dataclass(frozen=True, slots=True)
class Curvature:
    """The curvature of J on the scale of rho, in units of J, over the `free` hyperparameters, which no bound holds.

    `smallest` is the smallest eigenvalue of that part of the Hessian, None if bounds hold every hyperparameter.
    `inverse` is its inverse, with `FLAT_CURVATURE` in flat directions; None at a saddle. J does not depend on the
    `idle` hyperparameters, and is flat along joint changes of those in `joint`.
    """

    point: Literal["minimum", "flat", "saddle"]
    smallest: float | None
    free: Int[Array, " f"]
    inverse: Float[Array, "f f"] | None
    idle: Int[Array, " i"] = field(default_factory=lambda: np.empty(0, int))
    joint: Int[Array, " m"] = field(default_factory=lambda: np.empty(0, int))

    def half_widths(self, rise: float) -> Float[Array, " f"] | None:
        """How far each free hyperparameter can move, with the others optimal, before J rises by `rise` units.

        In the quadratic model: `sqrt(2 rise (H^-1)_jj)`, on the scale of rho.
        """
        return None if self.inverse is None else np.sqrt(2.0 * rise * np.diag(self.inverse))


def curvature(objective: Objective, at: Evaluation, gradients: int = 0) -> Curvature | None:
    """The curvature at a point where J was evaluated.

    If J has no exact Hessian, differences of its gradient replace it, unless they take more than `gradients`
    evaluations. None above `MAX_HYPERPARAMETERS`, if there is no Hessian, or if values of J nearby do not confirm it:
    if the gradient jumps, as for losses with corners, the Hessian means little.
    """
    rho, unit = at.rho, objective.unit(at.value)
    bounds = objective.hyperparameters.at_bound(rho)
    inward = np.abs(objective.hyperparameters.projected(rho, at.gradient)) > LARGEST_FINAL_SLOPE * unit
    free = np.flatnonzero([bound is None or points_inward for bound, points_inward in zip(bounds, inward, strict=True)])
    exact = objective.has_hessian
    affordable = len(rho) <= MAX_HYPERPARAMETERS and (exact or 2 * len(free) <= gradients)
    if len(free) == 0 and len(rho) <= MAX_HYPERPARAMETERS:
        return Curvature("minimum", None, free, np.empty((0, 0)))
    # training from scratch may not reach what warm starts reached
    here = objective.value(rho) if affordable else np.inf
    if not np.isfinite(here):
        return None
    H = (objective.hessian(rho, free) if exact else _hessian_by_differences(objective, rho, free)) / unit
    if not np.isfinite(H).all():
        return None
    eigenvalues, vectors = eigh(H)
    # if two hyperparameters have the same effect, or if J levels off like a power of lam, the curvature is of the size
    # of the remaining slope
    g = at.gradient[free] / unit
    noise = max(
        FLAT_CURVATURE if exact else FLAT_CURVATURE_OF_DIFFERENCES,
        min(2.0 * float(np.abs(g).max()), LARGEST_FINAL_SLOPE),
    )
    smallest, saddle = float(eigenvalues[0]), bool(eigenvalues[0] < -noise)
    direction = np.zeros(len(rho))
    direction[free] = vectors[:, 0]
    measured = _second_difference(objective, rho, here, direction) / unit
    largest_error = max(LARGEST_DISAGREEMENT * float(np.abs(H).max()), noise)
    confirmed = measured <= CONFIRMED_FRACTION * smallest if saddle else abs(measured - smallest) <= largest_error
    if not confirmed:
        return None
    if saddle:
        return Curvature("saddle", smallest, free, None)
    return _classify(H, (eigenvalues, vectors), g, noise, free)


def evaluations_of_curvature(k: int, gradients: int, *, exact: bool) -> int:
    """How many evaluations of J `curvature` takes with `k` free hyperparameters, besides an exact Hessian."""
    if k > MAX_HYPERPARAMETERS or (not exact and 2 * k > gradients):
        return 0
    return 3 if exact else 3 + 2 * k


def _classify(
    H: Float[Array, "f f"],
    eigen: tuple[Float[Array, " f"], Float[Array, "f f"]],
    g: Float[Array, " f"],
    noise: float,
    free: Int[Array, " f"],
) -> Curvature:
    """Minimum or flat, for a point that is no saddle. H and g are in units of J; curvatures up to `noise` are flat."""
    eigenvalues, vectors = eigen
    smallest, inverse = float(eigenvalues[0]), (vectors / np.maximum(eigenvalues, FLAT_CURVATURE)) @ vectors.T
    if smallest > noise:
        return Curvature("minimum", smallest, free, inverse)
    # a slope without curvature is not flat
    idle = (np.abs(H).max(axis=1) <= FLAT_CURVATURE) & (np.abs(g) <= FLAT_CURVATURE)
    flat_fraction = (vectors[:, (eigenvalues <= noise) & (np.abs(vectors.T @ g) <= noise)] ** 2).sum(axis=1)
    joint = (flat_fraction > JOINT_FRACTION) & ~idle
    if joint.sum() == 1:
        joint = (flat_fraction > PARTNER_FRACTION) & ~idle
    return Curvature("flat", smallest, free, inverse, free[idle], free[joint])


def _second_difference(
    objective: Objective, rho: Float[Array, " k"], here: float, direction: Float[Array, " k"]
) -> float:
    """`d2J/ds2` along a direction of unit length, from values of J; `here` is the one in the middle."""
    sides = sum(objective.value(rho + side * VALUE_DIFFERENCE_STEP * direction) for side in (-1, 1))
    return float(sides - 2.0 * here) / VALUE_DIFFERENCE_STEP**2


def _hessian_by_differences(
    objective: Objective, rho: Float[Array, " k"], free: Int[Array, " f"]
) -> Float[Array, "f f"]:
    """The Hessian of J in the free hyperparameters from differences of its gradient; NaN if the gradient jumps."""
    H = np.empty((len(free), len(free)))
    for row, j in enumerate(free):
        step = np.zeros(len(rho))
        step[j] = GRADIENT_DIFFERENCE_STEP
        after, before = objective.evaluate(rho + step), objective.evaluate(rho - step)
        failed = after.failure or before.failure
        H[row] = np.nan if failed else (after.gradient - before.gradient)[free] / (2 * GRADIENT_DIFFERENCE_STEP)
    smooth = np.abs(H - H.T).max() <= LARGEST_ASYMMETRY * np.abs(H).max()
    return (H + H.T) / 2 if smooth else np.full_like(H, np.nan)
