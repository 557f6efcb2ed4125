"""A hyper-prior on like hyperparameters: they may differ, each at a cost, from a centre that the data choose.

Plain tuning of many penalties fits the validation rows, not new ones. The prior is heavy-tailed, so that most stay near
the centre and a few go far, and its centre is not below the shared optimum, so that it cannot give up all penalties.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float, Int

from worker.core.objective.objective import Approximation, Formula, Found, Hessian, Objective, Residuals
from worker.core.records import Array

NU = 0.5  # degrees of freedom of the density of Student's t
WIDEST = 3.0  # scale of the normal density that bounds its tails: a factor of e^3 = 20
MOST_STEPS = 200  # of the search for a centre
MOST_COMPARED, STEPS_TO_COMPARE = 32, 4  # members that it may begin at, steps after which they are compared
MOST_VALLEYS = 8  # that are searched to the end
NEAR_FLOOR = 0.02  # on the scale of rho: twice the steps by which values of J check a curvature


@dataclass(frozen=True, slots=True)
class FamilyPrior:
    """The prior of one family: `members` are positions, `origin` their scale-free zero, on the scale of rho.

    With `t = rho - origin` the prior is `min over m >= floor of sum_j phi(t_j - m)` of
    `phi(d) = (nu + 1) / 2 log(1 + d^2 / (nu s^2)) + d^2 / (2 S^2)`: minus the logarithm of a density of Student's t
    with scale `spread` times a normal one.
    """

    members: Int[Array, " m"]
    spread: float
    origin: Float[Array, " m"]
    floor: float

    def phi(self, d: Float[Array, " m"]) -> tuple[Float[Array, " m"], Float[Array, " m"], Float[Array, " m"]]:
        """`phi` with its first and second derivative."""
        width, square = NU * self.spread**2, d**2
        value = (NU + 1) / 2 * np.log1p(square / width) + square / (2 * WIDEST**2)
        slope = (NU + 1) * d / (width + square) + d / WIDEST**2
        bend = (NU + 1) * (width - square) / (width + square) ** 2 + 1 / WIDEST**2
        return value, slope, bend

    def smooth_near(self, rho: Float[Array, " k"]) -> FamilyPrior:
        """With a lower floor, if the centre is so near to it that its second derivative jumps close to rho."""
        t = rho[self.members] - self.origin
        lower = replace(self, floor=self.floor - 10 * NEAR_FLOOR)
        return lower if abs(lower._downhill(t, self.floor) - self.floor) <= NEAR_FLOOR else self

    def deviations(self, rho: Float[Array, " k"]) -> tuple[Float[Array, " m"], bool]:
        """`d` of the members, and whether the floor holds the centre."""
        t = rho[self.members] - self.origin
        centre = self._centre(t)
        return t - centre, centre <= self.floor

    def _centre(self, t: Float[Array, " m"]) -> float:
        """The lowest minimizer that is not below the floor: R is continuous where it goes over to another valley.

        Valleys that are shallow enough to differ by less than a thousandth of R may be mistaken for each other.
        """
        if np.ptp(t) <= np.sqrt(NU) * self.spread:  # the sum is convex between the members
            return self._downhill(t, max(float(np.median(t)), self.floor))
        begun, costs = self._valleys(t)
        if len(begun) == 1:
            return self._downhill(t, begun[0])
        ends = [self._downhill(t, m) for m in begun[np.argsort(costs)[:MOST_VALLEYS]]]
        return min(ends, key=lambda m: self.phi(t - m)[0].sum())

    def _valleys(self, t: Float[Array, " m"]) -> tuple[Float[Array, " v"], Float[Array, " v"]]:
        """A centre in each valley of the sum, and what it costs there.

        There is one about each heap of members and, where they are far from each other, one about the mean, as of a
        normal density: a few steps from members and mean on show them.
        """
        mean, aside = t.mean(), 0.1 * self.spread  # exactly at the mean of two there is no way to either
        points = np.sort(np.append(t, [mean - aside, mean + aside]))
        if len(points) > MOST_COMPARED:
            points = points[np.linspace(0, len(points) - 1, MOST_COMPARED).round().astype(int)]
        points = np.maximum(points, self.floor)
        for _ in range(STEPS_TO_COMPARE):
            d = t[:, None] - points
            weights = (NU + 1) / (NU * self.spread**2 + d**2) + 1 / WIDEST**2
            points = np.maximum(points + (weights * d).sum(axis=0) / weights.sum(axis=0), self.floor)
        points = np.unique(points)
        square = (t[:, None] - points) ** 2
        costs = (NU + 1) / 2 * np.log1p(square / (NU * self.spread**2)).sum(axis=0)
        costs += square.sum(axis=0) / (2 * WIDEST**2)
        beside = np.concatenate([[np.inf], costs, [np.inf]])
        lowest = (costs <= beside[:-2]) & (costs <= beside[2:])
        return points[lowest], costs[lowest]

    def _downhill(self, t: Float[Array, " m"], m: float) -> float:
        """The minimizer of the valley: by means with weights `phi'(d) / d`, or by Newton's method where it is safe."""
        slope, bend, weight = self._along(t - m)
        for _ in range(MOST_STEPS):
            step = slope / weight
            if bend > 0:
                newton = slope / bend
                slope_there, bend_there, _ = self._along(t - m - newton)
                if bend_there > 0 and abs(slope_there) < abs(slope) / 2:  # in the same valley, and faster
                    step = newton
            step = max(step, self.floor - m)
            m += step
            if abs(step) <= 1e-15 * (1.0 + abs(m)):
                break
            slope, bend, weight = self._along(t - m)
        return float(max(m, self.floor))

    def _along(self, d: Float[Array, " m"]) -> tuple[float, float, float]:
        """The sums of `phi'`, of `phi''` and of the weights `phi' / d`."""
        width, square = NU * self.spread**2, d**2
        total, normal = width + square, len(d) / WIDEST**2
        weights = (NU + 1) / total
        slope = float(weights @ d) + float(d.sum()) / WIDEST**2
        return slope, float((weights * (width - square) / total).sum()) + normal, float(weights.sum()) + normal


@dataclass(frozen=True, slots=True)
class HyperPrior:
    """`R(rho) = c sum over families of sum_j phi(d_j)`, with the unit of J a row, `c = unit / n`."""

    families: tuple[FamilyPrior, ...]
    c: float
    _held: dict[bytes, tuple[tuple[Array, bool], ...]] = field(default_factory=dict, repr=False, compare=False)

    def _deviations(self, rho: Float[Array, " k"]) -> Iterator[tuple[FamilyPrior, tuple[Array, bool]]]:
        """The deviations of each family. Those of the last point are kept: its value, slope and bend are asked for."""
        key = rho.tobytes()
        if key not in self._held:
            self._held.clear()
            self._held[key] = tuple(one.deviations(rho) for one in self.families)
        return zip(self.families, self._held[key], strict=True)

    def smooth_near(self, rho: Float[Array, " k"]) -> HyperPrior:
        """A prior that has second derivatives about rho, equal to this one or below it by little, and less convex.

        Where it has a minimum, this one has.
        """
        return HyperPrior(tuple(one.smooth_near(rho) for one in self.families), self.c)

    def value(self, rho: Float[Array, " k"]) -> float:
        """R."""
        return self.c * sum(float(one.phi(d)[0].sum()) for one, (d, _) in self._deviations(rho))

    def gradient(self, rho: Float[Array, " k"]) -> Float[Array, " k"]:
        """`dR/drho`. A centre that moves is a minimum, so that its own change has no effect."""
        gradient = np.zeros(len(rho))
        for one, (d, _) in self._deviations(rho):
            gradient[one.members] = self.c * one.phi(d)[1]
        return gradient

    def hessian(self, rho: Float[Array, " k"], *, holds: bool = True) -> Float[Array, "k k"]:
        """`d2R/drho2`: with `h = phi''`, `diag(h)` where the floor holds the centre, else `diag(h) - h h^T / sum h`.

        `holds`: whether a floor holds at all. With other rows it is elsewhere, so that a family can move together.
        """
        H = np.zeros((len(rho), len(rho)))
        for one, (d, held) in self._deviations(rho):
            h = one.phi(d)[2]
            block = np.diag(h) if (holds and held) or not h.any() else np.diag(h) - np.outer(h, h) / h.sum()
            H[np.ix_(one.members, one.members)] = self.c * block
        return H


def with_prior(objective: Objective, prior: HyperPrior) -> Objective:
    """`J + R`. What tells of rows, of digits and of the model stays that of J."""
    second, approximation = objective.second, objective.approximation
    return replace(
        objective,
        formula=_PriorFormula(objective.formula, prior),
        second=None if second is None else _PriorHessian(second, prior),
        approximation=None if approximation is None else _PriorApproximation(approximation, prior),
    )


def _added(found: Found | None, prior: HyperPrior, rho: Float[Array, " k"]) -> Found | None:
    if found is None:
        return None
    return replace(found, value=found.value + prior.value(rho), gradient=found.gradient + prior.gradient(rho))


@dataclass(frozen=True, slots=True)
class _PriorFormula:
    of: Formula
    prior: HyperPrior

    def value(self, rho: Float[Array, " k"]) -> float:
        """`J + R`."""
        return self.of.value(rho) + self.prior.value(rho)

    def found(self, rho: Float[Array, " k"]) -> Found | None:
        """`J + R` with its gradient."""
        return _added(self.of.found(rho), self.prior, rho)

    def residuals(self, rho: Float[Array, " k"]) -> Residuals | None:
        """Those of J."""
        return self.of.residuals(rho)


@dataclass(frozen=True, slots=True)
class _PriorHessian:
    of: Hessian
    prior: HyperPrior

    def __call__(self, rho: Float[Array, " k"], chosen: Int[Array, " f"]) -> Float[Array, "f f"] | None:
        """`d2(J + R)/drho2`."""
        H = self.of(rho, chosen)
        return None if H is None else H + self.prior.hessian(rho)[np.ix_(chosen, chosen)]


@dataclass(frozen=True, slots=True)
class _PriorApproximation:
    of: Approximation
    prior: HyperPrior

    def __call__(self, rho: Float[Array, " k"], accuracy: float) -> Found | None:
        """`J + R` with the error bounds of J."""
        return _added(self.of(rho, accuracy), self.prior, rho)
