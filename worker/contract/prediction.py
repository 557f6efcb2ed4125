"""Predictions: the rows that a caller sends, and what a fitted model says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, assert_never

import numpy as np
from pydantic import BaseModel, Field
from scipy.interpolate import BSpline

from worker.contract.faults import MOST, Fault, suggestion
from worker.contract.result import (
    AdditiveModel,
    FilledFeature,
    FittedModel,
    KernelModel,
    LinearModel,
    MultinomialModel,
    SplineTerm,
)
from worker.contract.wire import Wire
from worker.core.inner.kernel.kernel_model import KernelModel as CoreKernelModel
from worker.core.inner.kernel.kernel_model import Standard
from worker.core.losses.links import LINKS, LogitLink
from worker.core.losses.measures import predicted_class
from worker.core.names import places
from worker.core.records import Array

SHOWN = 60  # characters of a name that are repeated
RowModel = LinearModel | AdditiveModel | MultinomialModel | KernelModel  # fitted models that predict rows


class PredictionRequest(Wire):
    """Rows to predict, in the features of the model: of a dataset, in those that its columns became."""

    x: list[list[float | None]] = Field(
        description="Rows of features. Null is a missing value, where the model has one to fill in (`model.fills`)."
    )
    features: list[str] | None = Field(
        default=None, description="Names of the columns of `x`, in any order. Default: the features in their order."
    )
    offset: list[float] | None = Field(
        default=None, description="The offset of each row, where training had one. Default: 0."
    )


class Predictions(Wire):
    """What the fitted model says of each row."""

    job_id: str
    rows: int
    predictor: list[float] | dict[str, list[float]] = Field(
        description="The linear predictor `eta` of each row, offset included; of `multinomial`, for each class."
    )
    predictions: list[float] | list[str] = Field(description="The mean of the target, or the name of the class.")
    probabilities: dict[str, list[float]] | None = Field(
        description="Of each class, where the link gives them (`logit`, `softmax`) or a calibration does."
    )


class _WithModel(BaseModel):
    model: Annotated[FittedModel, Field(discriminator="kind")] | None


def fitted_model(result: bytes) -> FittedModel | None:
    """The model of a result document, whatever else it holds. Raises ValidationError for a model of a newer version."""
    return _WithModel.model_validate_json(result).model


@dataclass(frozen=True, slots=True)
class RowLayout:
    """What a row of the training table was: its features in their order, and whether it had an offset."""

    features: Sequence[str]
    offset: bool


@dataclass(frozen=True, slots=True)
class Rows:
    """Complete rows: `X` (n x p) in the order of `features`, and the `offset` (n)."""

    X: Array
    features: Sequence[str]
    offset: Array

    def columns(self, names: Sequence[str]) -> Array:
        """Some features of all rows (n x len(names))."""
        return self.X[:, places(self.features, names)]


def rows_of(asked: PredictionRequest, layout: RowLayout, fills: Sequence[FilledFeature]) -> Rows | list[Fault]:
    """The rows as the model takes them, missing values filled; or what is wrong with them."""
    names: Sequence[str] = layout.features if asked.features is None else tuple(asked.features)
    if found := [*_name_faults(asked.features, layout.features), *_shape_faults(asked, layout, len(names))]:
        return found[:MOST]
    X = np.array(asked.x, dtype=float)  # noqa: N806 - null becomes NaN
    standing = np.full(len(names), np.nan)  # in for missing values
    standing[places(names, [fill.feature for fill in fills])] = [fill.value for fill in fills]
    missing, filled = np.isnan(X), ~np.isnan(standing)
    if (gaps := np.argwhere(missing & ~filled)).size:
        return [_gap(int(i), int(j), names[j]) for i, j in gaps[:MOST]]
    X = np.where(missing, standing, X)  # noqa: N806
    offset = np.zeros(len(X)) if asked.offset is None else np.array(asked.offset, dtype=float)
    return Rows(X, names, offset)


def _gap(i: int, j: int, name: str) -> Fault:
    told = f"Feature {name[:SHOWN]!r} is missing, and the model has no value to fill in for it; send a number."
    return Fault(f"/x/{i}/{j}", "missing_value", told)


def _name_faults(given: Sequence[str] | None, known: Sequence[str]) -> Iterator[Fault]:
    if given is None:
        return
    first: dict[str, int] = {}
    for j, (name, place) in enumerate(zip(given, places(known, given).tolist(), strict=True)):
        if place < 0:
            near = suggestion(name, list(known)) if len(known) <= 1000 else ""
            yield Fault(f"/features/{j}", "unknown_feature", f"The model has no feature {name[:SHOWN]!r}{near}.")
            return
        if first.setdefault(name, j) != j:
            yield Fault(f"/features/{j}", "duplicate", f"Column {first[name]} has the name {name[:SHOWN]!r} already.")
            return
    if absent := list(islice((name for name in known if name not in first), 4)):
        shown = ", ".join(repr(name[:SHOWN]) for name in absent[:3]) + (", ..." if len(absent) > 3 else "")
        yield Fault("/features", "missing_feature", f"The model also needs {shown}; send every feature.")


def _shape_faults(asked: PredictionRequest, layout: RowLayout, width: int) -> Iterator[Fault]:
    if not asked.x:
        yield Fault("/x", "empty", "There are no rows.")
    for i, row in enumerate(asked.x):
        if len(row) != width:
            told = f"This row has {len(row)} values for {width} features; `model` in the result names them."
            yield Fault(f"/x/{i}", "length", told)
            break
    if asked.offset is not None and not layout.offset:
        yield Fault("/offset", "does_not_fit", "The model was trained without an offset; leave it out.")
    elif asked.offset is not None and len(asked.offset) != len(asked.x):
        yield Fault("/offset", "length", f"There are {len(asked.offset)} entries for {len(asked.x)} rows.")


@dataclass(frozen=True, slots=True)
class Predicted:
    """Of n rows: `eta` (n, or n x m for the m classes of several predictors), the mean or the class of each row.

    `labels` is the number of the class (n) where there are `classes`, `mean` (n) where there are none;
    `probabilities` (n x m) where the link gives them.
    """

    eta: Array
    classes: tuple[str, ...] = ()
    labels: Array | None = None
    mean: Array | None = None
    probabilities: Array | None = None

    def overflows(self) -> Array:
        """Numbers of the rows that have no finite prediction."""
        finite = np.isfinite(self.eta).reshape(len(self.eta), -1).all(1)
        return np.flatnonzero(~finite if self.mean is None else ~(finite & np.isfinite(self.mean)))


def outputs_of(model: RowModel) -> int:
    """Numbers that a prediction has for each row."""
    return len(model.classes) if isinstance(model, MultinomialModel) else 1


def kernels_of(model: RowModel) -> int:
    """Kernels that are computed for each row."""
    return len(model.support) if isinstance(model, KernelModel) else 0


def predict(model: RowModel, rows: Rows, between: Callable[[], None] = lambda: None) -> Predicted:
    """What the model says of the rows: one branch for each kind of model.

    `between` is called between parts that take some tenths of a second at most, and ends the work by what it raises.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # such rows are told, see `Predicted.overflows`
        match model:
            case MultinomialModel():
                return _multinomial(model, rows)
            case AdditiveModel():
                return _linked(model, _linear(model, rows) + sum(_term(one, rows) for one in model.splines))
            case LinearModel():
                return _linked(model, _linear(model, rows))
            case KernelModel():
                return _linked(model, _kernel(model, rows, between))
            case _:
                assert_never(model)


def _kernel(model: KernelModel, rows: Rows, between: Callable[[], None]) -> Array:
    parts = [np.empty(0)]
    for part in _machine(model).parts(rows.columns(model.features)):
        parts.append(part)
        between()
    return np.concatenate(parts)


def _machine(model: KernelModel) -> CoreKernelModel:
    function, standard = (
        model.kernel.over(tuple(model.features)),
        Standard(np.array(model.centre), np.array(model.scale)),
    )
    values = np.array([model.values[name] for name in function.box.names])
    support = standard.of(np.array(model.support).reshape(-1, len(model.features)))
    return CoreKernelModel(function, values, standard, support, np.array(model.coefficients), model.intercept)


def _linear(model: LinearModel, rows: Rows) -> Array:
    features, slopes = [one.feature for one in model.coefficients], [one.value for one in model.coefficients]
    eta: Array = model.intercept + rows.columns(features) @ np.array(slopes) + rows.offset
    return eta


def _term(term: SplineTerm, rows: Rows) -> Array:
    low, high = term.range
    x = rows.columns([term.feature])[:, 0]
    inside = np.clip(low + np.mod(x - low, high - low) if term.cyclic else x, low, high)
    values: Array = BSpline(np.array(term.knots), np.array(term.coefficients), term.degree)(inside)
    return values


def _linked(model: LinearModel | KernelModel, eta: Array) -> Predicted:
    link, column = LINKS[model.link], eta[:, None]
    if model.classes is None:
        return Predicted(eta, mean=link.mean(column)[:, 0])
    probabilities = link.probabilities(column)
    if isinstance(model, KernelModel) and (line := model.calibration) is not None:
        probabilities = LogitLink().probabilities(line.slope * column + line.offset)
    return Predicted(eta, tuple(model.classes), predicted_class(column), probabilities=probabilities)


def _multinomial(model: MultinomialModel, rows: Rows) -> Predicted:
    features = [one.feature for one in model.classes[0].coefficients]
    slopes = np.array([[slope.value for slope in one.coefficients] for one in model.classes])
    eta = np.array([one.intercept for one in model.classes]) + rows.columns(features) @ slopes.T
    names = tuple(one.name for one in model.classes)
    return Predicted(eta, names, predicted_class(eta), probabilities=LINKS[model.link].probabilities(eta))
