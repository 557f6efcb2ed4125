"""From the best point found to what the caller receives: the refitted model, its scores and its certificates."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from worker.core.losses.measures import Measures, Pooled
from worker.core.objective.objective import Objective
from worker.core.objective.prior import with_prior
from worker.core.objective.scored_model import ScoredRows, scored_by
from worker.core.records import Array, Start
from worker.core.rows.filled import filled_by
from worker.core.rows.problem import Problem
from worker.core.search.descent import Descent
from worker.core.search.plan import Prepared
from worker.core.training import Model
from worker.core.verdict.arithmetic import ARITHMETIC_LIMIT, arithmetic_error
from worker.core.verdict.certificates import DIFFERENCE_LIMIT, RESIDUAL_LIMIT, Certificates, certify
from worker.core.verdict.curvature import Curvature, curvature
from worker.core.verdict.intervals import Intervals, intervals
from worker.core.verdict.remarks import (
    DIGITS_LOST,
    GRADIENT_DISAGREES,
    GRADIENT_NOT_JUDGED,
    NEARLY_SINGULAR,
    TEST_CLASS_MISSING,
    TEST_WEIGHTS_ZERO,
    few_clusters_remark,
    left_out_remark,
    refit_remark,
    separation_remark,
    shape_remarks,
    spread_remark,
)
from worker.core.verdict.split_remarks import split_remarks


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The refit at the best hyperparameters, with scores.

    Standard errors are None if the rows are one cluster, and if a score is no mean over rows.

    `fills` are the values that the refit put for missing ones, in the order of the problem's imputed columns.
    `curvature` and `intervals` are None unless the gradient vanishes to the tolerance of the search. `measures` (pooled
    validation rows) and `test_measures` (test rows) are of classes and not smoothed. `calibration` is Platt's line, if
    there is one.
    """

    model: Model | None
    certificates: Certificates
    standard_error: float | None
    test_value: float | None
    test_error: float | None
    messages: tuple[str, ...]
    fills: Float[Array, " q"]
    curvature: Curvature | None
    intervals: Intervals | None
    noise_variance: float | None
    measures: Measures
    test_measures: Measures
    calibration: tuple[float, float] | None = None


def conclude(prepared: Prepared, best: Start, descent: Descent | None = None) -> Conclusion:
    """Refit at the best point on all rows but the test rows, score the test rows once, and certify.

    `descent`: the one that ended there, which is certified; not needed where J alone was descended.
    """
    if descent is None and best.spread is not None:
        raise ValueError("a point of a hyper-prior, or of a shared value, is concluded with its descent")
    prepared.objective.forget()  # an interrupted run then has the same conclusion
    descended = Descent(prepared, 0, None) if descent is None else descent
    tuned, end = descended.objective, descended.descended(best.best)
    rho = best.best.rho
    clusters = prepared.clusters
    scores = prepared.objective.row_scores(prepared.problem, prepared.partition, rho)
    error = (
        None
        if scores is None
        else prepared.objective.standard_error(scores, prepared.problem, prepared.partition, rho, clusters)
    )
    pooled = prepared.objective.pooled(rho) if prepared.plan.training.classifies else None
    problem, fills = filled_by(prepared.problem, prepared.rows)
    model = prepared.plan.training.model(problem, prepared.rows, prepared.objective.natural(rho))
    certificates = replace(
        certify(tuned, replace(best, best=end), prepared.plan.seed),
        arithmetic_error=arithmetic_error(prepared, best.best),
        refit_gradient_norm=np.nan if model is None else model.gradient_norm,
    )
    messages = left_out_remark(prepared.left_out) + spread_remark(prepared)
    messages += prepared.plan.training.observations(problem, prepared.rows, prepared.partition)
    messages += split_remarks(prepared.plan.selection, prepared.problem, prepared.rows, prepared.partition)
    messages += few_clusters_remark(scores, clusters) + _doubts(certificates, model)
    messages += prepared.objective.remarks(rho)
    test, tested, unscored_remark = _score_test_rows(prepared, model, problem)
    messages += unscored_remark + separation_remark(prepared, model, problem, rho)
    # without an exact Hessian this takes at most as many evaluations as the search did
    settled = is_stationary(prepared, replace(best, best=end), tuned)
    smooth = tuned if descended.prior is None else with_prior(prepared.objective, descended.prior.smooth_near(end.rho))
    shape = curvature(smooth, end, best.evaluations) if settled else None
    if not (shape and shape.point == "saddle" and NEARLY_SINGULAR in messages):  # the curvature is rounding then
        messages += shape_remarks(shape, tuned.hyperparameters.names)
    ends = None if shape is None else intervals(prepared, descended, end, shape)
    noise = prepared.objective.noise_variance(rho)
    return Conclusion(
        model, certificates, error,
        None if test is None else test.value,
        None if test is None else test.standard_error(clusters[prepared.test_rows]),
        messages, fills, shape, ends, noise,
        {} if pooled is None else pooled.measures(),
        {} if tested is None else tested.measures(),
        _calibration(prepared, pooled),
    )  # fmt: skip


def _doubts(certificates: Certificates, model: Model | None) -> tuple[str, ...]:
    """What certificates leave in doubt, and that there is no model."""
    messages: tuple[str, ...] = ()
    if model is None:
        messages += ("The refit on all rows is singular to working precision, so there is no model.",)
    elif model.is_finite and not model.gradient_norm <= RESIDUAL_LIMIT:
        messages += (refit_remark(model.gradient_norm),)
    # NaN gets the remark, too
    if not (certificates.adjoint_residual <= RESIDUAL_LIMIT and certificates.inner_gradient_norm <= RESIDUAL_LIMIT):
        messages += (NEARLY_SINGULAR,)
    if not certificates.finite_difference_error <= DIFFERENCE_LIMIT:
        messages += (GRADIENT_DISAGREES if certificates.judged else GRADIENT_NOT_JUDGED,)
    if certificates.arithmetic_error > ARITHMETIC_LIMIT:
        messages += (DIGITS_LOST.format(int(-np.log10(min(certificates.arithmetic_error, 1.0)))),)
    return messages


def is_stationary(prepared: Prepared, best: Start, tuned: Objective) -> bool:
    """Whether the projected gradient at the point vanishes to the tolerance of the search, however the search ended.

    At a corner of J the smallest convex combination of the gradients around it counts.
    """
    error = best.best.gradient_error / tuned.unit(best.best.value)
    return bool(best.gradient_norm + error <= prepared.outer.tolerance)


def _calibration(prepared: Prepared, pooled: Pooled | None) -> tuple[float, float] | None:
    """Platt's line of the pooled validation rows; None unless the selection loss is Platt's."""
    calibrator, problem = prepared.objective.loss.calibrator, prepared.problem
    if pooled is None or calibrator is None:
        return None
    splits = prepared.partition.splits
    split_weights = prepared.plan.selection.split_weights or (1.0,) * len(splits)
    scored = [prepared.partition.rows(rows) for weight, (_, rows) in zip(split_weights, splits, strict=True) if weight]
    total_weight = sum(float(problem.score_weights(rows).sum()) for rows in scored)  # Platt's targets depend on it
    return calibrator.calibration(pooled.y, pooled.eta, total_weight * pooled.w)


def _score_test_rows(
    prepared: Prepared, model: Model | None, problem: Problem
) -> tuple[ScoredRows | None, Pooled | None, tuple[str, ...]]:
    """The score of the test rows, these rows if training classifies, and a remark if they cannot be scored."""
    rows, score = prepared.test_rows, prepared.objective.loss
    if model is None or not len(rows):
        return None, None, ()
    if not problem.score_weights(rows).any():
        return None, None, (TEST_WEIGHTS_ZERO,)
    tested = (
        Pooled(problem.y[rows], model.predictor(problem, rows), problem.score_weights(rows))
        if prepared.plan.training.classifies
        else None
    )
    if score.lacks(problem.y[rows[problem.score_weights(rows) > 0]]):
        return None, tested, (TEST_CLASS_MISSING.format(score.kind),)
    return scored_by(model, score, problem, rows), tested, ()
