"""The classes of a target: their names, their numbers, and what cannot be one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from worker.contract.conditions import Condition
from worker.contract.data import DatasetData
from worker.contract.dataset import Column
from worker.contract.expansion import levels_of, unlisted_values
from worker.contract.faults import Fault
from worker.contract.inline_table import InlineTable, class_name
from worker.core.training import Training
from worker.core.training.kernel_machines import KernelTraining

MOST_NUMBERS = 100  # different numbers that can be classes: more of them are rather a quantity
MOST_NAMES = 1000


def inline_class_faults(training: Training, table: InlineTable) -> Iterator[Fault]:
    """Faults of the target in the present rows: it does not hold the classes or the numbers that training takes."""
    names = table.has_names
    if not training.classifies:
        if names:
            yield Fault("/data/y", "not_a_number", f"The target holds names, and {_predicts_numbers(training)}")
        return
    classes, class_of_row = table.classes
    if fault := _count_fault(training, len(classes), names, "/data/y", "The target"):
        yield fault
        return
    rows = np.bincount(class_of_row)
    if rows.min() < 2:
        alone = int(np.argmin(rows))
        row = table.present[int(np.argmax(class_of_row == alone))]
        remedy = "two are needed, one to train on and one to score; leave this row out or add others"
        yield Fault(f"/data/y/{row}", "single_row", f"Class {classes[alone][:60]!r} has only this row; {remedy}.")


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes that a target can have: their names, and their values as the dataset stores them, ascending."""

    names: tuple[str, ...] = ()
    levels: tuple[float, ...] = ()


def column_classes(
    training: Training,
    data: DatasetData,
    column: Column | None,
    wanted: Sequence[Condition],
    *,
    some_left_out: bool = False,
) -> Classes | Fault:
    """The classes of the target column among the values that meet all conditions on it, or why it has none.

    `some_left_out`: rows may have weight 0. Then only the worker sees which classes remain; see `left_classes_fault`.
    """
    pointer, shown = "/data/target", f"Column {data.target[:60]!r}"
    if column is None:
        told = f"{shown} is sparse, so that its different values are not known; make it a dense column."
        return Fault(pointer, "sparse", told)
    levels, texts = levels_of(column)
    if column.type == "number":
        texts = tuple(class_name(value) for value in levels or ())
    if levels is None and (unlisted := unlisted_values(column, MOST_NUMBERS)):
        return Fault(pointer, "unlisted_values", f"{unlisted}.")
    kept = np.logical_and.reduce([one.met_by(np.array(levels or ())) for one in wanted] or [np.ones(len(texts), bool)])
    used = [(text, level) for text, level, used in zip(texts, levels or (), kept, strict=False) if used]
    count = MOST_NAMES + 1 if levels is None else len(used)
    if some_left_out and training.most_classes == 2:
        count = 2 if 2 < count <= MOST_NUMBERS else count
    if fault := _count_fault(training, count, column.type == "category", pointer, shown):
        return fault
    return Classes(tuple(text for text, _ in used), tuple(level for _, level in used))


def left_classes_fault(training: Training, data: DatasetData, classes: tuple[str, ...]) -> Fault | None:
    """Why the classes of the rows that are not left out do not fit the training criterion."""
    return _count_fault(training, len(classes), True, "/data/target", f"Column {data.target[:60]!r}")


def _count_fault(training: Training, count: int, names: bool, pointer: str, shown: str) -> Fault | None:
    most = MOST_NAMES if names else MOST_NUMBERS
    if count < 2:
        told = f"{shown} has one class only, and {training.kind} tells classes apart; add rows of another one."
        return Fault(pointer, "one_class", told)
    if count > most:
        remedy = (
            "leave rare classes out"
            if names
            else "to predict a number, use ridge, kernel_ridge, huber, poisson or gamma"
        )
        return Fault(pointer, "too_many_classes", f"{shown} has more than {most} different values; {remedy}.")
    if training.most_classes == 2 and count > 2:
        remedy = "use multinomial"
        if isinstance(training, KernelTraining):
            remedy += ", or a job for each class against the rest"
        told = f"{shown} has {count} classes, and {training.kind} tells two apart; {remedy}."
        return Fault(pointer, "too_many_classes", told)
    return None


def _predicts_numbers(training: Training) -> str:
    return f"{training.kind} predicts numbers; send numbers, or use logistic or multinomial for classes."
