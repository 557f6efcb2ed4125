"""Example weights as hyperparameters: `w_t(rho) > 0`, normalized in the mean loss of the training criterion.

Every member of `ExampleWeights` gives the weights of the training rows of one split with their first two derivatives
in `rho`. They are multiplied by the fixed weights of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit

from worker.core.hyperparameters import Hyperparameters, Positive, check_box
from worker.core.records import Array
from worker.core.rows.problem import Problem


@dataclass(frozen=True, slots=True)
class Weighting:
    """Weights `w` of some rows, `w_dot[:, j] = dw/drho_j`, and `second(a)_jl = sum_t a_t d2w_t/drho_j drho_l`."""

    w: Float[Array, " n"]
    w_dot: Float[Array, "n m"]
    second: Callable[[Float[Array, " n"]], Float[Array, "m m"]]

    def normalized(self, base: Float[Array, " n"]) -> Weighting:
        """The normalized weights `s = w / W`, `W = sum w`, after w is multiplied by the fixed weights `base`.

        `ds_j = (dw_j - s dW_j) / W` and `d2s_jl = (d2w_jl - s d2W_jl - ds_j dW_l - ds_l dW_j) / W`.
        """
        w, w_dot = base * self.w, base[:, None] * self.w_dot
        W, W_dot = float(w.sum()), w_dot.sum(axis=0)
        s = w / W
        s_dot = (w_dot - np.outer(s, W_dot)) / W

        def second(a: Float[Array, " n"]) -> Float[Array, "m m"]:
            mixed = np.outer(a @ s_dot, W_dot)
            return (self.second(base * (a - a @ s)) - mixed - mixed.T) / W

        return Weighting(s, s_dot, second)


def _relative_time(time: Float[Array, " n"]) -> Float[Array, " n"]:
    """Time scaled to 0 for the first and 1 for the last of the rows."""
    first, last = time.min(), time.max()
    return (time - first) / (last - first) if last > first else np.zeros_like(time)


@dataclass(frozen=True, slots=True)
class SigmoidTime:
    """`w_t = 1 / (1 + exp(-a (t - t0)))`: recent rows count more (Bengio 2000, section 5; Bengio and Dugas 1999).

    `t` runs from 0 for the first to 1 for the last training row of a split. The `steepness` a (on the log scale) and
    the `midpoint` t0 are tuned. A small steepness gives all rows nearly the same weight.
    """

    steepness: Positive = 2.0
    steepness_lower: Positive = 1e-2
    steepness_upper: Positive = 1e3
    midpoint: float = 0.25
    midpoint_lower: float = -1.0
    midpoint_upper: float = 1.5
    kind: Literal["sigmoid_time"] = "sigmoid_time"

    def __post_init__(self) -> None:
        names = ("steepness_lower", "steepness", "steepness_upper")
        check_box(self.steepness_lower, self.steepness, self.steepness_upper, names)
        names = ("midpoint_lower", "midpoint", "midpoint_upper")
        check_box(self.midpoint_lower, self.midpoint, self.midpoint_upper, names)

    def hyperparameters(self, problem: Problem) -> Hyperparameters:
        """Names, boxes and initial values."""
        steepness = Hyperparameters.positive(
            ("weights[steepness]",), self.steepness, self.steepness_lower, self.steepness_upper
        )
        return steepness + Hyperparameters.real(
            "weights[midpoint]", self.midpoint, self.midpoint_lower, self.midpoint_upper
        )

    def weighting(self, problem: Problem, rows: Int[Array, " m"]) -> Callable[[Float[Array, " h"]], Weighting]:
        """The weights of the given rows as a function of `(a, t0)`."""
        t = _relative_time(row_times(problem, rows))

        def at(lam: Float[Array, " h"]) -> Weighting:
            a, midpoint = float(lam[0]), float(lam[1])
            z = a * (t - midpoint)
            w, rest = expit(z), expit(-z)
            slope = w * rest  # dw/dz
            bend = slope * (rest - w)  # d2w/dz2
            z_dot = np.column_stack([z, np.full(len(t), -a)])  # dz/d(log a), dz/d(t0)

            def second(b: Float[Array, " n"]) -> Float[Array, "m m"]:
                curved = (z_dot.T * (b * bend)) @ z_dot
                sloped = b * slope
                mixed = -a * float(sloped.sum())
                return curved + np.array([[float(sloped @ z), mixed], [mixed, 0.0]])

            return Weighting(w, slope[:, None] * z_dot, second)

        return at


@dataclass(frozen=True, slots=True)
class ExponentialTime:
    """`w_t = exp(-(T - t) / tau)`: exponential forgetting, T the time of the last training row of the split.

    With `unit` "window" the `decay_time` tau is relative to the time span of the training rows of the split. With
    "time" it is in the unit of the time column (in rows, without one); choose `lower` and `upper` in that unit.
    """

    decay_time: Positive = 1.0
    lower: Positive = 1e-2
    upper: Positive = 1e3
    unit: Literal["window", "time"] = "window"
    kind: Literal["exponential_time"] = "exponential_time"

    def __post_init__(self) -> None:
        check_box(self.lower, self.decay_time, self.upper, ("lower", "decay_time", "upper"))

    def hyperparameters(self, problem: Problem) -> Hyperparameters:
        """Names, boxes and initial values."""
        return Hyperparameters.positive(("weights[decay_time]",), self.decay_time, self.lower, self.upper)

    def weighting(self, problem: Problem, rows: Int[Array, " m"]) -> Callable[[Float[Array, " h"]], Weighting]:
        """The weights of the given rows as a function of `tau`."""
        time = row_times(problem, rows)
        age = 1.0 - _relative_time(time) if self.unit == "window" else time.max() - time

        def at(lam: Float[Array, " h"]) -> Weighting:
            z = age / float(lam[0])  # dw/d(log tau) = w z, d2w/d(log tau)2 = w (z^2 - z)
            w = np.exp(-z)
            return Weighting(w, (w * z)[:, None], lambda a: np.array([[float(a @ (w * (z**2 - z)))]]))

        return at


@dataclass(frozen=True, slots=True)
class PerSource:
    """One weight for each value of the source column, such as old and new data; the first source has weight 1."""

    initial: Positive = 1.0
    lower: Positive = 1e-4
    upper: Positive = 1e4
    kind: Literal["per_source"] = "per_source"

    def __post_init__(self) -> None:
        check_box(self.lower, self.initial, self.upper)

    def hyperparameters(self, problem: Problem) -> Hyperparameters:
        """Names, boxes and initial values. Raises ValueError without a source column or with one source only."""
        if len(problem.source_names) < 2:
            raise ValueError("per_source weights need a source of each row, with at least two different values")
        names = tuple(f"weights[{name}]" for name in problem.source_names[1:])
        return Hyperparameters.positive(names, self.initial, self.lower, self.upper)

    def weighting(self, problem: Problem, rows: Int[Array, " m"]) -> Callable[[Float[Array, " h"]], Weighting]:
        """The weights of the given rows as a function of the weights of the sources after the first."""
        assert problem.source is not None
        source = problem.source[rows]

        def at(lam: Float[Array, " h"]) -> Weighting:
            w = np.append(1.0, lam)[source]
            w_dot = np.zeros((len(w), len(lam)))
            tuned = np.flatnonzero(source > 0)
            w_dot[tuned, source[tuned] - 1] = w[tuned]  # on the log scale every derivative is w itself
            return Weighting(w, w_dot, lambda a: np.diag(a @ w_dot))

        return at


def row_times(problem: Problem, rows: Int[Array, " m"]) -> Float[Array, " m"]:
    """The time of each row: the time column, or the row's number.

    A row that is scored only has the time of the nearest row that trains: it does not count, nor move a window.
    """
    time = problem.time[rows] if problem.time is not None else rows.astype(float)
    counted = time[problem.base_weights(rows) > 0]
    return np.clip(time, counted.min(), counted.max())


ExampleWeights = SigmoidTime | ExponentialTime | PerSource
