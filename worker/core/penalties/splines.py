"""P-splines (Eilers and Marx 1996): smooth functions of single features, each with its own penalty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from worker.core.hyperparameters import check_box
from worker.core.penalties.quadratic_forms import differences_of
from worker.core.records import Array
from worker.core.rows.bases import Basis, Expansion, contrast
from worker.core.rows.problem import Problem
from worker.core.rows.tables import CHUNK_VALUES, rows_at_a_time, take

MAX_BASIS_FUNCTIONS = 10_000  # of all splines; a square matrix of this size takes 800 MB


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


def others(splines: tuple[Spline, ...], features: tuple[str, ...]) -> tuple[str, ...]:
    """The features without a spline. Raises ValueError if a feature is unknown or has two splines, or for too many."""
    total = sum(spline.basis for spline in splines)
    if total > MAX_BASIS_FUNCTIONS:
        raise ValueError(f"the splines have {total} basis functions in all, and {MAX_BASIS_FUNCTIONS} is the most")
    named = [spline.feature for spline in splines]
    for i, name in enumerate(named):
        if name not in features:
            raise ValueError(f"there is a spline of the feature {name!r}, which the data does not have")
        if name in named[:i]:
            raise ValueError(f"there are two splines of the feature {name!r}; leave one of them out")
    return tuple(name for name in features if name not in named)


def expansion(splines: tuple[Spline, ...], problem: Problem, rows: Int[Array, " m"]) -> Expansion:
    """The bases of the splines for the values in these rows, which are read in chunks.

    Raises ValueError when a spline does not fit the features or their values.
    """
    features = problem.features
    kept = np.array([features.index(name) for name in others(splines, features)], int)
    if isinstance(problem.X, csr_array):
        raise ValueError("splines need a dense table, and this one is sparse")
    columns = np.array([features.index(spline.feature) for spline in splines], int)
    low, high = np.full(len(columns), np.inf), np.full(len(columns), -np.inf)
    size = rows_at_a_time(problem.X, CHUNK_VALUES)
    for begin in range(0, len(rows), size):
        part = take(problem.X, rows[begin : begin + size])[:, columns]
        low, high = np.fmin(low, np.fmin.reduce(part, axis=0)), np.fmax(high, np.fmax.reduce(part, axis=0))
    for spline, smallest, largest in zip(splines, low, high, strict=True):
        if not smallest < largest:
            raise ValueError(f"feature {spline.feature!r} is constant on the rows used; leave its spline out")
    bases = []
    for spline, j, smallest, largest in zip(splines, columns, low, high, strict=True):
        bases.append(spline.over(int(j), float(smallest), float(largest)))
        knots = bases[-1].knots
        inside = smallest < knots[-1 - spline.degree] and knots[spline.degree] < largest
        if not (inside or spline.cyclic):
            values = f"{smallest:g} to {largest:g}"
            raise ValueError(f"no value of feature {spline.feature!r}, {values}, is inside the range of {spline.name}")
    return Expansion(kept, tuple(bases))
