"""The intercept where no row is curved, as when every residual is beyond delta of the Huber loss.

C is then constant in the intercept on an interval, whose ends are kinks of two rows. The fit takes the middle of it, so
that it is a function of the hyperparameters; with slopes `v` the middle is `b = c - x^T v`, x the mean of both rows.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from worker.core.inner.kernel.best_intercept import BestIntercept
from worker.core.inner.kernel.row_losses import RowLosses
from worker.core.inner.smooth.criterion import Point
from worker.core.losses.training_loss import MachineLoss
from worker.core.records import Array

AT_A_KINK = 1e-7  # of a row from its kink, relative to its predictor and target; up to it Newton may have led there


def has_straight_intercept(at: Point) -> bool:
    """Whether there is an intercept and no row is curved."""
    return at.of.design.intercept and not any(w.any() for _, _, w in at.blocks())


def settled(at: Point) -> Point:
    """The point with the best intercept for its slopes, if no row is curved beyond its kink; else the point itself."""
    of = at.of
    loss = of.loss.straight
    if loss is None or not of.design.intercept or not np.isfinite(at.value):
        return at
    curved = np.flatnonzero(of.shares * at.rows.curvatures()[:, 0, 0])
    if len(curved):
        eta, y = at.eta[curved, 0], of.y[curved]
        distance = np.abs(loss.kinks_of(y) - eta).min(axis=0)
        if (distance > AT_A_KINK * (np.abs(eta) + np.abs(y))).any():
            return at
    best = _best_intercept(at, loss)
    if best is None or best.b == at.theta[0] or (len(curved) and not best.held.any()):
        return at
    new = of.at(np.append(best.b, at.theta[1:]))
    return new if new.value <= at.value + 1e-12 * abs(at.value) else at


def ties(at: Point) -> Float[Array, "mq m"] | None:
    """Columns `e` with `e^T theta` constant as theta moves: for each intercept without curvature; None if it has some.

    An intercept in the middle of an interval moves with its ends; that of a loss without kinks is held.
    """
    if not has_straight_intercept(at):
        return None
    of, m = at.of, at.of.m
    best = None if of.loss.straight is None else _best_intercept(at, of.loss.straight)
    if best is None or not best.held.any():
        E = np.zeros((m * of.design.q, m))
        E[:: of.design.q] = np.eye(m)
        return E
    held = np.zeros(len(of.y))
    held[of.shares > 0] = best.held
    return of.design.back(held[:, None, None])[:, 0][:, None]


def _best_intercept(at: Point, loss: MachineLoss) -> BestIntercept | None:
    of = at.of
    counted = of.shares > 0
    rows = RowLosses(loss, of.y[counted], of.shares[counted])
    return BestIntercept.of(rows, at.eta[counted, 0] - at.theta[0])
