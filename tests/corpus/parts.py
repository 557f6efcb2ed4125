"""The parts of a request: each member of each family with settings for a table of 48 rows and few iterations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from service.catalog import FAMILIES
from tests.corpus.tables import matrices, table
from worker.core.family import kind_of, members
from worker.core.training import KernelMachine, LinearTraining, TableTraining

Part = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """A request with a name, whose parts say what it is about."""

    name: str
    request: Part


def kinds(family: Any) -> list[str]:
    """The names of the members of a family."""
    return [kind_of(member) for member in members(family)]


TRAININGS: dict[str, Any] = {kind_of(member): member for member in members(FAMILIES["training"])}
TABLE, LINEAR, MACHINES = kinds(TableTraining), kinds(LinearTraining), kinds(KernelMachine)
ITERATIVE = [kind for kind in LINEAR if TRAININGS[kind]().parts.curved]
TARGET = {"huber": "noisy", "poisson": "count", "gamma": "amount", "multinomial": "three"}

PER_FEATURE = {"kind": "per_feature", "initial": 0.1}
FORMS: dict[str, Part] = {
    "identity": {"name": "all"},
    "difference": {"name": "line", "order": 2},
    "matrix": {"name": "pair", "features": ["b", "c"], "matrix": [[2.0, -1.0], [-1.0, 1.0]]},
    "banded": {"name": "band", "features": ["b", "c", "d"], "bands": [[2.0, 2.0, 2.0], [-1.0, -1.0]]},
}
PENALTIES: dict[str, Part] = {
    "per_group": {"groups": {"first": ["a", "b"], "second": ["b", "c", "d"]}},
    "quadratic_forms": {"forms": [{"kind": kind, **settings} for kind, settings in FORMS.items()]},
}
WIDTHS: dict[str, Part] = {"per_group": {"groups": {"first": ["a", "c"], "second": ["b", "d"]}}}
PERIOD = {"initial": 3.0, "lower": 0.5, "upper": 20.0}
KERNELS: dict[str, Part] = {
    "matern": {"nu": "3/2"},
    "periodic": {"features": ["a", "d"], "period": PERIOD},
    "polynomial": {"degree": 3},
    "product": {"factors": [{"kind": "periodic", "features": ["d"], "period": PERIOD}, {"kind": "rbf"}]},
    "sum": {
        "terms": [
            {"kind": "rbf", "widths": {"kind": "per_feature"}},
            {"kind": "linear", "name": "line"},
            {"kind": "product", "factors": [{"kind": "matern", "nu": "1/2"}, {"kind": "linear"}]},
        ]
    },
}
SELECTIONS: dict[str, Part] = {
    "k_fold": {"folds": 3},
    "group_k_fold": {"folds": 3},
    "stratified_k_fold": {"folds": 3},
    "stratified_group_k_fold": {"folds": 3},
    "holdout": {"fraction": 0.3},
    "walk_forward": {"initial": 24, "horizon": 12},
}


def form(kind: str, **settings: Any) -> Part:
    """A quadratic form."""
    return {"kind": kind, **FORMS[kind], **settings}


def penalty(kind: str, **settings: Any) -> Part:
    """A penalty of the features of the table."""
    return {"kind": kind, **PENALTIES.get(kind, {}), **settings}


def widths(kind: str) -> Part:
    """Widths of a kernel of all features."""
    return {"kind": kind, **WIDTHS.get(kind, {})}


def kernel(kind: str, **settings: Any) -> Part:
    """A kernel."""
    return {"kind": kind, **KERNELS.get(kind, {}), **settings}


def training(kind: str, **settings: Any) -> Part:
    """A training criterion, unless the settings say otherwise with a hyperparameter for each feature."""
    if kind in LINEAR:
        return {"kind": kind, "penalty": PER_FEATURE, **settings}
    if kind in MACHINES:
        return {"kind": kind, "kernel": {"kind": "rbf", "widths": {"kind": "per_feature"}}, **settings}
    return {"kind": kind, **settings}


def selection(kind: str, **settings: Any) -> Part:
    """A selection criterion."""
    return {"kind": kind, **SELECTIONS.get(kind, {}), **settings}


def outer(kind: str = "auto", **settings: Any) -> Part:
    """An outer optimizer."""
    return {"kind": kind, "max_iterations": 8, **settings}


def target(kind: str) -> str:
    """The column of the table that a training criterion takes for its target."""
    return TARGET.get(kind, "two" if TRAININGS[kind].classifies else "number")


def data(kind: str, **changes: Any) -> Part:
    """The data of a training criterion."""
    return table(target(kind), **changes) if kind in TABLE else matrices()


def closed_forms(kind: str) -> list[str]:
    """Selection criteria from one fit, as far as the training criterion has them."""
    if kind == "squared_hinge":
        return ["approximate_leave_one_out"]
    if kind in ITERATIVE:
        return ["approximate_leave_one_out", "laplace_evidence"]
    if kind == "ridge":
        return ["leave_one_out", "generalized_cv", "evidence", "reml"]
    return ["leave_one_out", "evidence", "reml"] if kind == "kernel_ridge" else []


def case(name: str, kind: str, selected: str | Part = "k_fold", **rest: Any) -> Case:
    """A case of a training criterion; `training` holds settings of it, other parts stand in the request as they are."""
    settings = rest.pop("training", {})
    chosen = selection(selected) if isinstance(selected, str) else selected
    parts = {"data": data(kind), "training": training(kind, **settings), "selection": chosen, "outer": outer()}
    return Case(name, parts | rest)
