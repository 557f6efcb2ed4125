"""The refitted model as the contract describes it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worker.contract.expansion import ColumnFeatures, Made
from worker.contract.result import (
    AdditiveModel,
    Calibration,
    ClassModel,
    Coefficient,
    ExpandedColumn,
    FilledFeature,
    FittedModel,
    KernelModel,
    LinearModel,
    Link,
    MultinomialModel,
    QuadraticModel,
    SplineTerm,
)
from worker.core.inner.kernel.kernel_model import KernelModel as CoreKernelModel
from worker.core.records import Array
from worker.core.rows.bases import Basis
from worker.core.rows.problem import Problem
from worker.core.search.plan import Prepared
from worker.core.training import Training
from worker.core.training.kernel_machines import KernelTraining
from worker.core.verdict.conclude import Conclusion


def model_of(prepared: Prepared, conclusion: Conclusion, made: Sequence[Made]) -> FittedModel | None:
    """The document of the model, None where there is none. `made`: features from columns."""
    model, problem, training = conclusion.model, prepared.problem, prepared.plan.training
    if model is None:
        return None
    if problem.criteria is not None:
        return QuadraticModel(theta=model.coefficients.tolist())
    columns = [_expanded(one) for one in made if isinstance(one, ColumnFeatures) and one.names != (one.column,)]
    fills = _fills(problem, conclusion)
    if isinstance(model, CoreKernelModel):
        return _kernel(prepared, conclusion, model, columns, fills)
    if model.coefficients.ndim > 1:
        each = zip(problem.classes, np.atleast_1d(model.intercept), model.coefficients, strict=True)
        classes = [ClassModel(name=name, intercept=float(b), coefficients=_slopes(problem, c)) for name, b, c in each]
        return MultinomialModel(classes=classes, columns=columns, fills=fills)
    linear = LinearModel(
        link=_link(training, problem),
        classes=list(problem.classes) if training.classifies else None,
        intercept=float(model.intercept),
        coefficients=_slopes(problem, model.coefficients),
        columns=columns,
        fills=fills,
        delta=_delta(prepared),
    )
    if problem.expansion is None:
        return linear
    terms = [_spline(basis, c) for basis, c in problem.expansion.terms(model.coefficients)]
    return AdditiveModel(**dict(linear) | {"kind": "additive", "splines": terms})


def _kernel(
    prepared: Prepared,
    conclusion: Conclusion,
    model: CoreKernelModel,
    columns: list[ExpandedColumn],
    fills: list[FilledFeature],
) -> KernelModel:
    problem, training = prepared.problem, prepared.plan.training
    assert isinstance(training, KernelTraining)
    support = model.support.original + model.standard.mean
    line = conclusion.calibration
    return KernelModel(
        link=_link(training, problem),
        classes=list(problem.classes) if training.classifies else None,
        intercept=model.intercept,
        kernel=training.kernel,
        values=dict(zip(model.kernel.box.names, model.lam.tolist(), strict=True)),
        features=list(problem.features),
        centre=model.standard.mean.tolist(),
        scale=model.standard.scale.tolist(),
        support=support.tolist(),
        coefficients=model.coefficients.tolist(),
        bytes=8 * (support.size + len(support)),
        calibration=None if line is None else Calibration(slope=line[0], offset=line[1]),
        columns=columns,
        fills=fills,
    )


def _link(training: Training, problem: Problem) -> Link:
    """The link that the training loss states, of a model with one predictor."""
    on_rows = training.parts.rows
    assert on_rows is not None
    return on_rows.row_loss(problem).link.kind


def _delta(prepared: Prepared) -> float | None:
    """The size of a residual beyond which the training loss of the refit is straight: delta of the Huber loss."""
    on_rows = prepared.plan.training.parts.rows
    assert on_rows is not None
    return on_rows.row_loss(prepared.problem, prepared.rows).straight_beyond


def _slopes(problem: Problem, slopes: Array) -> list[Coefficient]:
    """Those of features that have no spline; the others follow them."""
    expansion = problem.expansion
    names = problem.features if expansion is None else [problem.features[j] for j in expansion.kept]
    return [Coefficient(feature=name, value=float(value)) for name, value in zip(names, slopes)]  # noqa: B905


def _spline(basis: Basis, c: Array) -> SplineTerm:
    return SplineTerm(
        feature=basis.feature,
        degree=basis.degree,
        knots=basis.knots.tolist(),
        coefficients=c.tolist(),
        range=basis.range,
        cyclic=basis.cyclic,
    )


def _expanded(one: ColumnFeatures) -> ExpandedColumn:
    categories = list(one.texts) if one.levels is not None else None
    return ExpandedColumn(column=one.column, part=one.day, categories=categories, features=list(one.names))


def _fills(problem: Problem, conclusion: Conclusion) -> list[FilledFeature]:
    if problem.imputation is None:
        return []
    pairs = zip(problem.imputation.columns, conclusion.fills, strict=True)
    return [FilledFeature(feature=problem.features[column], value=float(value)) for column, value in pairs]
