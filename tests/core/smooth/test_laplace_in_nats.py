"""Laplace's evidence is minus a logarithm of a probability: with all constants, comparable between kinds of models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from scipy.integrate import quad

from tests.core.smooth.problems import NAMES, TRAINING, table
from worker.core.hypergradient import Implicit
from worker.core.outer import Newton
from worker.core.penalties import Shared
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, prepare
from worker.core.selection import LaplaceEvidence
from worker.core.training import LogisticRegression, MultinomialRegression

LOG_DENSITY = {
    "logistic": lambda y, eta: stats.bernoulli.logpmf(y.astype(int), 1 / (1 + np.exp(-eta))),
    "poisson": lambda y, eta: stats.poisson.logpmf(y, np.exp(eta)),
    "gamma": lambda y, eta: stats.expon.logpdf(y, scale=np.exp(eta)),
}


def value(problem: Problem, training: object, rho: float) -> tuple[float, object]:
    objective = prepare(problem, Plan(training, LaplaceEvidence(), Implicit(), Newton())).objective
    return objective.value(np.array([rho])), objective


def curvature(f, theta: np.ndarray, h: float = 1e-3) -> np.ndarray:
    """The Hessian of f by central differences."""
    steps = h * np.eye(len(theta))
    return np.array(
        [[(f(theta + a + b) - f(theta + a - b) - f(theta - a + b) + f(theta - a - b)) / (4 * h * h) for b in steps]
         for a in steps]
    )  # fmt: skip


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", [*LOG_DENSITY, "huber"])
def test_the_value_is_the_posterior_peak_with_its_width(kind, weighted):
    """With `log N(theta; 0, (n lam)^-1)` of slopes and 1 of the intercept: `-log p - (p + 1) / 2 log 2 pi + ...`."""
    problem = table(kind)
    if weighted:
        problem = replace(problem, weights=np.random.default_rng(0).integers(1, 4, len(problem.y)).astype(float))
    training, lam = TRAINING[kind](penalty=Shared(), standardize=False), 0.3
    if kind == "huber":
        training = replace(training, delta=1.7)

        def of_residual(r: float) -> float:
            return np.exp(-(r**2 / 2 if abs(r) <= 1.7 else 1.7 * abs(r) - 1.7**2 / 2))

        normalizer = np.log(quad(of_residual, -40, 40, points=[-1.7, 1.7])[0])

        def log_density(y, eta):
            return np.log([of_residual(r) for r in y - eta]) - normalizer
    else:
        log_density = LOG_DENSITY[kind]
    got, objective = value(problem, training, np.log(lam))
    intercept, slopes = objective.formula.fits.systems[0].coefficients(
        objective.formula.fits.at(np.array([np.log(lam)]))[0].theta
    )
    w = problem.base_weights(np.arange(len(problem.y)))
    offset = 0.0 if problem.offset is None else problem.offset
    prior = stats.norm(scale=(w.sum() * lam) ** -0.5)

    def joint(theta: np.ndarray) -> float:
        return float(
            w @ log_density(problem.y, theta[0] + problem.X @ theta[1:] + offset) + prior.logpdf(theta[1:]).sum()
        )

    peak = np.append(intercept, slopes)
    width = np.linalg.slogdet(-curvature(joint, peak))[1] / 2 - len(peak) / 2 * np.log(2 * np.pi)
    assert_allclose(got, width - joint(peak), atol=2e-3 if kind == "huber" else 2e-5 * abs(got))


def test_two_classes_have_one_evidence():
    """A difference of two slopes with penalty lam each has the prior of one slope with lam / 2."""
    problem, lam = table("logistic"), 0.2
    problem = replace(problem, offset=None)
    one = value(problem, LogisticRegression(penalty=Shared()), np.log(lam / 2))[0]
    both = value(problem, MultinomialRegression(penalty=Shared()), np.log(lam))[0]
    assert both == pytest.approx(one, rel=1e-10)


def test_a_row_of_weight_two_counts_twice():
    problem = table("poisson")
    weights = np.ones(len(problem.y))
    weights[:20] = 2.0
    rows = np.repeat(np.arange(len(weights)), weights.astype(int))
    repeated = Problem(problem.X[rows], problem.y[rows], NAMES, offset=problem.offset[rows])
    weighted = replace(problem, weights=weights, time=None)
    values = [value(one, TRAINING["poisson"](), 0.0)[0] for one in (replace(weighted, source=None), repeated)]
    assert values[0] == pytest.approx(values[1], rel=1e-12)
