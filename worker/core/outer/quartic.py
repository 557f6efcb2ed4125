"""A model of J along the one hyperparameter there is: the polynomial of the fourth degree that two evaluations give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from worker.core.records import ROUND_OFF, Array, Evaluation

SEEN = 1e3 * ROUND_OFF  # share of J above which what is left of a quadratic model is no rounding


@dataclass(frozen=True, slots=True)
class Quartic:
    """`J(rho + s) - J(rho) = c_1 s + c_2 s^2 + c_3 s^3 + c_4 s^4`, by the two-point Hermite formula.

    It has the value, the slope and the curvature of J at one point, and the value and the slope at another.
    """

    coefficients: Float[Array, " 5"]  # from the constant, which is 0, on

    @classmethod
    def through(cls, at: Evaluation, curvature: float, other: Evaluation, unit: float) -> Quartic | None:
        """None where the points are too close to tell more than the quadratic model at the first one; `unit`: of J."""
        d = float(other.rho[0] - at.rho[0])
        g = float(at.gradient[0])
        rise = other.value - at.value - g * d - curvature * d**2 / 2
        turn = float(other.gradient[0]) - g - curvature * d
        if not np.isfinite(rise) or abs(rise) <= SEEN * max(abs(at.value), abs(other.value), unit):
            return None
        third, fourth = (4.0 * rise - turn * d) / d**3, (turn * d - 3.0 * rise) / d**4
        return cls(np.array([0.0, g, curvature / 2, third, fourth]))

    def change(self, s: float) -> float:
        """The change of J that a step makes."""
        return float(np.polynomial.polynomial.polyval(s, self.coefficients))

    def minimizer(self, low: float, high: float) -> float:
        """The step between two ends after which J is lowest."""
        turns = np.polynomial.polynomial.polyroots(np.polynomial.polynomial.polyder(self.coefficients)).real
        inside = turns[(low < turns) & (turns < high)]  # a complex one is no turn, and never the lowest
        return min((low, high, *map(float, inside)), key=self.change)
