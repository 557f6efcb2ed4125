"""How far an inexact fit and an inexact adjoint are from the exact ones, and what that does to J and to its gradient.

All bounds are rigorous up to rounding, and a posteriori: they need the residuals that are left, no constants of the
problem. Errors are measured in a metric `B <= H` (`metric.py`), and each row's own curvature says how much derivatives
can change where its predictor can move. This takes the place of the constants `mu` and `L` of Ehrhardt and Roberts
(2021) and of MAID (Salehi et al. 2024), which are global and so much larger.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from worker.core.inner.smooth.fit import GeneralizedLinear, GeneralizedLinearFit
from worker.core.inner.smooth.metric import Metric, OfFactor, OfPenalty
from worker.core.losses.over_rows import RowScore
from worker.core.records import Array

RADII = (1.02, 1.1, 1.3, 1.7, 2.5, 4.0, 8.0)  # times the first bound, tried in turn


@dataclass(frozen=True, slots=True)
class FitError:
    """The minimizer is within `radius` of theta in the metric.

    `rows` and `scored_rows` are the norms of rows, `radius` times which their predictors move at most. Within
    the radius `changes` bounds how the curvature of each training row changes, and `relative` how H does, as
    `+-relative H`; infinite where it is not known.
    """

    metric: Metric
    radius: float
    rows: Float[Array, " n"]
    scored_rows: Float[Array, " v"]
    changes: Float[Array, " n"]
    relative: float


def fit_error(system: GeneralizedLinear, fit: GeneralizedLinearFit) -> FitError | None:
    """None where the gradient that is left is too large to say anything.

    If H does not fall below `(1 - beta) B` within the radius, the minimizer is no further than `|g| / (1 - beta)`.
    """
    metric = _metric(fit)
    if metric is None:
        return None
    at = fit.at
    rows = metric.rows(system.design)
    left = metric.dual(at.gradient)
    for factor in RADII:
        moves = factor * left * rows
        changes = system.row_loss.curvature_change(system.y, at.eta, moves)
        relative = _relative(system, moves, changes)
        beta = min(relative, float(fit.shares.w @ (changes * rows**2)))
        if beta < 1.0 and (1.0 - beta) * factor >= 1.0:
            radius = left / (1.0 - beta)
            return FitError(metric, radius, rows, _rows_of(system, metric, rows), changes, relative)
    return None


def _metric(fit: GeneralizedLinearFit) -> Metric | None:
    if fit.holds:
        return None
    if fit.solver == "newton_cholesky":
        L = fit.factor()
        return None if L is None else OfFactor(L, fit.at.of.m)
    return OfPenalty.build(fit.at)


def _rows_of(system: GeneralizedLinear, metric: Metric, rows: Float[Array, " n"]) -> Float[Array, " v"]:
    return rows if system.loss.design is system.design else metric.rows(system.loss.design)


def _relative(system: GeneralizedLinear, moves: Float[Array, " n"], changes: Float[Array, " n"]) -> float:
    """How much the curvature of any row can change relative to itself."""
    used = changes[system.base > 0]
    if system.row_loss.concordance is None:
        return np.inf if used.any() else 0.0
    with np.errstate(over="ignore"):
        return float(np.expm1(system.row_loss.concordance * moves[system.base > 0].max(initial=0.0)))


def bounds(
    system: GeneralizedLinear, fit: GeneralizedLinearFit, adjoint: Adjoint, eta: Float[Array, "v m"]
) -> tuple[float, float] | None:
    """Of the errors of one split's sum of scores and of its hypergradient (Euclidean); None where nothing is known.

    `eta` are the predictors of the scored rows. Known are bounds for scores that are sums over rows.
    """
    if not isinstance(system.loss.score, RowScore):
        return None
    with np.errstate(over="ignore", invalid="ignore"):  # a bound that overflows says nothing
        error = fit_error(system, fit)
        if error is None:
            return None
        slopes = system.loss.score.slope_change(system.loss.y, eta, error.radius * error.scored_rows)
        of_score = float(system.loss.w @ (slopes * error.scored_rows))
        value = (error.metric.dual(adjoint.theta_bar) + of_score) * error.radius
        found = value, _gradient_error(system, fit, error, adjoint, of_score)
    return None if np.isnan(found).any() else found


@dataclass(frozen=True, slots=True)
class Adjoint:
    """An adjoint u of one split's score, and what is left of its equation."""

    u: Float[Array, " mq"]
    theta_bar: Float[Array, " mq"]
    residual: Float[Array, " mq"]


def _gradient_error(
    system: GeneralizedLinear, fit: GeneralizedLinearFit, error: FitError, adjoint: Adjoint, of_score: float
) -> float:
    """`of_score` bounds how much `dE/dtheta` changes within the radius, in the dual norm."""
    along = np.linalg.norm(system.design.predictor(adjoint.u), axis=1)
    size = float(np.sqrt(max(adjoint.u @ (adjoint.theta_bar - adjoint.residual), 0.0)))
    fixed = error.metric.dual(adjoint.residual) + of_score
    s = fit.shares.w * error.changes
    by_row, trace = float(s @ (along * error.rows)), float(s @ error.rows**2)
    u_error = min(_grown(fixed + by_row, trace), _grown(fixed + error.relative * size, error.relative))
    if not np.isfinite(u_error):
        return np.inf
    penalty, theta = fit.penalty, fit.theta
    of_theta = float(np.sqrt(penalty.contract(theta, theta).max(initial=0.0)))
    of_u = float(np.sqrt(penalty.contract(adjoint.u, adjoint.u).max(initial=0.0)))
    bound = of_theta * u_error + (of_u + u_error) * error.radius
    return bound + _of_weights(system, fit, error, along, u_error)


def _of_weights(
    system: GeneralizedLinear, fit: GeneralizedLinearFit, error: FitError, along: Float[Array, " n"], u_error: float
) -> float:
    """The part of tuned example weights: they multiply `loss' z^T u` of each row."""
    if not fit.shares.w_dot.shape[1]:
        return 0.0
    slopes = np.linalg.norm(fit.at.rows.slope, axis=1)
    changes = system.row_loss.slope_change(system.y, fit.at.eta, error.radius * error.rows)
    off = u_error * error.rows
    return float(np.linalg.norm((slopes * off + changes * (along + off)) @ np.abs(fit.shares.w_dot)))


def _grown(value: float, share: float) -> float:
    """`e <= value + share e`, solved."""
    return value / (1.0 - share) if share < 1.0 else np.inf
