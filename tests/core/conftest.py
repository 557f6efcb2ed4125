"""Problems that the tests of the core share."""

from __future__ import annotations

import numpy as np
import pytest

from worker.core.hyperparameters import Spread
from worker.core.penalties import Penalty, PerFeature, PerGroup, Shared
from worker.core.rows.problem import Problem


def regression(n: int, p: int, seed: int = 0, offset: float = 3.0) -> Problem:
    """Correlated columns of different scales and means, a sparse signal, noise."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) + 0.5 * rng.normal(size=(n, 1))
    X = X * np.exp(rng.normal(size=p)) + offset * rng.normal(size=p)
    theta = np.where(np.arange(p) % 3 == 0, rng.normal(size=p), 0.0)
    y = X @ theta + rng.normal(size=n) + offset
    return Problem(X, y, tuple(f"x{j}" for j in range(p)))


def grouped(problem: Problem, spread: Spread = None) -> PerGroup:
    """Three groups of unequal size, not contiguous; without a spread J alone is minimized."""
    names = problem.features
    return PerGroup(groups={"a": names[::3], "b": names[1::3], "c": names[2::3]}, spread=spread)


@pytest.fixture(params=["shared", "per_feature", "per_group"])
def penalty_of(request: pytest.FixtureRequest):
    """A function from a problem to one penalty of each kind."""

    def build(problem: Problem) -> Penalty:
        plain = {"shared": Shared(), "per_feature": PerFeature(spread=None), "per_group": grouped(problem)}
        return plain[request.param]

    return build
