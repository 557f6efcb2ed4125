"""A model of J in a single hyperparameter: the polynomial of degree four from two evaluations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from worker.core.records import ROUND_OFF, Array, Evaluation

SMALLEST_REMAINDER = 1e3 * ROUND_OFF  # relative to |J|: a smaller remainder of the quadratic model may be rounding


@dataclass(frozen=True, slots=True)
class Quartic:
    """`J(rho + s) - J(rho) = c_1 s + c_2 s^2 + c_3 s^3 + c_4 s^4`, by the two-point Hermite formula.

    It matches the value, slope and curvature of J at one point, and the value and slope at another.
    """

    coefficients: Float[Array, " 5"]  # ascending, from the constant 0

    @classmethod
    def through(cls, at: Evaluation, curvature: float, other: Evaluation, unit: float) -> Quartic | None:
        """None if the points are too close to improve the quadratic model at the first one; `unit`: of J."""
        d = float(other.rho[0] - at.rho[0])
        g = float(at.gradient[0])
        value_remainder = other.value - at.value - g * d - curvature * d**2 / 2
        slope_remainder = float(other.gradient[0]) - g - curvature * d
        if not np.isfinite(value_remainder) or abs(value_remainder) <= SMALLEST_REMAINDER * max(
            abs(at.value), abs(other.value), unit
        ):
            return None
        third, fourth = (
            (4.0 * value_remainder - slope_remainder * d) / d**3,
            (slope_remainder * d - 3.0 * value_remainder) / d**4,
        )
        return cls(np.array([0.0, g, curvature / 2, third, fourth]))

    def change(self, s: float) -> float:
        """The change of J by a step."""
        return float(np.polynomial.polynomial.polyval(s, self.coefficients))

    def minimizer(self, low: float, high: float) -> float:
        """The step between `low` and `high` with the lowest J."""
        stationary = np.polynomial.polynomial.polyroots(np.polynomial.polynomial.polyder(self.coefficients)).real
        inside = stationary[
            (low < stationary) & (stationary < high)
        ]  # real parts of complex roots are harmless: never the lowest
        return min((low, high, *map(float, inside)), key=self.change)
