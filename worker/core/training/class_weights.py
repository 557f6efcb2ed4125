"""Training criteria of classes: what their rows count for, and whether every split has them all."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt
from jaxtyping import Float, Int

from worker.core.losses import Score, SmoothedAuc, SmoothedF
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem

ClassWeights = Literal["balanced"] | dict[str, Annotated[float, Gt(0)]]


def check_classes(problem: Problem, partition: Partition, score: Score) -> None:
    """Raises ValueError where a class has no row to train on, or none that a loss of all rows together needs."""
    rows = np.flatnonzero(partition.block_of_row >= 0)
    trained = _rows_of_classes(problem, partition, rows[problem.base_weights(rows) > 0])
    scored = _rows_of_classes(problem, partition, rows[problem.score_weights(rows) > 0])
    for number, (train, validation) in enumerate(partition.splits, start=1):
        split = f"split {number} of {len(partition.splits)}"
        missing = np.flatnonzero(trained[list(train)].sum(axis=0) == 0)
        if len(missing):
            name = _names_of_classes(problem)[missing[0]]
            raise ValueError(
                f"class {name!r} has no row to train on in {split}; use stratified_k_fold, or leave its rows out"
            )
        if isinstance(score, SmoothedAuc | SmoothedF):
            try:
                score.check(np.flatnonzero(scored[list(validation)].sum(axis=0)).astype(float))
            except ValueError as error:
                raise ValueError(f"{error} ({split})") from error


def weights_of_classes(
    class_weights: ClassWeights | None, problem: Problem, rows: Int[Array, " m"]
) -> Float[Array, " m"] | None:
    """What the weights of training rows are multiplied with, None where nothing."""
    if class_weights is None:
        return None
    codes = problem.y[rows].astype(int)
    if class_weights == "balanced":
        counts = np.bincount(codes, problem.base_weights(rows), len(problem.classes))
        weights = counts.sum() / (len(counts) * np.where(counts > 0, counts, 1.0))
    else:
        weights = np.array([class_weights.get(name, 1.0) for name in problem.classes])
    return weights[codes]


def _rows_of_classes(problem: Problem, partition: Partition, rows: Int[Array, " r"]) -> Int[Array, "blocks m"]:
    """How many of the rows each block has of each class."""
    m, blocks = len(_names_of_classes(problem)), partition.blocks
    cells = partition.block_of_row[rows].astype(int) * m + problem.y[rows].astype(int)
    return np.bincount(cells, minlength=blocks * m)[: blocks * m].reshape(blocks, m)


def _names_of_classes(problem: Problem) -> tuple[str, ...]:
    return problem.classes or ("0", "1")
