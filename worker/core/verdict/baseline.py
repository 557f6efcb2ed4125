"""What tuning many hyperparameters gained over one shared value, and what of it new rows can expect."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from worker.core.hyperparameters import Hyperparameters
from worker.core.losses.measures import error_rate
from worker.core.objective.clustered import paired
from worker.core.records import Array, Start, Step
from worker.core.rows.filled import split_problems
from worker.core.search.descents import BUDGET_OUTCOMES, SHARED, Descents
from worker.core.search.plan import Prepared

MANY = 0.1  # hyperparameters in units of the selection rows
GAIN_BELOW_OPTIMISM = (
    "The selection value is lower than that of the best shared value by {:.3g}, which is less than the {:.3g} by which "
    "tuning so many hyperparameters on these rows flatters itself: new rows can expect no gain."
)
MANY_HYPERPARAMETERS = (
    "{} hyperparameters were tuned on {:.0f} selection rows, more than one for ten: the selection value is too "
    "low, and the corrected value is uncertain, too."
)
SHARED_OF_MANY = (
    "{} hyperparameters are more than one for ten of the {:.0f} selection rows, and letting them differ promised "
    "nothing on new rows: one shared value was chosen."
)
SEPARATED_FOLD = (
    "{} of {} splits train on rows whose classes the fit separates without an error: only the penalties keep its "
    "coefficients from growing, and the selection value depends on few rows."
)
MOST_SPLITS = 50  # whose fits are made again to see whether they separate the classes
BASELINE_UNAVAILABLE = "There is no comparison with a shared value: {}."
SPREAD_CHOSEN_BY_NESTED = (
    "The spread was chosen for its nested value, the lowest of a few: `nested.value` flatters the result a little. "
    "Rows of a `test_fraction` do not."
)
SPREAD_NOT_CHOSEN_BY_NESTED = (
    "The spread was not chosen by nested values, as `spread_by` asks: a limit ended the search or its folds, or no "
    "spread has a value in each of them. `spread.by` says what chose it."
)
NOTHING_TO_SHARE = "no two hyperparameters are alike"
NOT_REACHED = "the search ended before it was found"


@dataclass(frozen=True, slots=True)
class Finding:
    """A thing to know about a result: a code that does not change, and a sentence."""

    code: Literal[
        "gain_below_optimism", "many_hyperparameters", "separated_fold", "baseline_unavailable",
        "spread_chosen_by_nested", "spread_not_chosen_by_nested",
    ]  # fmt: skip
    severity: Literal["info", "warning"]
    text: str


@dataclass(frozen=True, slots=True)
class Baseline:
    """The best shared value for each family of like hyperparameters, on the same splits.

    `difference`: J of the result less the J of the shared value, with its standard error over the same rows.
    """

    rho: Float[Array, " k"]
    value: float
    difference: float
    difference_error: float | None


@dataclass(frozen=True, slots=True)
class Worth:
    """What the result is worth: the baseline, the optimism of J, and what should be known of both."""

    baseline: Baseline | None
    optimism: float | None
    corrected: float | None
    findings: tuple[Finding, ...]


def worth(prepared: Prepared, step: Step) -> Worth:
    """Of the result at the end of a search; nothing for a single hyperparameter."""
    if len(prepared.objective.hyperparameters.names) < 2:
        return Worth(None, None, None, ())
    descents, best, shared = Descents(prepared), step.best, shared_optimum(step)
    if shared is None:
        findings = (_unavailable(prepared.objective.hyperparameters), *_findings(prepared, step))
        return Worth(None, None, None, (*findings, *_about_choice(prepared, step)))
    corrected = _corrected(descents, step, shared)
    value = best.best.selection
    optimism = None if corrected is None else corrected - value
    baseline = replace(_baseline(best, shared), difference_error=_difference_error(prepared, best, shared))
    findings = _findings(prepared, step)
    if optimism is not None and best.spread != SHARED and -baseline.difference < optimism:
        text = GAIN_BELOW_OPTIMISM.format(-baseline.difference, optimism)
        findings = (Finding("gain_below_optimism", "warning", text), *findings)
    return Worth(baseline, optimism, corrected, (*findings, *_about_choice(prepared, step)))


def worth_without_rows(box: Hyperparameters, step: Step) -> Worth:
    """Of a search that was stopped, as far as it is known where no row is at hand: J alone."""
    shared = shared_optimum(step)
    if len(box.names) < 2 or shared is None:
        return Worth(None, None, None, (_unavailable(box),) if len(box.names) > 1 else ())
    return Worth(_baseline(step.best, shared), None, None, ())


def shared_optimum(step: Step) -> Start | None:
    """The start whose end is the best shared value; None if a limit or a failure has ended the search before it."""
    found = (start for start in step.starts if start.spread == SHARED and np.isfinite(start.best.value))
    return next((start for start in found if start.outcome not in (None, *BUDGET_OUTCOMES)), None)


def _baseline(best: Start, shared: Start) -> Baseline:
    there = shared.best.selection
    return Baseline(shared.best.rho, there, best.best.selection - there, None)


def _unavailable(box: Hyperparameters) -> Finding:
    text = BASELINE_UNAVAILABLE.format(NOT_REACHED if box.families else NOTHING_TO_SHARE)
    return Finding("baseline_unavailable", "info", text)


def _corrected(descents: Descents, step: Step, shared: Start) -> float | None:
    """The corrected value at the result: that of its point on the path, or computed now."""
    best = step.best
    if step.choice is not None:
        at = next((point for point in step.choice.path if point.spread == best.spread), None)
        if at is not None and at.value == best.best.selection:
            return at.corrected
    judged = descents.judged(shared, best)
    return None if judged is None else judged.corrected


def _difference_error(prepared: Prepared, best: Start, shared: Start) -> float | None:
    """The standard error of the difference of J to the shared value, over the same rows."""
    here, there = (
        prepared.objective.row_scores(prepared.problem, prepared.partition, start.best.rho) for start in (best, shared)
    )
    if here is None or there is None:
        return None
    return paired(here.losses, there.losses, here.weights, prepared.clusters[here.rows])[1]


def _about_choice(prepared: Prepared, step: Step) -> tuple[Finding, ...]:
    """Whether the outer folds have chosen the spread that they were to choose."""
    if prepared.plan.spread_by != "nested":
        return ()
    if step.choice is not None and step.choice.by == "nested":
        return (Finding("spread_chosen_by_nested", "info", SPREAD_CHOSEN_BY_NESTED),)
    return (Finding("spread_not_chosen_by_nested", "warning", SPREAD_NOT_CHOSEN_BY_NESTED),)


def _findings(prepared: Prepared, step: Step) -> tuple[Finding, ...]:
    """What holds with and without a baseline."""
    best, choice = step.best, step.choice
    k, rows = len(prepared.objective.hyperparameters.names), prepared.selection_rows
    findings: tuple[Finding, ...] = ()
    of_limit = best.spread == SHARED and (choice is None or choice.by is None)  # which nothing has chosen
    if k > MANY * rows and not of_limit:
        text = (SHARED_OF_MANY if best.spread == SHARED else MANY_HYPERPARAMETERS).format(k, rows)
        findings += (Finding("many_hyperparameters", "info" if best.spread == SHARED else "warning", text),)
    if separated := _separated(prepared, best.best.rho):
        text = SEPARATED_FOLD.format(separated, len(prepared.partition.splits))
        findings += (Finding("separated_fold", "warning", text),)
    return findings


def _separated(prepared: Prepared, rho: Float[Array, " k"]) -> int:
    """How many splits train on rows whose classes the fit separates without an error."""
    plan, problem, partition = prepared.plan, prepared.problem, prepared.partition
    training = plan.training
    if not training.penalties_of_separable(problem) or len(partition.splits) > MOST_SPLITS:
        return 0
    lam, count = prepared.objective.natural(rho), 0
    for split, (blocks, _) in zip(split_problems(problem, partition), partition.splits, strict=True):
        rows = partition.rows(blocks)
        model = training.model(split, rows, lam)
        if model is not None:
            wrong = error_rate(split.y[rows], model.predictor(split, rows), split.base_weights(rows))
            count += wrong == 0
    return count
