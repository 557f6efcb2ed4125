"""The interface of a selection criterion: what the search, the verdict and the contract ask of it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Int

from worker.core.capabilities import Need
from worker.core.hypergradient import ExactHypergradient
from worker.core.hyperparameters import Hyperparameters
from worker.core.losses import Score
from worker.core.objective.objective import Objective
from worker.core.records import Array
from worker.core.rows.problem import Partition, Problem
from worker.core.training import TrainingCriterion

RowsOfSplits = list[tuple[Int[Array, " t"], Int[Array, " v"]]]


@runtime_checkable
class SelectionCriterion(Protocol):
    """The settings of a selection criterion. A property may be a field, a class variable or computed."""

    @property
    def kind(self) -> str:
        """Its name on the wire."""

    @property
    def needs(self) -> tuple[Need, ...]:
        """What the training criterion has to offer."""

    @property
    def alternatives(self) -> tuple[str, ...]:
        """Kinds of selection criteria that come close where training does not offer it, by preference."""

    @property
    def takes_factor(self) -> bool:
        """Whether it takes the factor of the Hessian of a curved training criterion, whatever solver that has."""

    @property
    def leaves_rows_out(self) -> bool:
        """Whether the rows of one fit on all of them are scored as if each had not trained."""

    @property
    def ordered(self) -> bool:
        """Whether the order of the rows means something: an untouched test part is then the end of the series."""

    @property
    def closed_form(self) -> bool:
        """Whether one fit on all rows is scored by its residuals and leverages."""

    @property
    def keeps_groups(self) -> bool:
        """Whether rows of one group are never trained on and scored in one split."""

    @property
    def has_hessian(self) -> bool:
        """Whether J has an exact Hessian."""

    @property
    def takes_loss(self) -> bool:
        """Whether a loss scores the rows one by one, which the caller may choose: the field `loss`."""

    @property
    def given_loss(self) -> Score | None:
        """The loss that the caller chose. None: the training criterion chooses it, or the criterion takes none."""

    @property
    def split_weights(self) -> tuple[float, ...] | None:
        """Relative weights of the splits, in their order; None if all are equal."""

    @property
    def durations(self) -> tuple[str, ...]:
        """Names of the settings that are durations, which need a time column of dates."""

    @property
    def entry_per_row(self) -> bool:
        """Whether a setting has one entry for each row of the table, so that it fits one number of rows only."""

    @property
    def enough_rows(self) -> int | None:
        """So many rows show whether the splits of a larger table can be made; None if all rows count."""

    @property
    def enough_groups(self) -> int | None:
        """So many groups show whether the splits of a table of more groups can be made; None if all groups count."""

    def objective(
        self,
        problem: Problem,
        partition: Partition,
        training: TrainingCriterion,
        hypergradient: ExactHypergradient,
        trials: int = 1,
    ) -> Objective:
        """The outer objective. `trials`: about how many evaluations it will have.

        Raises ValueError if training lacks what this needs, or if a split does.
        """

    def partition(self, rows: Int[Array, " m"], n: int, roles: Problem | None = None) -> Partition:
        """The splits of the usable `rows` of a table of `n` rows. Raises ValueError if they cannot be made."""

    def outer_folds(self, rows: Int[Array, " m"], folds: int, seed: int, problem: Problem) -> RowsOfSplits:
        """Rows to tune on and rows to score, for each fold of a cross-validation of the whole tuning.

        What the criterion keeps together stays together. Raises ValueError if it does not let others cut the rows, or
        if they cannot be cut.
        """

    def clusters(self, problem: Problem, partition: Partition) -> Int[Array, " n"]:
        """The cluster of each row of the problem, from 0; rows of one cluster may depend on each other in any way.

        Standard errors take the rows of different clusters as independent.
        """

    def settings_of_rows(self, kept: Int[Array, " m"], problem: Problem) -> dict[str, Any]:
        """The settings that list rows, for the rows `kept` (ascending) of the problem, numbered from 0 again.

        Raises ValueError if a setting does not fit the rows of the problem, or lists only rows that are left out.
        """

    def split_remarks(self, problem: Problem, rows: Int[Array, " m"], partition: Partition) -> tuple[str, ...]:
        """What the user should know of the splits of these rows, besides groups that they tear apart."""

    def hyperparameters(self) -> Hyperparameters | None:
        """Hyperparameters of the selection criterion; None if it has none."""


def lacking(kind: str, training: TrainingCriterion) -> ValueError:
    """The error of an objective without the part of training that it needs: `misfits` has the whole sentence."""
    return ValueError(f"{kind} needs what {training.kind} does not have")
