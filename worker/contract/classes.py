"""The classes of a target: their names, their numbers, and what cannot be one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.contract.conditions import Condition
from worker.contract.data import DatasetData
from worker.contract.dataset import Column
from worker.contract.expansion import levels_of, unlisted_values
from worker.contract.faults import Fault, pointer_of
from worker.core.records import Array
from worker.core.training import Quadratic, Training
from worker.core.training.kernel_machines import KernelTraining

MOST_NUMBERS = 100  # different numbers that can be classes: more of them are rather a quantity
MOST_NAMES = 1000


def classes_of(y: Sequence[float] | Sequence[str]) -> tuple[tuple[str, ...], Array]:
    """The names of the distinct values of a target, sorted, and the number of each row's class, from 0."""
    array = np.array(y) if _is_names(y) else np.array(y, float) + 0.0  # zero has one sign
    values, codes = np.unique(array, return_inverse=True)
    return tuple(class_name(value) for value in values.tolist()), codes.astype(float)


def class_name(value: Any) -> str:
    """A value as text: numbers as short as they can be told, whole ones without a point."""
    return value if isinstance(value, str) else repr(float(value)).removesuffix(".0")


def inline_class_faults(training: Training, y: Sequence[float] | Sequence[str], kept: Sequence[int]) -> Iterator[Fault]:
    """Why the values of a target in the rows `kept` cannot be the classes of a training criterion, or its numbers."""
    names = _is_names(y)
    if not training.classifies:
        if names:
            yield Fault("/data/y", "not_a_number", f"The target holds names, and {_predicts_numbers(training)}")
        return
    classes, codes = classes_of([y[row] for row in kept])  # type: ignore[arg-type]
    if fault := _count_fault(training, len(classes), names, "/data/y", "The target"):
        yield fault
        return
    rows = np.bincount(codes.astype(int))
    if rows.min() < 2:
        alone = int(np.argmin(rows))
        row = kept[int(np.argmax(codes == alone))]
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

    If rows may be left out, for a weight of 0, the worker sees whether they leave two classes: `left_classes_fault`.
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
    if some_left_out and _tells_two_apart(training):
        count = 2 if 2 < count <= MOST_NUMBERS else count
    if fault := _count_fault(training, count, column.type == "category", pointer, shown):
        return fault
    return Classes(tuple(text for text, _ in used), tuple(level for _, level in used))


def left_classes_fault(training: Training, data: DatasetData, classes: tuple[str, ...]) -> Fault | None:
    """Why the classes of the rows that are not left out do not fit the training criterion."""
    return _count_fault(training, len(classes), True, "/data/target", f"Column {data.target[:60]!r}")


def class_weight_faults(training: Training, classes: tuple[str, ...]) -> Iterator[Fault]:
    """Weights of classes that the target does not have."""
    weights = getattr(training, "class_weights", None)
    for name in weights if isinstance(weights, dict) else ():
        if name not in classes:
            known = ", ".join(repr(one[:60]) for one in classes[:5]) + (", ..." if len(classes) > 5 else "")
            told = f"The target has no class {name[:60]!r}; its classes are {known}."
            yield Fault(pointer_of(["training", "class_weights", name]), "unknown_class", told)


def _is_names(y: Sequence[float] | Sequence[str]) -> bool:
    return bool(y) and isinstance(y[0], str)


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
    if _tells_two_apart(training) and count > 2:
        remedy = "use multinomial"
        if isinstance(training, KernelTraining):
            remedy += ", or a job for each class against the rest"
        told = f"{shown} has {count} classes, and {training.kind} tells two apart; {remedy}."
        return Fault(pointer, "too_many_classes", told)
    return None


def _tells_two_apart(training: Training) -> bool:
    """Whether one predictor ranks rows between two classes, so that there cannot be more."""
    return not isinstance(training, Quadratic) and "rank" in training.predicts


def _predicts_numbers(training: Training) -> str:
    return f"{training.kind} predicts numbers; send numbers, or use logistic or multinomial for classes."
