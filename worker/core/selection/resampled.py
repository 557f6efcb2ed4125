"""Resampled selection criteria: train on some rows, score on others.

`J = (sum over splits and validation rows of the loss) / (number of validation rows, summed over splits)`.

A new one is a file with a class that extends `AnyRows` and gives `kind` and `partition`, and a line of the union
`TableSelection`. Its partition has `Partition.of_rows` if rows are in other parts from split to split.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, MinLen
from jaxtyping import Int

from worker.core.capabilities import Capability, Need
from worker.core.family import ByKind
from worker.core.hypergradient import ExactHypergradient
from worker.core.hyperparameters import Hyperparameters
from worker.core.losses import Score
from worker.core.objective.objective import Objective
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem
from worker.core.selection.clusters import by_group
from worker.core.selection.outer_folds import folds_at_random
from worker.core.selection.selection_criterion import RowsOfSplits, lacking
from worker.core.training import TrainingCriterion


@dataclass(frozen=True, slots=True)
class Resampled(ABC):
    """`loss` scores a validation row; by default the training criterion chooses it.

    `split_weights` are the relative weights of the splits, in their order.
    """

    loss: Annotated[Score, ByKind(named=True)] | None = None
    split_weights: Annotated[tuple[Annotated[float, Ge(0)], ...], MinLen(1)] | None = None
    needs: ClassVar[tuple[Need, ...]] = (frozenset({Capability.ROWS}),)
    alternatives: ClassVar[tuple[str, ...]] = ("quadratic",)
    takes_factor: ClassVar[bool] = False
    leaves_rows_out: ClassVar[bool] = False
    ordered: ClassVar[bool] = False
    keeps_groups: ClassVar[bool] = False
    closed_form: ClassVar[bool] = False
    has_hessian: ClassVar[bool] = True
    takes_loss: ClassVar[bool] = True
    enough_groups: ClassVar[int | None] = None

    @abstractmethod
    def partition(self, rows: Int[Array, " m"], n: int, roles: Problem | None = None) -> Partition:
        """The splits of the usable `rows` of a table of `n` rows. Raises ValueError if they cannot be made."""

    @property
    def given_loss(self) -> Score | None:
        """The loss that the caller chose; None if the training criterion chooses it."""
        return self.loss

    def objective(
        self,
        problem: Problem,
        partition: Partition,
        training: TrainingCriterion,
        hypergradient: ExactHypergradient,
        trials: int = 1,
    ) -> Objective:
        """The outer objective: the mean loss over all validation rows, pooled over the splits."""
        weights = None if self.split_weights is None else np.array(self.split_weights)
        if (on_rows := training.parts.rows) is None:
            raise lacking("resampling", training)
        return on_rows.mean_of_splits(problem, partition, self.loss, weights, hypergradient, trials)

    def hyperparameters(self) -> Hyperparameters | None:
        """Hyperparameters of the selection criterion: none."""
        return None

    def weighted(self, partition: Partition) -> Partition:
        """The partition. Raises ValueError unless each split has a weight and one of them is positive."""
        weights, splits = self.split_weights, partition.splits
        if weights is not None and len(weights) != len(splits):
            raise ValueError(f"split_weights has {len(weights)} entries, and there are {len(splits)} splits")
        if weights is not None and not any(weights):
            raise ValueError("split_weights are all zero, so that nothing would be scored")
        return partition


@dataclass(frozen=True, slots=True)
class AnyRows(Resampled):
    """A criterion that knows no row by its number or time, so that any rows may stand in any fold."""

    durations: ClassVar[tuple[str, ...]] = ()
    entry_per_row: ClassVar[bool] = False
    enough_rows: ClassVar[int | None] = None

    def outer_folds(self, rows: Int[Array, " m"], folds: int, seed: int, problem: Problem) -> RowsOfSplits:
        """Random folds."""
        return folds_at_random(rows, folds, seed)

    def clusters(self, problem: Problem, partition: Partition) -> Int[Array, " n"]:
        """The groups of the data; without groups each row by itself."""
        return by_group(problem)

    def settings_of_rows(self, kept: Int[Array, " m"], problem: Problem) -> dict[str, Any]:
        """None lists rows."""
        return {}

    def split_remarks(self, problem: Problem, rows: Int[Array, " m"], partition: Partition) -> tuple[str, ...]:
        """None."""
        return ()
