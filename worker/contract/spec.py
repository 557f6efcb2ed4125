"""The job spec: what a caller asks for."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, model_validator

from worker.contract.criteria import criteria_problem
from worker.contract.data import Data, InlineData, MatricesData
from worker.contract.feature_columns import FeatureColumns
from worker.contract.grouping import grouped
from worker.contract.inline import inline_problem
from worker.contract.inline_criteria import InlineCriteria
from worker.contract.inline_table import InlineTable
from worker.contract.wire import Wire
from worker.core.family import ByKind
from worker.core.hypergradient import Hypergradient, HypergradientAuto
from worker.core.outer import Outer, OuterAuto
from worker.core.rows.problem import Problem
from worker.core.search.nested import Nested, SpreadBy
from worker.core.search.plan import Plan
from worker.core.selection import (
    KFold,
    QuadraticSelection,
    Selection,
)
from worker.core.training import Quadratic, Training
from worker.core.training.quadratic import numbered

ALGORITHM = "4"
"""Version of the numbers. Raise it, and `worker.store.CONTRACT`, whenever the same spec and data may give others.

`tests/golden` holds numbers of this version.
"""

LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$")]
LabelValue = Annotated[str, StringConstraints(max_length=200)]


class Limits(Wire):
    """When to stop early. A spent budget is a success with its `stop_reason`."""

    seconds: Annotated[float, Field(gt=0, le=604_800)] = Field(
        default=600.0, description="Running time over all attempts."
    )
    evaluations: Annotated[int, Field(ge=1, lt=2**53)] | None = Field(
        default=None, description="Evaluations of the selection criterion, over all starts."
    )
    target_value: float | None = Field(default=None, description="Stop once the selection criterion is this low.")


class JobSpec(Wire):
    """A tuning job. Only `data` and `training` are required."""

    data: Data = Field(description="The table itself, columns of an uploaded dataset, or matrices.")
    training: Annotated[Training, ByKind()] = Field(description="What is minimized over the model's parameters.")
    selection: Annotated[Selection, ByKind()] = Field(
        default=KFold(),
        description="What is minimized over the hyperparameters. Default where training is quadratic: quadratic.",
    )
    hypergradient: Annotated[Hypergradient, ByKind()] = Field(
        default=HypergradientAuto(), description="How the derivative of the selection criterion is computed."
    )
    outer: Annotated[Outer, ByKind()] = Field(default=OuterAuto(), description="How the hyperparameters are descended.")
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Share of the rows that nothing is tuned or trained on; scored once, at the end."
    )
    nested: Nested | None = Field(
        default=None, description="Outer cross-validation of the whole tuning, to see how much it flatters itself."
    )
    spread_by: SpreadBy = Field(
        default="auto",
        description="What chooses a spread that is `auto`: the selection rows, or with `nested` the outer folds, each "
        "of which then scores every spread.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        default=0, description="Of the test rows and of further starts."
    )
    limits: Limits = Limits()
    warm_start: None = Field(default=None, description="Reserved: null.")
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] = Field(
        default_factory=dict, description="Yours to choose; jobs can be listed by them."
    )
    webhook: None = Field(default=None, description="Reserved: null.")

    @model_validator(mode="after")
    def _completed(self) -> Self:
        """The spec with the defaults that depend on its training criterion: selection, loss, multipliers."""
        if isinstance(self.training, Quadratic):
            if "selection" not in self.model_fields_set:
                self.__dict__["selection"] = QuadraticSelection()
            if self.training.multipliers is None and isinstance(self.data, MatricesData):
                k = max(len(self.data.matrices), len(self.data.vectors)) - 1
                self.__dict__["training"] = replace(self.training, multipliers=numbered(k))
        elif self.selection.takes_loss and self.selection.given_loss is None:
            named: Any = {"loss": self.training.score(None)}
            self.__dict__["selection"] = replace(self.selection, **named)
        return self

    def problem(self) -> Problem:
        """The data of the request as arrays. Call `faults` first."""
        return self._problem

    @functools.cached_property
    def _problem(self) -> Problem:
        if isinstance(self.data, MatricesData):
            return criteria_problem(self.criteria())
        return inline_problem(self.inline(), self.training)

    def inline(self) -> InlineTable:
        """The inline table, whose lists become arrays once. Raises TypeError for other data."""
        return self._inline

    @functools.cached_property
    def _inline(self) -> InlineTable:
        if not isinstance(self.data, InlineData):
            raise TypeError("the table is not in the spec")
        return InlineTable(self.data)

    def criteria(self) -> InlineCriteria:
        """The matrices of the request, whose lists become arrays once. Raises TypeError for other data."""
        return self._criteria

    @functools.cached_property
    def _criteria(self) -> InlineCriteria:
        if not isinstance(self.data, MatricesData):
            raise TypeError("there are no matrices in the spec")
        return InlineCriteria(self.data)

    def plan(self, columns: FeatureColumns | None = None) -> Plan:
        """The plan of the request. `columns`: the features that each column of a dataset becomes."""
        return Plan(
            self.training if columns is None else grouped(self.training, columns),
            self.selection,
            self.hypergradient,
            self.outer,
            self.seed,
            self.test_fraction,
            self.limits.evaluations,
            self.limits.target_value,
            self.nested,
            self.spread_by,
        )
