"""P-splines (Eilers and Marx 1996): smooth functions of single features, each with its own penalty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from worker.core.hyperparameters import check_box
from worker.core.names import places, without
from worker.core.penalties.quadratic_forms import differences_of
from worker.core.records import Array
from worker.core.rows.bases import Basis, Expansion, contrast
from worker.core.rows.problem import Problem
from worker.core.rows.tables import CHUNK_VALUES, Table, rows_at_a_time, take

MOST_DISTINCT = 64  # values of a feature that are looked at to see whether they determine its spline
SMALLEST_DIFFERENCE = 1e-10  # of values of an unpenalized function, which is at most about 1; below it is rounding
MAX_BASIS_FUNCTIONS = 10_000  # of all splines; a square matrix of this size takes 800 MB


class SplineError(ValueError):
    """A spline does not fit the values of its feature; `number` counts the splines from 0."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


@dataclass(frozen=True, slots=True, kw_only=True)
class Spline:
    """A smooth function of one feature instead of a straight line: `basis` B-splines on equidistant knots.

    Its hyperparameter `penalty[spline(feature)]` multiplies the sum of squared differences of the given `order` of
    neighbouring coefficients; `cyclic` joins both ends. `lower` and `upper` are the range of the knots, by default the
    range of the feature in the rows used for tuning. Outside it the function is constant, or periodic if `cyclic`.
    """

    feature: str
    basis: Annotated[int, Ge(2), Le(1000)] = 20
    degree: Annotated[int, Ge(1), Le(5)] = 3
    order: Annotated[int, Ge(1), Le(3)] = 2
    cyclic: bool = False
    lower: float | None = None
    upper: float | None = None

    def __post_init__(self) -> None:
        least = max(self.degree, self.order) + 1
        if self.basis < least:
            raise ValueError(
                f"basis ({self.basis}) must be at least {least} for degree {self.degree} and order {self.order}"
            )
        if self.lower is not None and self.upper is not None:
            check_box(self.lower, None, self.upper)

    @property
    def name(self) -> str:
        """The name of the term in the names of hyperparameters."""
        return f"spline({self.feature})"

    def over(self, column: int, smallest: float, largest: float) -> Basis:
        """The basis of a column with values in this range. Raises ValueError if two knots would be equal."""
        lower = smallest if self.lower is None else self.lower
        upper = largest if self.upper is None else self.upper
        if not lower < upper:
            raise ValueError(f"the range of {self.name} is empty: its lower end {lower:g} is not below {upper:g}")
        intervals = self.basis if self.cyclic else self.basis - self.degree
        steps = np.arange(-self.degree, intervals + self.degree + 1)
        with np.errstate(over="ignore", invalid="ignore"):
            knots = lower + (upper - lower) / intervals * steps
            knots[self.degree + intervals] = upper
            apart = np.diff(knots) > 0
        if not apart.all():
            reach = "wide or too narrow"
            raise ValueError(
                f"the range of {self.name}, {lower:g} to {upper:g}, is too {reach} for {self.basis} splines"
            )
        return Basis(column, self.feature, knots, self.degree, self.basis, self.cyclic)

    def root(self) -> tuple[Float[Array, "r s1"], int]:
        """The root of the difference penalty on the coefficients of the contrast of the basis, and its rank.

        The contrast removes the constant. It has no penalty, so the rank does not change.
        """
        D, rank = differences_of(self.basis, self.order, cyclic=self.cyclic)
        return D @ contrast(self.basis), rank


def others(splines: tuple[Spline, ...], features: Sequence[str]) -> Sequence[str]:
    """The features without a spline. Raises ValueError if a feature is unknown or has two splines, or for too many."""
    total = sum(spline.basis for spline in splines)
    if total > MAX_BASIS_FUNCTIONS:
        raise ValueError(f"the splines have {total} basis functions in all, and {MAX_BASIS_FUNCTIONS} is the most")
    named = [spline.feature for spline in splines]
    seen: set[str] = set()
    for name, place in zip(named, places(features, named).tolist() if named else (), strict=True):
        if place < 0:
            raise ValueError(f"there is a spline of the feature {name!r}, which the data does not have")
        if name in seen:
            raise ValueError(f"there are two splines of the feature {name!r}; leave one of them out")
        seen.add(name)
    return without(features, named)


def expansion(splines: tuple[Spline, ...], problem: Problem, rows: Int[Array, " m"]) -> Expansion:
    """The bases of the splines for the values in these rows, which are read in chunks.

    Raises ValueError when a spline does not fit the features, SplineError when it does not fit their values.
    """
    features = problem.features
    rest = others(splines, features)
    if isinstance(problem.X, csr_array):
        raise ValueError("splines need a dense table, and this one is sparse")
    columns = places(features, [spline.feature for spline in splines])
    bases = []
    for number, (spline, j, values) in enumerate(
        zip(splines, columns, _distinct(problem.X, rows, columns), strict=True)
    ):
        try:
            bases.append(_basis(spline, int(j), values))
        except ValueError as error:
            raise SplineError(number, str(error)) from error
    return Expansion(places(features, rest), tuple(bases))


def too_few(spline: Spline, distinct: int) -> str | None:
    """Why so many distinct values of its feature do not determine a spline; None if they may."""
    least = 2 if spline.cyclic else max(spline.order, 2)
    if distinct >= least:
        return None
    if distinct == 1:
        return f"feature {spline.feature!r} is constant on the rows used; leave its spline out"
    remedy = f"choose order {distinct}, or leave its spline out"
    return (
        f"feature {spline.feature!r} has {distinct} distinct values on the rows used, and a spline of order "
        f"{spline.order} needs at least {least}; {remedy}"
    )


def _basis(spline: Spline, column: int, values: Float[Array, " d"]) -> Basis:
    """The basis of a column with these distinct values, ascending. Raises ValueError if they do not determine it."""
    if (fault := too_few(spline, len(values))) is not None:
        raise ValueError(fault)
    basis = spline.over(column, float(values[0]), float(values[-1]))
    low, high = basis.range
    if not (spline.cyclic or (values[0] < high and low < values[-1])):
        reach = f"{values[0]:g} to {values[-1]:g}"
        raise ValueError(f"no value of feature {spline.feature!r}, {reach}, is inside the range of {spline.name}")
    # coefficients that are polynomials of their number have no penalty: the values have to tell them apart
    number = np.linspace(-1.0, 1.0, spline.basis)[:, None]
    free = number ** np.arange(1 if spline.cyclic else spline.order)
    functions = basis(values) @ (contrast(spline.basis).T @ free) + free.mean(axis=0)
    if np.linalg.matrix_rank(functions, SMALLEST_DIFFERENCE * np.sqrt(len(values))) < free.shape[1]:
        raise ValueError(
            f"the values of feature {spline.feature!r} on the rows used are too close together in the range of "
            f"{spline.name}, {low:g} to {high:g}, for order {spline.order}; give lower and upper, or a lower order"
        )
    return basis


def _distinct(X: Table, rows: Int[Array, " m"], columns: Int[Array, " q"]) -> list[Float[Array, " d"]]:
    """Distinct values of each column, ascending, without missing ones: the ends, and at most `MOST_DISTINCT` in all."""
    found = [np.empty(0)] * len(columns)
    size = rows_at_a_time(X, CHUNK_VALUES)
    for begin in range(0, len(rows), size):
        part = take(X, rows[begin : begin + size])[:, columns]
        for j, column in enumerate(part.T):
            values = np.union1d(found[j], column[~np.isnan(column)])
            found[j] = values[np.unique(np.linspace(0, len(values) - 1, min(len(values), MOST_DISTINCT)).astype(int))]
    return found
