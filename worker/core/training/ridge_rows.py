"""The rows of a split of ridge: their statistics, centred, and the losses that score them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from worker.core.inner.least_squares.primal import SMALLEST_KEPT_FRACTION
from worker.core.losses import ResidualLoss
from worker.core.losses.over_rows import LossOfRows, SquaredErrorOfMoments, SumOfResiduals
from worker.core.records import Array
from worker.core.rows.centre import Centre
from worker.core.rows.problem import Problem
from worker.core.rows.tables import CHUNK_VALUES, Rows, centred, mean_and_variance


def training_rows(problem: Problem, train: Int[Array, " m"]) -> tuple[Float[Array, " m"], Centre, Float[Array, " p"]]:
    """The fixed weights of the rows, the means of `[X, y]`, and the variances of the columns of X."""
    w = problem.base_weights(train)
    mean, variance = mean_and_variance(problem.X, train, w)
    of_target = mean_and_variance(problem.y[:, None], train, w)[0]
    return w, mean.followed_by(of_target), variance


def centred_rows(problem: Problem, rows: Int[Array, " m"], centre: Centre) -> tuple[Rows, Float[Array, " m"]]:
    """The rows of X and y minus the centre."""
    y = centre.of(slice(-1, None)).subtracted_from(problem.y[rows])
    return centred(problem.X, rows, centre.of(slice(-1))), y


def dense_rows(
    problem: Problem, rows: Int[Array, " m"], centre: Centre, ones: int = 0
) -> tuple[Float[Array, "m q"], Float[Array, " m"]]:
    """The rows of X, as an array after so many columns of ones, and of y, minus the centre."""
    X, y = centred_rows(problem, rows, centre)
    dense = X.dense()
    return np.hstack([np.ones((len(rows), ones)), dense]) if ones else dense, y


def far_from_zero(mean: Float[Array, " p"], variance: Float[Array, " p"]) -> bool:
    """Whether columns lie so far from zero that their raw second moments lose digits."""
    return bool(((variance > 0) & (variance < SMALLEST_KEPT_FRACTION * mean**2)).any())


def score_weights_or_none(problem: Problem, rows: Int[Array, " v"]) -> Float[Array, " v"] | None:
    """The scoring weights of the rows; None if all are one."""
    if problem.weights is None and problem.scoring is None:
        return None
    return problem.score_weights(rows)


def loss_of_rows(problem: Problem, rows: Int[Array, " v"], centre: Centre, loss: ResidualLoss) -> SumOfResiduals:
    """The loss of the rows themselves."""
    return LossOfRows(*centred_rows(problem, rows, centre), loss, score_weights_or_none(problem, rows))


def loss_about_reference(
    loss: SquaredErrorOfMoments,
    problem: Problem,
    rows: Int[Array, " v"],
    centre: Centre,
    reference: Float[Array, " p"],
) -> SquaredErrorOfMoments:
    """The same loss about a reference near the minimizers; the residuals there come from the rows, in chunks."""
    p = len(reference)
    S, sums = loss.S.copy(order="F"), np.zeros(p + 1)
    S[:, -1] = 0.0
    for chunk in np.array_split(rows, max(1, len(rows) * p // CHUNK_VALUES)):
        X, y = centred_rows(problem, chunk, centre)
        residual = y - X @ reference
        weighted = problem.score_weights(chunk) * residual
        S[:-1, -1] += weighted @ X
        S[-1, -1] += weighted @ residual
        sums[-1] += weighted.sum()
    mean = np.append(loss.mean[:-1], sums[-1] / loss.weight)
    S[:, -1] -= sums[-1] * mean
    S[-1, :-1] = S[:-1, -1]
    return SquaredErrorOfMoments(loss.weight, S, mean, reference)
