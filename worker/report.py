"""From the core's records to the contract's: progress, steps, results."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib import metadata
from typing import Any

import numpy as np

from worker.contract.dataset import DatasetWarning
from worker.contract.description import Work
from worker.contract.expansion import Made
from worker.contract.job import Progress
from worker.contract.notes import dataset_notes
from worker.contract.result import (
    CertificateSet,
    Counts,
    Method,
    Result,
    Timing,
)
from worker.core.hyperparameters import Hyperparameters
from worker.core.outer import OuterAuto
from worker.core.records import Array, Outcome, Step
from worker.core.search.descents import Descents
from worker.core.search.plan import Prepared, resolve
from worker.core.verdict.baseline import worth as worth_of
from worker.core.verdict.baseline import worth_without_rows
from worker.core.verdict.conclude import Conclusion, conclude
from worker.report_model import model_of
from worker.report_parts import (
    baseline_of,
    failed_folds,
    finite,
    hyperparameters_of,
    nested_of,
    notes_of,
    score_of_test,
    selection_of,
    spread_of,
    start_of,
)
from worker.store import Claim, Status

# read once, before work-horses are forked: reading package metadata takes 10 ms
VERSIONS = {name: metadata.version(name) for name in ("gradtune", "numpy", "scipy")} | {
    "python": platform.python_version()
}
STOPPED = {
    Status.CANCELLED: "The job was cancelled; these are the best hyperparameters until then.",
    Status.FAILED: "The job failed; these are the best hyperparameters until then.",
}
SOLVERS = {
    "primal": "The matrix of the features is factored for each split and trial: there are no more features than rows, "
    "or the penalty, the weights or the selection criterion need that matrix.",
    "dual": "The matrix of the rows is factored for each split and trial: it is cheaper than that of the features.",
    "newton_cholesky": "Training is iterative: Newton's method with a factor of the Hessian for each split, kept while "
    "it serves.",
    "newton_cg": "Training is iterative: Newton's method with conjugate gradients, which need products with the rows "
    "and no factor; there are many coefficients.",
    "dense": "H is factored as a dense matrix: too many entries are not zero for a band to be shorter.",
    "banded": "H is factored as a band matrix: in some order of the parameters its entries are near the diagonal.",
    "sparse": "H is factored as a sparse matrix: in any order, a band would be mostly zeros.",
    "kernel_matrix": "The matrix of the kernel of all training rows is factored, of those rows whose loss is curved.",
    "landmarks": "Some rows stand for all of them: matrices have a row for each landmark.",
    "orthogonal": "Rows are factored, not their moments: columns far from zero or nearly dependent would lose digits.",
    "spectral": "One eigendecomposition for each split serves all trials: there is one penalty, and several starts.",
}
OUTER = {
    "newton": "Newton's method with the exact Hessian: {} hyperparameters are few enough for it.",
    "lbfgs": "L-BFGS: for {} hyperparameters the exact Hessian costs more than the iterations that it saves, or the "
    "selection criterion has none.",
    "inexact": "Quasi-Newton descent with inexact gradients of {} hyperparameters: training takes iterations, which "
    "are stopped as early as each step allows.",
}
SCANNED = (
    "With one or two hyperparameters a coarse scan of the box costs little. It follows the first descent and shows "
    "where else to descend from."
)
SETTLED = {Outcome.CONVERGED, Outcome.AT_BOUNDS}
LATER = "That was an earlier start; the budget was spent in a later one."
ELSEWHERE = "That was an earlier descent; the budget was spent on the scan for a lower minimum."
KILLED = "The job had to be stopped inside a computation that cannot be interrupted, so no model was fitted."
MORE_SECONDS = "Raise limits.seconds, or make the problem smaller, to have one."
OTHER_VERSION = (
    "An earlier version of the algorithm found these hyperparameters. The present one does not mix its numbers with "
    "them, so no model was fitted."
)


def progress(step: Step, elapsed: float) -> bytes:
    """The job's progress after a step, as JSON; the position in the queue is not the worker's to tell."""
    document = Progress(
        iteration=step.iterations,
        evaluations=step.evaluations,
        value=finite(step.at.selection),
        best_value=finite(step.best.best.selection),
        gradient_norm=finite(step.gradient_norm),
        elapsed_s=round(elapsed, 6),
    )
    return document.model_dump_json(exclude={"queue_position"}).encode()


def step_record(hyperparameters: Hyperparameters, step: Step, sequence: int) -> dict[str, Any]:
    """One record of the trajectory."""
    return {
        "sequence": sequence,
        "start": len(step.starts) - 1,
        "iteration": step.starts[-1].iterations,
        "evaluations": step.evaluations,
        "value": step.at.selection,
        "best_value": step.best.best.selection,
        "gradient_norm": step.gradient_norm,
        "gradient_error": finite(step.at.gradient_error),
        "hyperparameters": hyperparameters.natural(step.at.rho).tolist(),
    }


def chosen(prepared: Prepared, step: Step) -> Step:
    """The last step of a search, with the spread that is chosen of those descents that have ended."""
    descents = Descents(prepared)
    return descents.with_folds(step if step.choice or step.ended else descents.ended_here(step))


def result(
    claim: Claim,
    prepared: Prepared,
    step: Step,
    status: Status,
    outcome: Outcome | None,
    elapsed: float,
    made: Sequence[Made] = (),
    warnings: Sequence[DatasetWarning] = (),
) -> bytes:
    """The result document, with the refit and the certificates at the best point.

    `made`: features from columns; `warnings`: of the dataset about these columns.
    """
    step, descents = chosen(prepared, step), Descents(prepared)
    conclusion, unrepresentable = _finite_parts(conclude(prepared, step.best, descents.of(step.best, step.starts)))
    worth = worth_of(prepared, step)
    shape = conclusion.curvature
    method = Method(
        hypergradient=prepared.hypergradient.kind,
        outer=prepared.outer.kind,
        approximate=False,
        solver=prepared.objective.solver,
        why=reasons(prepared),
    )
    notes = dataset_notes(warnings)
    notes += notes_of(worth)
    document = Result(
        **_search(claim, prepared.objective.hyperparameters, step, status, outcome, elapsed, conclusion.intervals),
        message=_told(prepared, step, status, outcome),
        messages=[*conclusion.messages, *unrepresentable, *failed_folds(step), *(note.text for note in notes)],
        notes=notes,
        selection=selection_of(step, conclusion, prepared.objective.loss, worth),
        baseline=baseline_of(prepared.objective.hyperparameters, worth),
        spread=spread_of(step),
        test=score_of_test(prepared, conclusion),
        nested=nested_of(prepared, step),
        model=model_of(prepared, conclusion, made),
        certificates=CertificateSet(
            **{name: finite(value) for name, value in asdict(conclusion.certificates).items() if name != "judged"},
            point=shape.point if shape else None,
            smallest_curvature=shape.smallest if shape else None,
        ),
        method=method,
    )
    return document.model_dump_json().encode()


def _told(prepared: Prepared, step: Step, status: Status, outcome: Outcome | None) -> str:
    """How the job ended, in a sentence or two."""
    if outcome is None:
        return STOPPED[status]
    best = step.best
    settled = best.outcome or prepared.outer.settled(prepared.objective, best.best)
    if outcome in {Outcome.MAX_EVALUATIONS, Outcome.MAX_SECONDS} and settled in SETTLED:
        return f"{settled.value} {LATER if best.outcome else ELSEWHERE}"
    return str(outcome.value)


def reasons(prepared: Prepared) -> list[str]:
    """Why the methods that were left open are what they are."""
    why = [SOLVERS[prepared.objective.solver]]
    if isinstance(prepared.plan.outer, OuterAuto):
        why.append(OUTER[prepared.outer.kind].format(len(prepared.objective.hyperparameters.names)))
        why.extend([SCANNED] if prepared.scans == "after" else [])
    return why


def _finite_parts(conclusion: Conclusion) -> tuple[Conclusion, list[str]]:
    """The conclusion without what overflowed, and a sentence for each such part: documents hold finite numbers only."""
    messages = []
    model, error, score = conclusion.model, conclusion.standard_error, conclusion.test_value
    if model is not None and not model.is_finite:
        model, score = None, None
        messages.append("The coefficients of the refit on all rows overflowed, so there is no model; rescale the data.")
    if error is not None and not np.isfinite(error):
        error = None
        messages.append("The standard error of the selection criterion overflowed; rescale the target.")
    if score is not None and not np.isfinite(score):
        score = None
        messages.append("The score of the test rows overflowed; rescale the target.")
    return replace(conclusion, model=model, standard_error=error, test_value=score), messages


def unfitted_result(claim: Claim, task: Work, step: Step, status: Status, outcome: Outcome | None, why: str) -> bytes:
    """The result document of what a checkpoint holds, without a refit; `why` is the sentence that says why."""
    hyperparameters = task.plan.hyperparameters(task.problem)
    if task.plan.training.needs_variances:  # which are not stored
        hyperparameters = hyperparameters.unbounded()
    hypergradient, outer = resolve(task.plan, task.problem, hyperparameters)
    worth = worth_without_rows(hyperparameters, step)
    notes = notes_of(worth)
    told = f"{why} {MORE_SECONDS}" if outcome is Outcome.MAX_SECONDS else why
    document = Result(
        **_search(claim, hyperparameters, step, status, outcome, claim.elapsed) | {"partial": True},
        message=f"{outcome.value if outcome else STOPPED[status]} {why}",
        messages=[told, *(note.text for note in notes)],
        notes=notes,
        selection=selection_of(step),
        baseline=baseline_of(hyperparameters, worth),
        spread=spread_of(step),
        test=None,
        model=None,
        certificates=CertificateSet(
            outer_gradient_norm=finite(step.best.gradient_norm),
            inner_gradient_norm=None,
            adjoint_residual=None,
            finite_difference_error=None,
            arithmetic_error=None,
        ),
        method=Method(hypergradient=hypergradient.kind, outer=outer.kind, approximate=False, solver=None),
    )
    return document.model_dump_json().encode()


def _search(
    claim: Claim,
    hyperparameters: Hyperparameters,
    step: Step,
    status: Status,
    outcome: Outcome | None,
    elapsed: float,
    intervals: tuple[Array, Array] | None = None,
) -> dict[str, Any]:
    """The fields that depend on the search alone."""
    splits = len(step.best.best.per_split)
    now = time.time()
    return {
        "job_id": claim.id,
        "partial": status is not Status.SUCCEEDED,
        "stop_reason": outcome.code if outcome else None,
        "hyperparameters": hyperparameters_of(hyperparameters, step.starts[0].initial, step.best.best, intervals),
        "starts": [start_of(start, outcome) for start in step.starts],
        "counts": Counts(
            iterations=step.iterations,
            evaluations=step.evaluations,
            gradients=step.evaluations,
            factorizations=step.evaluations * splits,
            scan=step.scanned,
        ),
        "timing": Timing(
            queued_s=max(claim.started_at - claim.created_at, 0.0),
            fit_s=elapsed,
            total_s=max(now - claim.created_at, elapsed),  # by two clocks, of which each may step
        ),
        "versions": VERSIONS,
        "fingerprint": claim.fingerprint,
    }
