"""Lengths in natural units: multiples of the spread of the target, so that its unit changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Float, Int

from worker.core.family import NumberOrSettings
from worker.core.hyperparameters import Positive
from worker.core.records import Array
from worker.core.rows.problem import Problem

NORMAL_DEVIATION = 1.4826  # standard deviation over median absolute deviation of a normal distribution


@dataclass(frozen=True, slots=True)
class RelativeDelta:
    """`relative` times 1.4826 times the median absolute deviation of the target about its median.

    1.35 keeps 95 % of the efficiency of least squares if errors are normal (Huber 1964) and the features explain
    nothing. The standard deviation takes the place of a median absolute deviation of zero.
    """

    relative: Positive = 1.35

    def of(self, problem: Problem, rows: Int[Array, " m"]) -> float:
        """The length in units of the target, for the rows that train among these; offsets are subtracted."""
        return self.relative * (spread(*_targets(problem, rows)) or deviation(*_targets(problem, rows)) or 1.0)

    def lacks_spread(self, problem: Problem, rows: Int[Array, " m"]) -> bool:
        """Whether the standard deviation takes the place of the median absolute deviation."""
        return spread(*_targets(problem, rows)) == 0 < deviation(*_targets(problem, rows))


Delta = Annotated[Positive | RelativeDelta, NumberOrSettings()]


@dataclass(frozen=True, slots=True)
class Length:
    """A length as a caller gives it: a `number` in units of the target, or `relative` to its spread; one is None."""

    number: float | None
    relative: RelativeDelta | None

    @classmethod
    def given(cls, delta: Delta) -> Length:
        """Of a number or of settings: the wire allows both, and this is the only place that tells them apart."""
        return cls(None, delta) if isinstance(delta, RelativeDelta) else cls(delta, None)

    def of(self, problem: Problem, rows: Int[Array, " m"]) -> float:
        """In units of the target, for the rows that train among these."""
        if self.relative is not None:
            return self.relative.of(problem, rows)
        assert self.number is not None
        return self.number

    def lacks_spread(self, problem: Problem, rows: Int[Array, " m"]) -> bool:
        """Whether it is relative to the standard deviation, because the median absolute deviation is zero."""
        return self.relative is not None and self.relative.lacks_spread(problem, rows)


def spread(y: Float[Array, " n"], w: Float[Array, " n"]) -> float:
    """1.4826 times the weighted median absolute deviation about the weighted median."""
    return NORMAL_DEVIATION * _median(np.abs(y - _median(y, w)), w)


def deviation(y: Float[Array, " n"], w: Float[Array, " n"]) -> float:
    """The weighted standard deviation; exactly zero for a constant."""
    if (y == y[0]).all():
        return 0.0
    share = w / w.sum()
    return float(np.sqrt(share @ (y - share @ y) ** 2))


def _median(y: Float[Array, " n"], w: Float[Array, " n"]) -> float:
    """The weighted median: half of the weight is on each side, and between two values it is their mean."""
    order = np.argsort(y, kind="stable")
    below, half = np.cumsum(w[order]), w.sum() / 2
    lower = int(np.searchsorted(below, half * (1 - 1e-12)))
    upper = int(np.searchsorted(below, half * (1 + 1e-12)))
    return float(y[order[lower]] + y[order[min(upper, len(y) - 1)]]) / 2


def _targets(problem: Problem, rows: Int[Array, " m"]) -> tuple[Float[Array, " t"], Float[Array, " t"]]:
    trained = problem.trained(rows)
    y = problem.y[trained]
    return y if problem.offset is None else y - problem.offset[trained], problem.base_weights(trained)
