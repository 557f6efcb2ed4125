"""Bounds of the errors of J and of its gradient that an inexact fit and an inexact adjoint cause.

All bounds are rigorous up to rounding and a posteriori: they need residuals, but no constants of the problem. Errors
are measured in a metric `B <= H` (`metric.py`). The curvature of each row bounds how much derivatives change over the
possible range of its predictor. This replaces the constants `mu` and `L` of Ehrhardt and Roberts (2021) and of MAID
(Salehi et al. 2024), which are global and give much larger bounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from worker.core.inner.smooth.fit import GeneralizedLinear, GeneralizedLinearFit
from worker.core.inner.smooth.metric import FactorMetric, Metric, PenaltyMetric
from worker.core.records import Array

RADIUS_FACTORS = (1.02, 1.1, 1.3, 1.7, 2.5, 4.0, 8.0)  # trial radii relative to the dual norm of the gradient


@dataclass(frozen=True, slots=True)
class FitError:
    """The minimizer is within `radius` of theta in the metric.

    `rows` and `scored_rows` are norms of rows: a row's predictor moves by at most `radius` times its norm. Within the
    radius, `changes` bounds the change of each training row's curvature, and H changes by at most `+-relative H`;
    an unknown bound is infinite.
    """

    metric: Metric
    radius: float
    rows: Float[Array, " n"]
    scored_rows: Float[Array, " v"]
    changes: Float[Array, " n"]
    relative: float


def fit_error(system: GeneralizedLinear, fit: GeneralizedLinearFit) -> FitError | None:
    """The distance of a fit from the minimizer; None if the gradient is too large for a bound.

    If `H >= (1 - beta) B` within the radius, the minimizer is no further than `|g| / (1 - beta)`.
    """
    metric = _metric(fit)
    if metric is None:
        return None
    at = fit.at
    rows = metric.rows(system.design)
    gradient_norm = metric.dual(at.gradient)
    for factor in RADIUS_FACTORS:
        moves = factor * gradient_norm * rows
        changes = system.row_loss.curvature_change(system.y, at.eta, moves)
        relative = _relative_change(system, moves, changes)
        beta = min(relative, float(fit.shares.w @ (changes * rows**2)))
        if beta < 1.0 and (1.0 - beta) * factor >= 1.0:
            radius = gradient_norm / (1.0 - beta)
            return FitError(metric, radius, rows, _scored_row_norms(system, metric, rows), changes, relative)
    return None


def _metric(fit: GeneralizedLinearFit) -> Metric | None:
    if fit.ties is not None:
        return None
    if fit.solver == "newton_cholesky":
        L = fit.factor()
        return None if L is None else FactorMetric(L, fit.at.of.m)
    return PenaltyMetric.build(fit.at)


def _scored_row_norms(system: GeneralizedLinear, metric: Metric, rows: Float[Array, " n"]) -> Float[Array, " v"]:
    return rows if system.loss.design is system.design else metric.rows(system.loss.design)


def _relative_change(system: GeneralizedLinear, moves: Float[Array, " n"], changes: Float[Array, " n"]) -> float:
    """A bound of the relative change of any row's curvature."""
    used = changes[system.base > 0]
    if system.row_loss.concordance is None:
        return np.inf if used.any() else 0.0
    with np.errstate(over="ignore"):
        return float(np.expm1(system.row_loss.concordance * moves[system.base > 0].max(initial=0.0)))


def bounds(
    system: GeneralizedLinear, fit: GeneralizedLinearFit, adjoint: Adjoint, eta: Float[Array, "v m"]
) -> tuple[float, float] | None:
    """Bounds of the errors of one split's sum of scores and of its hypergradient (Euclidean); None if unknown.

    `eta` are the predictors of the scored rows. Bounds are known only for scores that are sums over rows.
    """
    score = system.loss.score.by_row
    if score is None:
        return None
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow gives an infinite bound or none
        error = fit_error(system, fit)
        if error is None:
            return None
        slopes = score.slope_change(system.loss.y, eta, error.radius * error.scored_rows)
        theta_bar_change = float(system.loss.w @ (slopes * error.scored_rows))
        value = (error.metric.dual(adjoint.theta_bar) + theta_bar_change) * error.radius
        errors = value, _gradient_error(system, fit, error, adjoint, theta_bar_change)
    return None if np.isnan(errors).any() else errors


@dataclass(frozen=True, slots=True)
class Adjoint:
    """An adjoint u of one split's score, with the residual of `H u = theta_bar`."""

    u: Float[Array, " mq"]
    theta_bar: Float[Array, " mq"]
    residual: Float[Array, " mq"]


def _gradient_error(
    system: GeneralizedLinear, fit: GeneralizedLinearFit, error: FitError, adjoint: Adjoint, theta_bar_change: float
) -> float:
    """A bound of the error of `dJ/drho`; `theta_bar_change` bounds how much `dE/dtheta` changes (dual norm)."""
    u_along_rows = np.linalg.norm(system.design.predictor(adjoint.u), axis=1)
    u_norm = float(np.sqrt(max(adjoint.u @ (adjoint.theta_bar - adjoint.residual), 0.0)))
    known = error.metric.dual(adjoint.residual) + theta_bar_change
    s = fit.shares.w * error.changes
    by_row, trace = float(s @ (u_along_rows * error.rows)), float(s @ error.rows**2)
    u_error = min(
        _largest_error(known + by_row, trace), _largest_error(known + error.relative * u_norm, error.relative)
    )
    if not np.isfinite(u_error):
        return np.inf
    penalty, theta = fit.penalty, fit.theta
    theta_norm = float(np.sqrt(penalty.contract(theta, theta).max(initial=0.0)))
    u_penalty_norm = float(np.sqrt(penalty.contract(adjoint.u, adjoint.u).max(initial=0.0)))
    bound = theta_norm * u_error + (u_penalty_norm + u_error) * error.radius
    return bound + _weights_error(system, fit, error, u_along_rows, u_error)


def _weights_error(
    system: GeneralizedLinear,
    fit: GeneralizedLinearFit,
    error: FitError,
    u_along_rows: Float[Array, " n"],
    u_error: float,
) -> float:
    """The part from tuned example weights, which multiply `loss' z^T u` of each row."""
    if not fit.shares.w_dot.shape[1]:
        return 0.0
    slopes = np.linalg.norm(fit.at.rows.slope, axis=1)
    changes = system.row_loss.slope_change(system.y, fit.at.eta, error.radius * error.rows)
    row_errors = u_error * error.rows
    return float(
        np.linalg.norm((slopes * row_errors + changes * (u_along_rows + row_errors)) @ np.abs(fit.shares.w_dot))
    )


def _largest_error(value: float, factor: float) -> float:
    """The largest e with `e <= value + factor e`."""
    return value / (1.0 - factor) if factor < 1.0 else np.inf
