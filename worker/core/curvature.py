"""The shape of J at the result: whether it is a minimum, and how far each hyperparameter can move."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import eigh

from worker.core.outer_objective import Objective
from worker.core.records import Array

MOST = 500  # hyperparameters up to which the dense Hessian is computed for this
PART = 0.05  # share of a hyperparameter in flat directions from which on it is said to take part in them
FLAT = 1e-8  # of the unit of J for a change by a factor e: smaller curvatures cannot be told from zero
BENT = 1e-6  # the same for curvatures below zero where the Hessian is made of differences of the gradient
DIFFERENCE = 2e-4  # on the scale of rho: these then err by 1e-8 of the curvature, and by rounding
ASYMMETRY = 1e-3  # of the largest entry; beyond, the gradient jumps between the points


@dataclass(frozen=True, slots=True)
class Curvature:
    """Of J on the scale of rho, over the unit of J, in the hyperparameters that are not at a bound.

    `smallest` is the smallest eigenvalue of that part of the Hessian, None where every hyperparameter is at a
    bound. `inverse_diagonal` is the diagonal of its inverse (flat directions count as `FLAT`), one entry for each
    hyperparameter and NaN at a bound; None unless the point is a minimum. J does not depend on the `idle`
    hyperparameters, and is flat along joint changes of those in `joint`.
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


def curvature(objective: Objective, rho: Float[Array, " k"], value: float, gradients: int = 0) -> Curvature | None:
    """The curvature at `rho`, where J has this value.

    Where J has no exact Hessian, by differences of its gradient if they take no more than so many `gradients`. None
    above `MOST` hyperparameters, and where there is neither.
    """
    if len(rho) > MOST:
        return None
    bounds = objective.hyperparameters.at_bound(rho)
    free = np.flatnonzero([bound is None for bound in bounds])
    if len(free) == 0:
        return Curvature("minimum", None, np.full(len(rho), np.nan))
    if not objective.has_hessian and 2 * len(free) > gradients:
        return None
    exact = objective.has_hessian
    H = (objective.hessian(rho, free) if exact else _differences(objective, rho, free)) / objective.unit(value)
    return _of_hessian(H, len(rho), free, FLAT if exact else BENT) if np.isfinite(H).all() else None


def _of_hessian(H: Float[Array, "f f"], k: int, free: Int[Array, " f"], bent: float) -> Curvature:
    """From the Hessian over the unit of J; eigenvalues below `-bent` are those of a saddle."""
    eigenvalues, vectors = eigh(H)
    smallest = float(eigenvalues[0])
    if smallest < -bent:
        return Curvature("saddle", smallest, None)
    inverse = np.full(k, np.nan)
    inverse[free] = vectors**2 @ (1.0 / np.maximum(eigenvalues, FLAT))
    if smallest > FLAT:
        return Curvature("minimum", smallest, inverse)
    idle = np.abs(H).max(axis=1) <= FLAT
    part = (vectors[:, eigenvalues <= FLAT] ** 2).sum(axis=1) > PART
    return Curvature("flat", smallest, inverse, free[idle], free[part & ~idle])


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
