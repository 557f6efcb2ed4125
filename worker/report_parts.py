"""The parts of a result document, each from the core's record of it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import numpy as np

from worker.contract.notes import Note
from worker.contract.result import (
    Baseline,
    Hyperparameter,
    NamedValue,
    NestedFold,
    NestedScore,
    SelectionScore,
    SpreadPoint,
    SpreadReport,
    StartReport,
    TestScore,
)
from worker.core.hyperparameters import Hyperparameters
from worker.core.losses import PredictorScore
from worker.core.losses.measures import Measures
from worker.core.objective.clustered import error_of_sums
from worker.core.records import Array, Choice, Evaluation, Outcome, Start, Step
from worker.core.search.chosen_by_folds import pooled
from worker.core.search.plan import Prepared
from worker.core.verdict.baseline import Worth
from worker.core.verdict.conclude import Conclusion


def hyperparameters_of(
    box: Hyperparameters, initial: Evaluation, best: Evaluation, intervals: tuple[Array, Array] | None
) -> list[Hyperparameter]:
    """Each with its value, where it began, and its interval."""
    ends = np.full((len(box.names), 2), np.nan) if intervals is None else np.column_stack(intervals)
    columns = (box.names, box.natural(best.rho), box.natural(initial.rho), box.at_bound(best.rho), best.gradient, ends)
    return [
        Hyperparameter(
            name=name, value=float(value), initial=float(first), at_bound=bound, gradient=float(slope),
            interval=(float(low), float(high)) if np.isfinite([low, high]).all() else None,
        )
        for name, value, first, bound, slope, (low, high) in zip(*columns, strict=True)
    ]  # fmt: skip


def selection_of(
    step: Step,
    conclusion: Conclusion | None = None,
    loss: PredictorScore | None = None,
    worth: Worth | None = None,
) -> SelectionScore:
    """What J says, and what of it new rows can expect."""
    best = step.best.best
    return SelectionScore(
        value=best.selection,
        initial_value=finite(step.starts[0].initial.selection),
        optimism=worth.optimism if worth else None,
        corrected_value=worth.corrected if worth else None,
        per_fold=[finite(value) for value in best.per_split],
        standard_error=conclusion.standard_error if conclusion else None,
        noise_variance=conclusion.noise_variance if conclusion else None,
        measures=_measures(conclusion.measures) if conclusion else {},
        delta=None if loss is None or loss.length is None else loss.length.number,
    )


def baseline_of(box: Hyperparameters, worth: Worth) -> Baseline | None:
    """None where the best shared value is not known."""
    found = worth.baseline
    if found is None:
        return None
    named = zip(box.names, box.natural(found.rho).tolist(), strict=True)
    return Baseline(
        hyperparameters=[NamedValue(name=name, value=value) for name, value in named],
        value=found.value, difference=found.difference, difference_se=found.difference_error,
    )  # fmt: skip


def notes_of(worth: Worth) -> list[Note]:
    """What a reader should know before the numbers."""
    return [Note(code=one.code, severity=one.severity, text=one.text) for one in worth.findings]


def spread_of(step: Step) -> SpreadReport | None:
    """None without a hyper-prior. A search that a limit has ended has no choice."""
    if step.starts[0].spread is None:
        return None
    choice = step.choice or Choice(step.best.spread or 0.0, None, ())
    points = [
        SpreadPoint(spread=one.spread, value=finite(one.value), corrected_value=one.corrected) for one in choice.path
    ]
    return SpreadReport(chosen=choice.spread, by=choice.by, path=points)


def _measures(measures: Measures) -> dict[str, float | None]:
    return {name: finite(value) for name, value in measures.items()}


def nested_of(prepared: Prepared, step: Step) -> NestedScore | None:
    """What the outer folds that are done say; None where there are none."""
    folds = step.folds
    if not folds:
        return None
    value, weights = pooled(folds), np.array([fold.weight for fold in folds])
    sums = [fold.clusters for fold in folds if fold.weight > 0]
    error = error_of_sums(reduce(np.add, sums)) if sums else None
    promised = float(weights @ [fold.selection_value for fold in folds] / weights.sum())
    return NestedScore(
        value=finite(value),
        standard_error=None if error is None else finite(error),
        optimism=finite(value - promised) if prepared.objective.meaning.is_mean_loss else None,
        folds=[
            NestedFold(value=finite(fold.value), selection_value=finite(fold.selection_value), rows=fold.rows)
            for fold in folds
        ],
    )


def failed_folds(step: Step) -> Iterator[str]:
    """A sentence for each outer fold that leaves the nested score without a value."""
    for number, fold in enumerate(step.folds, start=1):
        if fold.weight > 0 and not np.isfinite(fold.value):
            yield (
                f"Without the rows of outer fold {number} of {len(step.folds)} the "
                + ("refit failed" if np.isfinite(fold.selection_value) else "selection criterion was not finite")
                + ", so the nested score has no value; use fewer folds, or a larger lower bound of the penalty."
            )


def start_of(start: Start, outcome: Outcome | None) -> StartReport:
    """A start that has not ended was ended by what ended the job."""
    ended = start.outcome or outcome
    return StartReport(
        value=finite(start.best.selection),
        initial_value=finite(start.initial.selection),
        spread=start.spread,
        gradient_norm=finite(start.gradient_norm),
        iterations=start.iterations,
        evaluations=start.evaluations,
        outcome=ended.code if ended else None,
        refused=start.refused,
    )


def score_of_test(prepared: Prepared, conclusion: Conclusion) -> TestScore | None:
    """None without test rows, or if they cannot be scored."""
    if conclusion.test_value is None and not conclusion.test_measures:
        return None
    measures = _measures(conclusion.test_measures)
    value, error = conclusion.test_value, conclusion.test_error
    error = None if value is None or error is None else finite(error)
    return TestScore(value=value, standard_error=error, rows=len(prepared.test_rows), measures=measures)


def finite(value: float) -> float | None:
    """None for what JSON cannot hold."""
    return float(value) if np.isfinite(value) else None
