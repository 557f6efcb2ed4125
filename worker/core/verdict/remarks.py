"""Sentences about a result that the user should read."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from worker.core.losses.measures import error_rate
from worker.core.objective.clustered import count_of
from worker.core.objective.objective import Scores
from worker.core.records import Array
from worker.core.rows.problem import Problem
from worker.core.search.plan import Prepared
from worker.core.training import Model
from worker.core.verdict.curvature import Curvature

SADDLE = (
    "The search ended where the selection criterion still curves downward: no minimum, a saddle point or an unfinished "
    "descent; allow more iterations or starts."
)
ONE_IDLE = "The selection criterion does not depend on {} around the result: nearby values of it do as well."
SEVERAL_IDLE = "The selection criterion does not depend on {} around the result: nearby values of them do as well."
JOINTLY_FLAT = (
    "The selection criterion is flat along a joint change of {} at the result: together they could be changed by large "
    "factors without changing it."
)
TEST_WEIGHTS_ZERO = (
    "All test rows have the weight 0, so there is no test score; hold out others, or give some a weight."
)
NEARLY_SINGULAR = (
    "The training criterion is close to singular at the result: its solution and the gradient have few correct digits."
)
REFIT_NO_MINIMUM = (
    "The returned model is the minimum of its training criterion to {} digits only: rounding or an early end of "
    "training moves its coefficients. Raise the lower bound of the penalty, or subtract a constant from columns that "
    "lie far from zero."
)
DIGITS_LOST = (
    "Rounding leaves about {} correct digits of the selection value: columns lie far from zero in units of their "
    "spread, or depend on each other. Subtract a constant from such columns, set intercept to true, or raise the lower "
    "bound of the penalty."
)
GRADIENT_DISAGREES = (
    "Differences of the selection criterion, exact enough to judge, contradict its gradient at the result: the point "
    "need not be stationary."
)
GRADIENT_NOT_JUDGED = (
    "Differences of the selection criterion cannot judge its gradient at the result: at no step are they exact enough, "
    "because the criterion bends too sharply or rounding hides its slope."
)
TEST_CLASS_MISSING = "The test rows have no {} because a class is missing among them; hold out more rows."
ONE_FLAT = "The selection criterion is flat in {} at the result: it could be changed by a large factor without effect."
NO_SPREAD = (
    "At least half of the rows that a split trains on have the same target, so its median absolute deviation is zero: "
    "delta is relative to the standard deviation instead."
)
ENOUGH_CLUSTERS = 10  # the standard error of so many is right to a quarter
FEW_CLUSTERS = (
    "The standard errors rest on {} groups or blocks of rows that may depend on each other within: so few say roughly "
    "how much new ones differ."
)
ONE_CLUSTER = (
    "All scored rows are in one group or block and may depend on each other, so that nothing says how much new rows "
    "differ: there are no standard errors."
)
MAX_NAMES = 5  # of hyperparameters in one sentence
CLASSES_SEPARATED = (
    "The classes are separated in the rows used, and a penalty is at its lower bound: the training loss goes to zero "
    "as that bound does, so the bound decides how large the coefficients are; any lower one would be chosen, too."
)


def left_out_remark(rows: int) -> tuple[str, ...]:
    """A remark if rows of weight 0 were left out."""
    if not rows:
        return ()
    return (f"{rows} row{' of weight 0 was' if rows == 1 else 's of weight 0 were'} left out, as if not there.",)


def refit_remark(gradient_norm: float) -> str:
    """That the returned model is no minimum, with the digits that are left."""
    digits = int(-np.log10(gradient_norm)) if 0 < gradient_norm < 1 else 0
    return REFIT_NO_MINIMUM.format(digits)


def few_clusters_remark(scores: Scores | None, clusters: Int[Array, " n"]) -> tuple[str, ...]:
    """A remark if groups or blocks of rows are so few that they hardly tell how much they differ."""
    if scores is None:
        return ()
    count, rows = count_of(scores.weights, clusters[scores.rows]), np.unique(scores.rows[scores.weights != 0])
    if count >= ENOUGH_CLUSTERS or count == len(rows):
        return ()
    return (ONE_CLUSTER if count == 1 else FEW_CLUSTERS.format(count),)


def spread_remark(prepared: Prepared) -> tuple[str, ...]:
    """A remark if a relative delta of the Huber loss is a multiple of the standard deviation somewhere."""
    losses = (prepared.plan.training.parts.rows, prepared.plan.selection.given_loss)
    lengths = [one.length for one in losses if one is not None and one.length is not None]
    parts = [prepared.rows, *(prepared.partition.rows(train) for train, _ in prepared.partition.splits)]
    if any(length.lacks_spread(prepared.problem, part) for length in lengths for part in parts):
        return (NO_SPREAD,)
    return ()


def separation_remark(
    prepared: Prepared, model: Model | None, problem: Problem, rho: Float[Array, " k"]
) -> tuple[str, ...]:
    """A remark if only the bounds of the penalties keep the coefficients of separated classes finite."""
    rows, penalties = prepared.rows, prepared.plan.training.penalties_of_separable(problem)
    if model is None:
        return ()
    if "lower" not in prepared.objective.hyperparameters.at_bound(rho)[:penalties]:
        return ()
    wrong = error_rate(problem.y[rows], model.predictor(problem, rows), problem.base_weights(rows))
    return (CLASSES_SEPARATED,) if wrong == 0 else ()


def shape_remarks(shape: Curvature | None, names: tuple[str, ...]) -> tuple[str, ...]:
    """Remarks on the shape of J at the result; `names` are those of all hyperparameters."""
    if shape is None or shape.point == "minimum":
        return ()
    if shape.point == "saddle":
        return (SADDLE,)
    idle, joint = ([names[j] for j in indices] for indices in (shape.idle, shape.joint))
    groups = [(idle, ONE_IDLE, SEVERAL_IDLE), (joint, ONE_FLAT, JOINTLY_FLAT)]
    return tuple(
        (single if len(affected) == 1 else plural).format(_list_names(affected))
        for affected, single, plural in groups
        if affected
    )


def _list_names(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and 7 more`."""
    listed = (
        names[:MAX_NAMES]
        if len(names) <= MAX_NAMES
        else [*names[: MAX_NAMES - 1], f"{len(names) - MAX_NAMES + 1} more"]
    )
    return " and ".join([", ".join(listed[:-1]), listed[-1]]) if len(listed) > 1 else listed[0]
