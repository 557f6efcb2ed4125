"""The oracle of ridge in 150 digits against numpy and scipy, where these are right: on benign tables."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from scipy.stats import multivariate_normal

from tests.core import ridge_oracle
from tests.core.conftest import regression
from tests.oracles import pooled_error, ridge
from worker.core.rows.problem import Problem

WEIGHTS = np.array([1, 2, 0, 3, 1, 1, 2, 0, 1, 4, 1, 2])  # whole: a row of weight w is w rows
LAM = np.array([0.3, 2.0, 0.05])
N, P = len(WEIGHTS), len(LAM)
flags = pytest.mark.parametrize(("intercept", "standardize"), [(a, b) for a in (True, False) for b in (True, False)])


def oracle(problem: Problem, kind: str, splits, *, intercept, standardize, lam=LAM):
    exact = ridge_oracle.Exact(problem.X, problem.y, WEIGHTS, WEIGHTS, range(P), intercept, standardize)
    return float(ridge_oracle.value(exact, kind, splits, ridge_oracle.exact(lam)))


def whole():
    return [(np.arange(N), np.arange(N))]


def repeated(rows):
    return np.repeat(rows, WEIGHTS[rows])


@flags
def test_refits(intercept, standardize):
    problem, fold = regression(N, P), np.arange(N) % 3
    splits = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(3)]
    flags = {"intercept": intercept, "standardize": standardize}
    pairs = [(repeated(train), repeated(validation)) for train, validation in splits]
    expected = pooled_error(problem.X, problem.y, LAM, pairs, **flags)
    assert_allclose(oracle(problem, "k_fold", splits, **flags), expected, rtol=1e-11)


@flags
def test_leave_one_out(intercept, standardize):
    """Without row i the total penalty and the scales of the columns are kept."""
    problem, rows = regression(N, P), repeated(np.arange(N))
    decay = LAM * (problem.X[rows].var(axis=0) if standardize else 1.0)
    errors = []
    for i in range(N):
        rest = rows[rows != i]
        constant, theta = ridge(
            problem.X[rest], problem.y[rest], decay * len(rows) / len(rest), intercept=intercept, standardize=False
        )
        errors.append((problem.y[i] - constant - problem.X[i] @ theta) ** 2)
    J = oracle(problem, "leave_one_out", whole(), intercept=intercept, standardize=standardize)
    assert_allclose(J, WEIGHTS @ np.array(errors) / WEIGHTS.sum(), rtol=1e-11)


@flags
def test_generalized_cv(intercept, standardize):
    problem, rows = regression(N, P), repeated(np.arange(N))

    def residuals(y):
        constant, theta = ridge(problem.X[rows], y[rows], LAM, intercept=intercept, standardize=standardize)
        return y - constant - problem.X @ theta

    used = np.flatnonzero(WEIGHTS)
    remainder = np.mean([residuals(np.eye(N)[i])[i] for i in used])
    expected = WEIGHTS @ residuals(problem.y) ** 2 / WEIGHTS.sum() / remainder**2
    J = oracle(problem, "generalized_cv", whole(), intercept=intercept, standardize=standardize)
    assert_allclose(J, expected, rtol=1e-11)


@pytest.mark.parametrize("kind", ["evidence", "reml"])
@flags
def test_evidence(kind, intercept, standardize):
    """The density of y under the prior of theta; of reml, integrated over the intercept by a sum."""
    problem, used = regression(N, P), WEIGHTS > 0
    X, y, w, n = problem.X[used], problem.y[used], WEIGHTS[used], np.count_nonzero(used)
    mean = w @ X / w.sum()
    prior = LAM * (w @ (X - mean) ** 2 / w.sum() if standardize else 1.0)
    Z = X - mean if intercept else X
    V = np.diag(w.sum() / (n * w)) + Z / prior @ Z.T / n
    level = w @ y / w.sum() if intercept else 0.0

    def minus_log_density(log_s2):
        density = multivariate_normal(np.zeros(n), np.exp(log_s2) * V)
        if kind == "evidence" or not intercept:
            return -density.logpdf(y - level)
        steps, width = np.linspace(-15, 15, 601), np.sqrt(np.exp(log_s2) / n)
        logs = np.array([density.logpdf(y - level - width * step) for step in steps])
        return -logs.max() - np.log(np.exp(logs - logs.max()).sum() * width * (steps[1] - steps[0]))

    flags = {"intercept": intercept, "standardize": standardize}
    best = minimize_scalar(minus_log_density, bracket=(-2.0, 2.0), options={"xtol": 1e-9})
    assert_allclose(oracle(problem, kind, whole(), **flags), best.fun, rtol=1e-11)
    noisy = oracle(problem, kind, whole(), lam=np.append(LAM, 0.7), **flags)
    assert_allclose(noisy, minus_log_density(np.log(0.7)), rtol=1e-11)


def test_slopes_are_those_of_a_known_function():
    slopes = ridge_oracle.gradient(lambda lam: lam[0] ** 2 * lam[1] ** 3, [0.5, -0.2])
    assert_allclose(slopes, np.array([2.0, 3.0]) * np.exp(2 * 0.5 - 3 * 0.2), rtol=1e-15)


def test_elimination_solves_and_takes_the_determinant():
    A = np.array([[4.0, 1.0, 0.5], [1.0, 3.0, -1.0], [0.5, -1.0, 2.0]])
    (x,), logarithm = ridge_oracle.solutions([ridge_oracle.exact(row) for row in A], [ridge_oracle.exact([1, 2, 3])])
    assert_allclose(np.array(x, float), np.linalg.solve(A, [1.0, 2.0, 3.0]), rtol=1e-14)
    assert_allclose(float(logarithm), np.linalg.slogdet(A)[1], rtol=1e-14)
