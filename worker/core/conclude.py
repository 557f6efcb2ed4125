"""From the best point found to what the caller receives: the refitted model, its scores and its certificates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from worker.core.curvature import Curvature, curvature
from worker.core.glm.set_scores import error_rate
from worker.core.imputation import filled_by
from worker.core.measures import Measures, Pooled
from worker.core.model import Model, refit
from worker.core.observations import few_rows, observations
from worker.core.outer_objective import Objective
from worker.core.records import Array, Problem, Start
from worker.core.scoring import PlattLogLoss, SmoothedAuc, SmoothedF
from worker.core.training import KernelLogistic, Quadratic
from worker.core.training.kernel import KernelTraining
from worker.core.tune import Prepared

# on the scale of rho; 4th-order differences then err by about 1e-9 of J, from both sides; the second one where J bends
# sharply, as in the period of many repetitions
DIFFERENCE_STEPS = (1e-2, 1e-3)
SADDLE = (
    "The search ended where the selection criterion still curves downward: no minimum, a saddle point or an unfinished "
    "descent; allow more iterations or starts."
)
IDLE = "The selection criterion does not depend on {} around the result: nearby values of it do as well."
ALL_IDLE = "The selection criterion does not depend on {} around the result: nearby values of them do as well."
JOINTLY_FLAT = (
    "The selection criterion is flat along a joint change of {} at the result: together they could be changed by large "
    "factors without changing it."
)
WEIGHTLESS = "All test rows have the weight 0, so there is no test score; hold out others, or give some a weight."
NEARLY_SINGULAR = (
    "The training criterion is close to singular at the result: its solution and the gradient have few correct digits."
)
ROUGH_THERE = (
    "The gradient and differences of the selection criterion disagree near the result: it has corners there, or "
    "rounding hides its slope."
)
UNSCORED = "The test rows have no {} because a class is missing among them; hold out more rows."
FLAT = "The selection criterion is flat in {} at the result: it could be changed by a large factor without effect."
NAMED = 5  # hyperparameters that one message names
SEPARATED = (
    "The classes are separated in the rows used, and a penalty is at its lower bound: the training loss goes to zero "
    "as that bound does, so the bound decides how large the coefficients are; any lower one would be chosen, too."
)
POOR = 1e-7  # relative residuals above this are reported: training is close to singular
ROUGH = 1e-4  # share of J by which a difference may deviate from the gradient unmentioned


@dataclass(frozen=True, slots=True)
class Certificates:
    """Evidence that anyone can recompute.

    `outer_gradient_norm`: largest component of the projected gradient `dJ/d log(lam)`, over |J|.
    `inner_gradient_norm`: norm of `dC/dtheta` at theta over that at theta = 0, the worst split; in units of curvature
    where training is iterative (`Point.unit`).
    `adjoint_residual`: `|H u - dE/dtheta| / |dE/dtheta|`, the worst split.
    `finite_difference_error`: |4th-order difference of J - gradient| along a random unit direction, over |J|.
    """

    outer_gradient_norm: float
    inner_gradient_norm: float
    adjoint_residual: float
    finite_difference_error: float


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
    messages += unscored + _separated(prepared, model, problem, rho)
    # without an exact Hessian at the price of the search itself, at most
    shape = curvature(prepared.objective, best.best, best.evaluations)
    if not (shape and shape.point == "saddle" and NEARLY_SINGULAR in messages):  # where curvature is rounding
        messages += _shape_messages(shape, prepared.objective.hyperparameters.names)
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


def _separated(prepared: Prepared, model: Model | None, problem: Problem, rho: Float[Array, " k"]) -> tuple[str, ...]:
    """Whether the bounds of the penalties alone keep the coefficients of separated classes finite."""
    training, rows = prepared.plan.training, prepared.rows
    if isinstance(training, KernelLogistic):
        penalties = 1
    elif isinstance(training, Quadratic | KernelTraining) or not training.classifies:
        return ()
    else:
        penalties = len(training.penalties(problem)[0].names)
    if model is None:
        return ()
    if "lower" not in prepared.objective.hyperparameters.at_bound(rho)[:penalties]:
        return ()
    wrong = error_rate(problem.y[rows], model.predictor(problem, rows), problem.base_weights(rows))
    return (SEPARATED,) if wrong == 0 else ()


def _shape_messages(shape: Curvature | None, names: tuple[str, ...]) -> tuple[str, ...]:
    if shape is None or shape.point == "minimum":
        return ()
    if shape.point == "saddle":
        return (SADDLE,)
    idle, joint = ([names[j] for j in indices] for indices in (shape.idle, shape.joint))
    told = [(idle, IDLE, ALL_IDLE), (joint, FLAT, JOINTLY_FLAT)]
    return tuple((one if len(some) == 1 else several).format(_listed(some)) for some, one, several in told if some)


def _listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and 7 more`."""
    named = names[:NAMED] if len(names) <= NAMED else [*names[: NAMED - 1], f"{len(names) - NAMED + 1} more"]
    return " and ".join([", ".join(named[:-1]), named[-1]]) if len(named) > 1 else named[0]


def _intervals(
    prepared: Prepared, rho: Float[Array, " k"], shape: Curvature, rise: float
) -> tuple[Float[Array, " k"], Float[Array, " k"]] | None:
    half, box = shape.half_widths(rise), prepared.objective.hyperparameters
    if half is None:
        return None
    low, high = np.maximum(rho - half, box.lower), np.minimum(rho + half, box.upper)
    return box.natural(low), box.natural(high)


def certify(objective: Objective, best: Start, seed: int) -> Certificates:
    """Recompute every certificate at the best point; four more evaluations of J, or eight."""
    at = best.best
    direction = np.random.default_rng([seed, 3]).normal(size=len(at.rho))
    direction /= np.linalg.norm(direction)
    error = np.nan
    for h in DIFFERENCE_STEPS:
        values = [objective.value(at.rho + step * h * direction) for step in (-2, -1, 1, 2)]
        difference = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
        off = abs(difference - float(at.gradient @ direction)) / objective.unit(at.value)
        error = float(np.fmin(error, off))
        if error <= ROUGH:
            break
    at_best = objective.residuals(at.rho)
    return Certificates(best.gradient_norm, at_best.inner_gradient_norm, at_best.adjoint_residual, error)
