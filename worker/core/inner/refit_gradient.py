"""How far a returned linear model is from the minimum of its training criterion, from its coefficients and the rows.

Nothing of the fit is used: no moments, no factor, no parameters in other units. So what a conversion to the returned
coefficients loses is in it, too.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from worker.core.inner.linear_model import LinearModel
from worker.core.losses.training_loss import MachineLoss, TrainingLoss
from worker.core.penalties.forms import Penalized
from worker.core.records import Array
from worker.core.rows.design import Design
from worker.core.rows.problem import Problem

EPS = float(np.finfo(float).eps)
LARGEST_OF_ROUNDING = 1e-8  # the most that rounding of the predictors alone may make of the norm


def refit_gradient_norm(
    model: LinearModel,
    problem: Problem,
    design: Design,
    shares: Float[Array, " n"],
    loss: TrainingLoss | MachineLoss,
    penalty: Penalized,
) -> float:
    """The gradient of C in the slopes and, added, that in the intercepts, each relative to its size.

    `C = sum_i s_i loss_i(eta_i) + theta^T P theta / 2` with the slopes theta of all outputs, one after the other. The
    rows of the design are the trained ones, centred. Slopes are in units of curvature: with h the diagonal of H,
    `sqrt(sum g_j^2 / h_j)` relative to `sqrt(sum h_j theta_j^2)`, as a diagonal Newton step relative to theta. The
    intercepts' is relative to the sum of the sizes of the rows' slopes where eta is zero. NaN if it overflows.
    """
    y, theta, counted = problem.y[design.rows], np.ravel(model.coefficients), shares > 0
    eta = np.where(counted[:, None], model.predictor(problem, design.rows), 0.0)
    at = loss.at(y, eta, shares)
    m, i, q = eta.shape[1], int(design.intercept), design.q
    prior, squares = penalty.apply(theta), np.tile(design.diagonal([(0, 0, shares)], 1)[i:], m)
    with np.errstate(all="ignore"):
        g = design.back(at.slope[:, :, None])[:, 0].reshape(m, q)[:, i:].ravel() + prior
        h = design.diagonal(at.blocks(), m).reshape(m, q)[:, i:].ravel() + penalty.whole_diagonal()
        h = np.maximum(h, EPS * squares)  # no curvature at all, as of a hinge that no row bends
        used = h > 0  # a constant column without a penalty has no effect
        g, h, prior, squares, theta = g[used], h[used], prior[used], squares[used], theta[used]
        slope = float(np.sqrt(np.sum(at.slope[counted] ** 2 / shares[counted, None])))  # root mean square
        bend = float(np.sqrt(np.sum(at.bend(eta[:, :, None])[counted, :, 0] ** 2 / shares[counted, None])))
        noise = EPS * float(np.sqrt(np.sum((slope**2 + bend**2) * squares / h + prior**2 / h)))
        size = max(float(np.sqrt(np.sum(h * theta**2))), noise / LARGEST_OF_ROUNDING) or 1.0
        norm = float(np.sqrt(np.sum(g**2 / h))) / size
        if design.intercept:
            norm += _of_intercepts(at.slope, loss.at(y, _without_model(problem, design, m), shares).slope)
    return norm


def _of_intercepts(slope: Float[Array, "n m"], at_zero: Float[Array, "n m"]) -> float:
    """The norm of the sums of the slopes of the rows relative to the sum of their sizes without a model."""
    return float(np.linalg.norm(slope.sum(axis=0))) / (float(np.abs(at_zero).sum()) or 1.0)


def _without_model(problem: Problem, design: Design, m: int) -> Float[Array, "n m"]:
    """The predictors of a model of zeros: the offset."""
    eta = np.zeros((len(design), m))
    return eta if problem.offset is None else eta + problem.offset[design.rows, None]
