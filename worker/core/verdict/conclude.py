"""From the best point found to what the caller receives: the refitted model, its scores and its certificates."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from worker.core.losses.measures import Measures, Pooled
from worker.core.records import Array, Start
from worker.core.rows.filled import filled_by
from worker.core.rows.problem import Problem
from worker.core.search.plan import Prepared
from worker.core.training import Model
from worker.core.verdict.arithmetic import ARITHMETIC_LIMIT, arithmetic_error
from worker.core.verdict.certificates import DIFFERENCE_LIMIT, RESIDUAL_LIMIT, Certificates, certify
from worker.core.verdict.curvature import Curvature, curvature
from worker.core.verdict.remarks import (
    DIGITS_LOST,
    GRADIENT_DISAGREES,
    GRADIENT_NOT_JUDGED,
    NEARLY_SINGULAR,
    TEST_CLASS_MISSING,
    TEST_WEIGHTS_ZERO,
    left_out_remark,
    separation_remark,
    shape_remarks,
    spread_remark,
)
from worker.core.verdict.split_remarks import split_remarks


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The refit at the best hyperparameters, with scores. `standard_error` is None for a single validation row.

    `fills` are the values that the refit put for missing ones, in the order of the problem's imputed columns. Between
    the ends in `intervals`, in natural units and inside the box, each hyperparameter can move before J rises by one
    standard error (by half a nat if J is a likelihood); NaN for those at a bound. `measures` (pooled validation rows)
    and `test_measures` (test rows) are of classes and not smoothed. `calibration` is Platt's line, if there is one.
    """

    model: Model | None
    certificates: Certificates
    standard_error: float | None
    test_value: float | None
    messages: tuple[str, ...]
    fills: Float[Array, " q"]
    curvature: Curvature | None
    intervals: tuple[Float[Array, " k"], Float[Array, " k"]] | None
    noise_variance: float | None
    measures: Measures
    test_measures: Measures
    calibration: tuple[float, float] | None = None


def conclude(prepared: Prepared, best: Start) -> Conclusion:
    """Refit at the best point on all rows but the test rows, score the test rows once, and certify."""
    prepared.objective.forget()  # an interrupted run then has the same conclusion
    rho, unit = best.best.rho, prepared.objective.unit(best.best.value)
    arithmetic = arithmetic_error(prepared, best.best)
    certificates = replace(certify(prepared.objective, best, prepared.plan.seed), arithmetic_error=arithmetic)
    scores = prepared.objective.row_scores(prepared.problem, prepared.partition, rho)
    pooled = prepared.objective.pooled(rho) if prepared.plan.training.classifies else None
    standard_error = None if scores is None else scores.standard_error()
    problem, fills = filled_by(prepared.problem, prepared.rows)
    model = prepared.plan.training.model(problem, prepared.rows, prepared.objective.natural(rho))
    messages = left_out_remark(prepared.left_out) + spread_remark(prepared)
    messages += prepared.plan.training.observations(problem, prepared.rows, prepared.partition)
    messages += split_remarks(prepared.plan.selection, prepared.problem, prepared.rows, prepared.partition)
    if model is None:
        messages += ("The refit on all rows is singular to working precision, so there is no model.",)
    # NaN gets the remark, too
    if not (certificates.adjoint_residual <= RESIDUAL_LIMIT and certificates.inner_gradient_norm <= RESIDUAL_LIMIT):
        messages += (NEARLY_SINGULAR,)
    if not certificates.finite_difference_error <= DIFFERENCE_LIMIT:
        messages += (GRADIENT_DISAGREES if certificates.judged else GRADIENT_NOT_JUDGED,)
    if arithmetic > ARITHMETIC_LIMIT:
        messages += (DIGITS_LOST.format(int(-np.log10(min(arithmetic, 1.0)))),)
    messages += prepared.objective.remarks(rho)
    test_value, tested, unscored_remark = _score_test_rows(prepared, model, problem)
    messages += unscored_remark + separation_remark(prepared, model, problem, rho)
    # without an exact Hessian this takes at most as many evaluations as the search did
    shape = curvature(prepared.objective, best.best, best.evaluations)
    if not (shape and shape.point == "saddle" and NEARLY_SINGULAR in messages):  # the curvature is rounding then
        messages += shape_remarks(shape, prepared.objective.hyperparameters.names)
    rise = prepared.objective.meaning.noticeable(standard_error)
    intervals = None if shape is None or rise is None else _intervals(prepared, rho, shape, rise / unit)
    noise = prepared.objective.noise_variance(rho)
    return Conclusion(
        model, certificates, standard_error, test_value, messages, fills, shape, intervals, noise,
        {} if pooled is None else pooled.measures(),
        {} if tested is None else tested.measures(),
        _calibration(prepared, pooled),
    )  # fmt: skip


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
) -> tuple[float | None, Pooled | None, tuple[str, ...]]:
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
    return model.score(score, problem, rows), tested, ()


def _intervals(
    prepared: Prepared, rho: Float[Array, " k"], shape: Curvature, rise: float
) -> tuple[Float[Array, " k"], Float[Array, " k"]] | None:
    half_widths, box = shape.half_widths(rise), prepared.objective.hyperparameters
    if half_widths is None:
        return None
    low, high = np.maximum(rho - half_widths, box.lower), np.minimum(rho + half_widths, box.upper)
    return box.natural(low), box.natural(high)
