"""Parts of a spec that are well by themselves and do not go with each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from worker.contract.classes import class_weight_faults
from worker.contract.faults import Fault, sentence
from worker.core.hypergradient import CholeskyBackprop, Hypergradient
from worker.core.losses.elementary import RowError
from worker.core.outer import Newton, Outer
from worker.core.rows.present import present_rows
from worker.core.rows.problem import Problem
from worker.core.selection import (
    ApproximateLeaveOneOut,
    Evidence,
    GeneralizedCV,
    LaplaceEvidence,
    LeaveOneOut,
    Selection,
    WalkForward,
)
from worker.core.training import KernelMachine, KernelRidge, MultinomialRegression, TableTraining
from worker.core.training.generalized_linear import GeneralizedLinearTraining
from worker.core.training.kernel_machines import KernelTraining

NO_SPLINES = (
    "Penalties of splines leave straight lines free, and those of all classes could move together: multinomial takes "
    "no splines; use logistic for two classes, or one for each class against the rest."
)
DURATION_NEEDS_DATES = (
    "A duration needs dates: upload the table as a dataset and name its column of dates in the field time of the data, "
    "or give a number of rows here."
)
APPROXIMATIONS = {
    "leave_one_out": "approximate_leave_one_out",
    "generalized_cv": "approximate_leave_one_out",
    "evidence": "laplace_evidence",
    "marginal_likelihood": "laplace_evidence",
    "reml": "laplace_evidence",
}


def combination_faults(
    training: TableTraining, selection: Selection, hypergradient: Hypergradient, outer: Outer, problem: Problem
) -> Iterator[Fault]:
    """What the criteria, the methods and the data ask of each other, whatever the values are."""
    if isinstance(outer, Newton) and not (selection.has_hessian and training.has_hessian):
        without = selection.kind if training.has_hessian else training.kind
        told = f"newton needs an exact Hessian, which {without} does not have; use lbfgs or auto."
        yield Fault("/outer/kind", "does_not_fit", told)
    if problem.offset is not None and not training.takes_offset:
        yield Fault("/data/offset", "does_not_fit", _about_offset(training))
    yield from _duration_faults(selection, problem)
    yield from class_weight_faults(training, problem.classes)
    if training.splines and isinstance(training, MultinomialRegression):
        yield Fault("/training/splines", "does_not_fit", NO_SPLINES)
    if isinstance(selection, ApproximateLeaveOneOut | LaplaceEvidence):
        try:
            selection.check(training, problem)
        except ValueError as error:
            yield Fault("/selection/kind", "does_not_fit", sentence(str(error)))
            return
    if isinstance(training, GeneralizedLinearTraining):
        yield from _size_faults(training, selection, problem)
    if isinstance(training, KernelTraining):
        yield from _kernel_faults(training, selection, hypergradient)
        return
    if training.iterative and isinstance(selection, LeaveOneOut | GeneralizedCV | Evidence):
        yield Fault("/selection/kind", "does_not_fit", _about_closed_form(training, selection))
    elif (fault := _loss_fault(training, selection)) is not None:
        yield fault
    if training.iterative and isinstance(hypergradient, CholeskyBackprop):
        told = f"cholesky_backprop needs a quadratic training criterion, ridge; with {training.kind} use implicit."
        yield Fault("/hypergradient/kind", "does_not_fit", told)


def _duration_faults(selection: Selection, problem: Problem) -> Iterator[Fault]:
    if isinstance(selection, WalkForward) and not problem.time_in_days:
        for name in selection.durations:
            yield Fault(f"/selection/{name}", "does_not_fit", DURATION_NEEDS_DATES)


def _size_faults(training: GeneralizedLinearTraining, selection: Selection, problem: Problem) -> Iterator[Fault]:
    """Factors that are too large, with what needs none."""
    factored = replace(training, solver="newton_cholesky") if selection.closed_form else training
    try:
        factored.check_size(problem)
    except ValueError as error:
        if selection.closed_form:
            told = f"{selection.kind} needs the factor of the Hessian; {error}; use holdout or k_fold, with newton_cg"
            yield Fault("/selection/kind", "too_large", sentence(told))
        else:
            yield Fault("/training/solver", "too_large", sentence(f"{error}; use newton_cg or auto"))


def _kernel_faults(training: KernelMachine, selection: Selection, hypergradient: Hypergradient) -> Iterator[Fault]:
    """What kernel machines ask of the other parts."""
    if isinstance(hypergradient, CholeskyBackprop):
        yield Fault("/hypergradient/kind", "does_not_fit", f"With {training.kind} use implicit, which is as exact.")
    if isinstance(selection, GeneralizedCV):
        told = f"{selection.kind} is not there for kernels; use leave_one_out with kernel_ridge, or k_fold."
        yield Fault("/selection/kind", "does_not_fit", told)
    elif isinstance(selection, LeaveOneOut | Evidence):
        if not isinstance(training, KernelRidge):
            told = f"{selection.kind} needs kernel_ridge, whose training criterion is quadratic; use k_fold."
            yield Fault("/selection/kind", "does_not_fit", told)
        elif training.landmarks is not None:
            told = f"{selection.kind} needs the exact kernel matrix; leave landmarks out, or use k_fold or holdout."
            yield Fault("/training/landmarks", "does_not_fit", told)
    elif (fault := _loss_fault(training, selection)) is not None:
        yield fault


def target_faults(training: TableTraining, problem: Problem) -> Iterator[Fault]:
    """Targets that the training criterion does not take, in rows that are not left out."""
    kept = present_rows(problem)
    y = np.full(len(problem.y), problem.y[kept[0]])  # a row that is left out may have any target
    y[kept] = problem.y[kept]
    try:
        training.check_target(replace(problem, y=y))
    except RowError as error:
        yield Fault(f"/data/y/{error.row}", "out_of_range", sentence(str(error)))
    except ValueError as error:
        yield Fault("/data/y", "out_of_range", sentence(str(error)))


def _about_offset(training: TableTraining) -> str:
    if isinstance(training, KernelTraining):
        return f"{training.kind} takes no offset; leave it out."
    if training.classifies:
        return f"An offset is the same for every class, so it changes nothing in {training.kind}; leave it out."
    return f"{training.kind} takes no offset; subtract it from the target, and leave it out."


def _about_closed_form(training: TableTraining, selection: Selection) -> str:
    remedy = f"k_fold or {APPROXIMATIONS[selection.kind]}"
    return f"{selection.kind} needs ridge, whose training criterion is quadratic; with {training.kind} use {remedy}."


def _loss_fault(training: TableTraining, selection: Selection) -> Fault | None:
    loss = getattr(selection, "loss", None)
    if isinstance(loss, str):  # the only one that the criterion has
        return None
    try:
        training.score(loss)
    except ValueError as error:
        return Fault("/selection/loss", "does_not_fit", sentence(str(error)))
    return None
