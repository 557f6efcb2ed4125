"""A hyper-prior on like hyperparameters: they may differ, each at a cost, from a centre that the data choose.

Plain tuning of many penalties fits the validation rows, not new ones. The prior is heavy-tailed, so that most stay near
the centre and a few go far, and its centre is not below the shared optimum, so that it cannot give up all penalties.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from worker.core.objective.objective import Approximation, Formula, Found, Hessian, Objective, Residuals
from worker.core.records import Array

NU = 0.5  # degrees of freedom of the density of Student's t
WIDEST = 3.0  # scale of the normal density that bounds its tails: a factor of e^3 = 20
MOST_STEPS = 200  # of the search for a centre


@dataclass(frozen=True, slots=True)
class FamilyPrior:
    """The prior of one family: `members` are positions, `origin` their scale-free zero, on the scale of rho.

    With `t = rho - origin`, `m = max(floor, argmin_m sum_j phi(t_j - m))`, the prior is `sum_j phi(t_j - m)` of
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

    def deviations(self, rho: Float[Array, " k"]) -> tuple[Float[Array, " m"], bool]:
        """`d` of the members, and whether the floor holds the centre."""
        t = rho[self.members] - self.origin
        centre = self._centre(t)
        return t - max(centre, self.floor), centre <= self.floor

    def _centre(self, t: Float[Array, " m"]) -> float:
        """A minimizer of `sum_j phi(t_j - m)`: from the median on by means with weights `phi'(d) / d`, or by Newton."""
        m = float(np.median(t))
        _, slope, bend = self.phi(t - m)
        for _ in range(MOST_STEPS):
            d = t - m
            weights = (NU + 1) / (NU * self.spread**2 + d**2) + 1 / WIDEST**2
            step = float(weights @ d / weights.sum())
            newton = float(slope.sum() / bend.sum()) if bend.sum() > 0 else step
            # of two steps that both go downhill, the one after which less slope is left
            tried = [(self.phi(t - m - one), one) for one in (step, newton) if one * step >= 0]
            (_, slope, bend), best = min(tried, key=lambda pair: abs(float(pair[0][1].sum())))
            m += best
            if abs(best) <= 1e-15 * (1.0 + abs(m)):
                break
        return m


@dataclass(frozen=True, slots=True)
class HyperPrior:
    """`R(rho) = c sum over families of sum_j phi(d_j)`, with the unit of J a row, `c = unit / n`."""

    families: tuple[FamilyPrior, ...]
    c: float

    def value(self, rho: Float[Array, " k"]) -> float:
        """R."""
        return self.c * sum(float(one.phi(one.deviations(rho)[0])[0].sum()) for one in self.families)

    def gradient(self, rho: Float[Array, " k"]) -> Float[Array, " k"]:
        """`dR/drho`. A centre that moves is a minimum, so that its own change has no effect."""
        gradient = np.zeros(len(rho))
        for one in self.families:
            gradient[one.members] = self.c * one.phi(one.deviations(rho)[0])[1]
        return gradient

    def hessian(self, rho: Float[Array, " k"]) -> Float[Array, "k k"]:
        """`d2R/drho2`: with `h = phi''`, `diag(h)` where the floor holds the centre, else `diag(h) - h h^T / sum h`."""
        H = np.zeros((len(rho), len(rho)))
        for one in self.families:
            d, held = one.deviations(rho)
            h = one.phi(d)[2]
            block = np.diag(h) if held else np.diag(h) - np.outer(h, h) / h.sum()
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
