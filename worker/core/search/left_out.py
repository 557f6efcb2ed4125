"""What tuning many hyperparameters is worth on new rows: each row judged as if it had not taken part in their choice.

A linearised leave-one-row-out of the hyperparameters: without row i, J has its minimum at `rho + delta_i`, with
`delta_i = M g_i w_i / (1 - h_i)`, M the inverse of the Hessian of the criterion that was descended and g_i the
hypergradient of the row's loss. The loss of row i there is what the row says of itself as a new one. To first order
their mean is J plus `tr(M V) / n` (Takeuchi 1976), V the second moment of the g_i. Rows of one cluster (a group, or the
horizon of a walk-forward step) leave together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import eigh

from worker.core.objective.row_tangents import RowTangents
from worker.core.records import Array
from worker.core.search.plan import Prepared

MOST_JUDGED = 2_000  # hyperparameters: the eigenvectors of a larger Hessian take too long
LARGEST_LEVERAGE = 0.8  # of a row in the choice of hyperparameters: beyond, the linear model is too coarse
LONGEST_STEP = 3.0  # of a hyperparameter that one row moves, on the scale of rho
LEAST_CURVATURE = 0.1  # of the Hessian, in units of the hyper-prior's


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The losses of the validation rows as if each had not taken part, their weights in J, and their clusters."""

    left_out: Float[Array, " v"]
    weights: Float[Array, " v"]
    clusters: Int[Array, " v"]

    @property
    def corrected(self) -> float:
        """The mean loss that new rows can expect: J plus the optimism of the choice."""
        return float(self.weights @ self.left_out)


@dataclass(frozen=True, slots=True)
class RowsAt:
    """The validation rows at `rho` and the hyperparameters that may move, in chunks that are made anew each time."""

    prepared: Prepared
    rho: Float[Array, " k"]
    free: Int[Array, " f"]

    def __iter__(self) -> Iterator[RowTangents]:
        """The chunks. Raises ValueError unless `known`."""
        found = self._found()
        if found is None:
            raise ValueError("training is singular here")
        return found

    @property
    def known(self) -> bool:
        """Whether J is a mean over rows whose tangents are known."""
        return self._found() is not None

    def _found(self) -> Iterator[RowTangents] | None:
        prepared = self.prepared
        return prepared.objective.row_tangents(prepared.problem, prepared.partition, self.rho, self.free)


def left_out(
    prepared: Prepared, rho: Float[Array, " k"], prior: Float[Array, "k k"] | None, unit: float, sizes: Int[Array, " k"]
) -> LeftOut | None:
    """The losses at a minimum of J plus a hyper-prior with this Hessian; None if J is no mean over known rows.

    `unit`: that of J a row, over the number of rows. `sizes`: how many like hyperparameters each stands for.
    Hyperparameters at a bound do not move.
    """
    objective = prepared.objective
    free = np.flatnonzero([bound is None for bound in objective.hyperparameters.at_bound(rho)])
    rows = RowsAt(prepared, rho, free)
    if len(free) > MOST_JUDGED or not rows.known:
        return None
    H = objective.hessian(rho, free) if objective.has_hessian else _gauss_newton(rows)
    if prior is not None:
        H = H + prior[np.ix_(free, free)]
    if not np.isfinite(H).all():
        return None
    B = root_of_inverse(H, unit, sizes[free])
    pulls = _pulls_of(rows, B, prepared.clusters)
    losses, weights, clusters = [], [], []
    for part in rows:
        pulled, h = pulls(part)
        delta = (pulled / (1.0 - np.minimum(h, LARGEST_LEVERAGE))[:, None]) @ B.T
        np.clip(delta, -LONGEST_STEP, LONGEST_STEP, out=delta)
        losses.append(part.losses(part.eta + np.einsum("vmf,vf->vm", part.D, delta)))
        weights.append(part.weights)
        clusters.append(prepared.clusters[part.rows])
    return LeftOut(*(np.concatenate(one) for one in (losses, weights, clusters)))


def root_of_inverse(H: Float[Array, "f f"], unit: float, sizes: Int[Array, " f"]) -> Float[Array, "f f"]:
    """B with `B B^T = M`, the inverse of H with no curvature below `LEAST_CURVATURE` units."""
    lengths = np.sqrt(sizes)  # of moves of all like ones together, so that the least curvature is that of each
    values, vectors = eigh(H / np.outer(lengths, lengths))
    return np.asarray(vectors / np.outer(lengths, np.sqrt(np.maximum(values, LEAST_CURVATURE * unit))))


def _pulls(part: RowTangents, B: Float[Array, "f r"]) -> tuple[Float[Array, "v r"], Float[Array, " v"]]:
    """`B^T g_i w_i` and the leverage `w_i tr(B^T D_i^T l'' D_i B)` of each row."""
    T = part.D @ B
    pulled = np.einsum("vm,vmr->vr", part.slopes(part.eta), T) * part.weights[:, None]
    bent = np.einsum("vab,vbr->var", part.curvatures(part.eta), T)
    return pulled, part.weights * np.einsum("var,var->v", T, bent)


def unit_of_losses(rows: RowsAt) -> float | None:
    """`sum_i w_i l'_i^2 / sum_i w_i l''_i` of the losses in the predictors; None if they do not bend upwards.

    Of a likelihood of the right model it is one (Bartlett's identity), of squared errors twice their mean.
    """
    squares = bends = 0.0
    for part in rows:
        squares += float(part.weights @ (part.slopes(part.eta) ** 2).sum(axis=1))
        bends += float(part.weights @ np.trace(part.curvatures(part.eta), axis1=1, axis2=2))
    return squares / bends if bends > 0.0 else None


Pulls = Callable[[RowTangents], tuple[Float[Array, "v r"], Float[Array, " v"]]]


def _pulls_of(rows: RowsAt, B: Float[Array, "f r"], clusters: Int[Array, " n"]) -> Pulls:
    """`_pulls`, or their sums over the rows of each row's cluster."""
    size = int(clusters.max()) + 1
    if size == len(clusters):  # each row by itself
        return lambda part: _pulls(part, B)
    pulled, h = np.zeros((size, B.shape[1])), np.zeros(size)
    for part in rows:
        of_rows, leverages = _pulls(part, B)
        np.add.at(pulled, clusters[part.rows], of_rows)
        np.add.at(h, clusters[part.rows], leverages)
    return lambda part: (pulled[clusters[part.rows]], h[clusters[part.rows]])


def _gauss_newton(rows: RowsAt) -> Float[Array, "f f"]:
    """The Hessian of J without the curvature of the predictors: `sum_i w_i D_i^T l''_i D_i`."""
    f = len(rows.free)
    H = np.zeros((f, f))
    for part in rows:
        weighted = part.weights[:, None, None] * np.einsum("vab,vbf->vaf", part.curvatures(part.eta), part.D)
        flat = int(np.prod(part.D.shape[:-1])), f  # f may be zero
        H += part.D.reshape(flat).T @ weighted.reshape(flat)
    return H
