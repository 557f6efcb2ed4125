"""From the best point found to what the caller receives: the refitted model, its scores and its certificates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from worker.core.losses import PlattLogLoss, SmoothedAuc, SmoothedF
from worker.core.losses.measures import Measures, Pooled
from worker.core.records import Array, Start
from worker.core.rows.column_remarks import few_rows, observations
from worker.core.rows.filled import filled_by
from worker.core.rows.problem import Problem
from worker.core.search.plan import Prepared
from worker.core.search.refit import Model, refit
from worker.core.training.kernel_machines import KernelTraining
from worker.core.verdict.certificates import POOR, ROUGH, Certificates, certify
from worker.core.verdict.curvature import Curvature, curvature
from worker.core.verdict.remarks import (
    NEARLY_SINGULAR,
    ROUGH_THERE,
    UNSCORED,
    WEIGHTLESS,
    separation_remark,
    shape_remarks,
)


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The refit at the best hyperparameters, with scores. `standard_error` is None for a single validation row.

    `fills` holds what the refit put for missing values, in the order of the problem's imputed columns. `intervals` are
    the ends, in natural units and inside the box, between which each hyperparameter can move before J rises by one
    standard error (by half a nat, where J is a likelihood); NaN for those at a bound. `measures` are unsmoothed ones,
    of classes: over the pooled validation rows, and over the test rows. `calibration` is Platt's line, where it is one.
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
    """Refit on all rows less the test rows at the best point, score the test rows once, and certify."""
    prepared.objective.forget()  # so that a run that was interrupted concludes the same
    rho, unit = best.best.rho, prepared.objective.unit(best.best.value)
    certificates = certify(prepared.objective, best, prepared.plan.seed)
    scores = prepared.objective.row_scores(prepared.problem, prepared.partition, rho)
    pooled = prepared.objective.pooled(rho) if prepared.plan.training.classifies else None
    standard_error = None if scores is None else scores.standard_error()
    problem, fills = filled_by(prepared.problem, prepared.rows)
    model = refit(prepared.plan.training, problem, prepared.rows, prepared.objective.natural(rho))
    linear = not isinstance(prepared.plan.training, KernelTraining)
    intercept = getattr(prepared.plan.training, "intercept", True)
    messages = observations(problem, prepared.rows, linear=linear, intercept=intercept)
    if linear:
        messages += few_rows(problem, prepared.partition)
    if model is None:
        messages += ("The refit on all rows is singular to working precision, so there is no model.",)
    if not (certificates.adjoint_residual <= POOR and certificates.inner_gradient_norm <= POOR):  # nor where unknown
        messages += (NEARLY_SINGULAR,)
    if not certificates.finite_difference_error <= ROUGH:
        messages += (ROUGH_THERE,)
    messages += prepared.objective.remarks(rho)
    test_value, tested, unscored = _tested(prepared, model, problem)
    messages += unscored + separation_remark(prepared, model, problem, rho)
    # without an exact Hessian at the price of the search itself, at most
    shape = curvature(prepared.objective, best.best, best.evaluations)
    if not (shape and shape.point == "saddle" and NEARLY_SINGULAR in messages):  # where curvature is rounding
        messages += shape_remarks(shape, prepared.objective.hyperparameters.names)
    rise = prepared.objective.noticeable(standard_error)
    intervals = None if shape is None or rise is None else _intervals(prepared, rho, shape, rise / unit)
    noise = prepared.objective.noise_variance(rho)
    return Conclusion(
        model, certificates, standard_error, test_value, messages, fills, shape, intervals, noise,
        {} if pooled is None else pooled.measures(),
        {} if tested is None else tested.measures(),
        _calibration(prepared, pooled),
    )  # fmt: skip


def _calibration(prepared: Prepared, pooled: Pooled | None) -> tuple[float, float] | None:
    """Platt's line of the pooled validation rows, where that is the selection loss."""
    score, problem = prepared.objective.loss, prepared.problem
    if pooled is None or not isinstance(score, PlattLogLoss):
        return None
    splits = prepared.partition.splits
    counted = getattr(prepared.plan.selection, "split_weights", None) or (1.0,) * len(splits)
    scored = [prepared.partition.rows(rows) for weight, (_, rows) in zip(counted, splits, strict=True) if weight]
    total = sum(float(problem.score_weights(rows).sum()) for rows in scored)  # its targets depend on how many rows
    return score.at(pooled.y, pooled.eta, total * pooled.w).line


def _tested(
    prepared: Prepared, model: Model | None, problem: Problem
) -> tuple[float | None, Pooled | None, tuple[str, ...]]:
    """The score of the test rows, these rows if they are of classes, and why there is no score where there is none."""
    rows, score = prepared.test_rows, prepared.objective.loss
    if model is None or not len(rows):
        return None, None, ()
    if not problem.score_weights(rows).any():
        return None, None, (WEIGHTLESS,)
    tested = (
        Pooled(problem.y[rows], model.predictor(problem, rows), problem.score_weights(rows))
        if prepared.plan.training.classifies
        else None
    )
    if isinstance(score, SmoothedAuc | SmoothedF):
        try:
            score.check(problem.y[rows[problem.score_weights(rows) > 0]])
        except ValueError:
            return None, tested, (UNSCORED.format(score.kind),)
    return model.score(score, problem, rows), tested, ()


def _intervals(
    prepared: Prepared, rho: Float[Array, " k"], shape: Curvature, rise: float
) -> tuple[Float[Array, " k"], Float[Array, " k"]] | None:
    half, box = shape.half_widths(rise), prepared.objective.hyperparameters
    if half is None:
        return None
    low, high = np.maximum(rho - half, box.lower), np.minimum(rho + half, box.upper)
    return box.natural(low), box.natural(high)
