"""Differences of J along a line that know their own error: extrapolation to the step zero (Ridders 1982)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

SHRINKAGE = 4.0  # of the step from one rung of the ladder to the next, after the first ones
SMALLEST_STEP = 8e-9  # on the scale of rho; with shorter ones rounding of J hides slopes of 1e-7 of J at least


@dataclass(frozen=True, slots=True)
class Line:
    """`t -> J(rho + t d)`; `noise` is the error of its values. `both_sides`: whether t may be negative."""

    J: Callable[[float], float]
    at_zero: float
    noise: float
    both_sides: bool


@dataclass(frozen=True, slots=True)
class Slope:
    """The derivative of J along a line at t = 0, and what it may be off by."""

    value: float
    error: float


@dataclass(frozen=True, slots=True)
class _Rung:
    """Extrapolations of rising order, up to the step of this rung: of the slope and of the second derivative."""

    slopes: list[float]
    bends: list[float]


def ladder(first: float, smallest: float = SMALLEST_STEP, *, both_sides: bool) -> list[float]:
    """Steps that fall from the first one. Four values of J give a difference of fourth order, on one or both sides."""
    steps = [first / 2**i for i in range(2 if both_sides else 4)]
    while steps[-1] / SHRINKAGE >= smallest:
        steps.append(steps[-1] / SHRINKAGE)
    return steps


def slopes(line: Line, steps: Sequence[float]) -> Iterator[Slope]:
    """The slope after each step but the first ones, with an estimate of its error.

    The estimate has three parts. The next lower orders differ from an extrapolation by more than its truncation error,
    and by the noise of the values. Second derivatives from this step and from the one before differ by more than that
    of a smooth J does; times the step this is an error of the slope at t = 0, and tells of a corner there and of a J
    that bends between the values. Last, rounding.

    A step at which J is not finite does not count, nor do the longer ones before it.
    """
    climbed: list[float] = []
    last: _Rung | None = None
    for step in steps:
        climbed.append(step)
        rung = _climb(line, climbed, last)
        if rung is None:
            climbed = []
        elif last is not None and len(climbed) >= (2 if line.both_sides else 4):
            yield _best(rung, last, step, line)
        last = rung


def _climb(line: Line, steps: list[float], last: _Rung | None) -> _Rung | None:
    """One more row of the tables; None if J is not finite."""
    step = steps[-1]
    ahead = line.J(step) - line.at_zero
    behind = line.J(-step) - line.at_zero if line.both_sides else -ahead
    if not (np.isfinite(ahead) and np.isfinite(behind)):
        return None
    ratios = [(longer / step) ** (2 if line.both_sides else 1) for longer in reversed(steps[:-1])]
    slope, bend = (ahead - behind) / (2 * step), (ahead + behind) / step**2
    return _Rung(
        _extrapolated(slope, last.slopes if last else [], ratios),
        _extrapolated(bend, last.bends if last else [], ratios),
    )


def _extrapolated(value: float, below: list[float], ratios: list[float]) -> list[float]:
    """Neville's row: values of rising order at the step zero, from the row of the step before."""
    row = [value]
    for earlier, ratio in zip(below, ratios, strict=True):
        row.append(row[-1] + (row[-1] - earlier) / (ratio - 1))
    return row


def _best(rung: _Rung, last: _Rung, step: float, line: Line) -> Slope:
    """The order that is nearest to the lower ones."""
    lower = zip(rung.slopes[1:], rung.slopes, last.slopes, strict=False)
    errors = [max(abs(value - same), abs(value - longer)) for value, same, longer in lower]
    best = int(np.argmin(errors))
    bent = min(abs(now - before) for now, before in zip(rung.bends, last.bends, strict=False))
    return Slope(rung.slopes[best + 1], errors[best] + bent * step + line.noise / step)
