"""Class weights of training rows, and the check that every split has rows of every class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt
from jaxtyping import Float, Int

from worker.core.capabilities import Misfit
from worker.core.losses import PredictorScore
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem

ClassWeights = Literal["balanced"] | dict[str, Annotated[float, Gt(0)]]


def check_classes(problem: Problem, partition: Partition, score: PredictorScore) -> None:
    """Raises ValueError if a split trains on no row of a class, or lacks one that its AUC or F measure needs."""
    rows = np.flatnonzero(partition.block_of_row >= 0)
    train_counts = _count_rows_by_class(problem, partition, rows[problem.base_weights(rows) > 0])
    validation_counts = _count_rows_by_class(problem, partition, rows[problem.score_weights(rows) > 0])
    for number, (train, validation) in enumerate(partition.splits, start=1):
        split = f"split {number} of {len(partition.splits)}"
        missing = np.flatnonzero(train_counts[list(train)].sum(axis=0) == 0)
        if len(missing):
            name = _class_names(problem)[missing[0]]
            raise ValueError(
                f"class {name!r} has no row to train on in {split}; use stratified_k_fold, or leave its rows out"
            )
        if lacks := score.lacks(np.flatnonzero(validation_counts[list(validation)].sum(axis=0)).astype(float)):
            raise ValueError(f"{lacks} ({split})")


def weights_of_classes(
    class_weights: ClassWeights | None, problem: Problem, rows: Int[Array, " m"]
) -> Float[Array, " m"] | None:
    """The factor of each row's training weight, by its class; None without class weights."""
    if class_weights is None:
        return None
    codes = problem.y[rows].astype(int)
    if class_weights == "balanced":
        counts = np.bincount(codes, problem.base_weights(rows), len(problem.classes))
        weights = counts.sum() / (len(counts) * np.where(counts > 0, counts, 1.0))
    else:
        weights = np.array([class_weights.get(name, 1.0) for name in problem.classes])
    return weights[codes]


def class_weight_misfits(class_weights: ClassWeights | None, classes: tuple[str, ...]) -> Iterator[Misfit]:
    """Weights of classes that the target does not have."""
    if class_weights is None or class_weights == "balanced":
        return
    for name in class_weights:
        if name not in classes:
            known = ", ".join(repr(one[:60]) for one in classes[:5]) + (", ..." if len(classes) > 5 else "")
            text = f"The target has no class {name[:60]!r}; its classes are {known}."
            yield Misfit(("training", "class_weights", name), text, "unknown_class")


def _count_rows_by_class(problem: Problem, partition: Partition, rows: Int[Array, " r"]) -> Int[Array, "blocks m"]:
    """The number of the given rows in each block and class."""
    m, blocks = len(_class_names(problem)), partition.blocks
    cells = partition.block_of_row[rows].astype(int) * m + problem.y[rows].astype(int)
    return np.bincount(cells, minlength=blocks * m)[: blocks * m].reshape(blocks, m)


def _class_names(problem: Problem) -> tuple[str, ...]:
    return problem.classes or ("0", "1")
