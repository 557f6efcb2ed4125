"""Every penalty, example weights and selection criterion of the quadratic family together, against plain oracles."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.core.conftest import regression
from tests.oracles import differences
from worker.core.hypergradient import CholeskyBackprop, Implicit
from worker.core.losses import AbsoluteError, Huber, QuantileError, SquaredError
from worker.core.penalties import Banded, Difference, Identity, Matrix, PerFeature, PerGroup, QuadraticForms, Shared
from worker.core.selection import (
    Evidence,
    GeneralizedCV,
    Holdout,
    KFold,
    LeaveOneOut,
    MarginalLikelihood,
    Reml,
    WalkForward,
)
from worker.core.selection.evidence_settings import NoiseVariance
from worker.core.training import Ridge
from worker.core.weights import ExponentialTime, PerSource, SigmoidTime

N, P = 36, 5
NAMES = tuple(f"x{j}" for j in range(P))
PENALTIES = {
    "shared": Shared(),
    "per_feature": PerFeature(),
    "overlapping": PerGroup(groups={"a": NAMES[:3], "b": NAMES[2:], "c": NAMES[1:2]}),
    "forms": QuadraticForms(
        forms=(
            Difference(name="line", order=2),
            Identity(name="all"),
            Matrix(name="pair", features=NAMES[1:3], matrix=((2.0, -1.0), (-1.0, 1.0))),
            Banded(name="band", features=NAMES[2:], bands=((2.0, 2.0, 2.0), (-1.0, -1.0))),
        )
    ),
}
WEIGHTS = {"none": None, "sigmoid": SigmoidTime(), "exponential": ExponentialTime(), "source": PerSource()}
SELECTIONS = {
    "k_fold": KFold(folds=3),
    "holdout": Holdout(loss=Huber(delta=0.7)),
    "walk_forward": WalkForward(initial=20, horizon=4, loss=AbsoluteError(smoothing=0.5)),
    "weighted_splits": KFold(folds=3, split_weights=(1.0, 0.0, 3.0), loss=QuantileError(0.3, 0.4)),
    "leave_one_out": LeaveOneOut(),
    "leave_one_out_huber": LeaveOneOut(loss=Huber(delta=0.8)),
    "generalized_cv": GeneralizedCV(),
    "evidence": Evidence(),
    "reml": Reml(),
    "tuned_noise": Evidence(noise_variance=NoiseVariance()),
    "marginal_likelihood": MarginalLikelihood(),
}


def table(*, fixed: bool):
    problem = regression(N, P)
    rng = np.random.default_rng(8)
    source = rng.integers(0, 3, size=N)
    time = np.sort(rng.uniform(0, 50, size=N))
    weights = rng.integers(0, 4, size=N).astype(float) + 0.5 if fixed else None
    return dataclasses.replace(problem, time=time, source=source, source_names=("old", "new", "other"), weights=weights)


def objective_of(problem, training, selection, method=None):
    n = len(problem.y)
    partition = selection.partition(np.arange(n), n)
    return partition, selection.objective(problem, partition, training, method or Implicit())


def rho_of(objective, seed=4):
    k = len(objective.hyperparameters.names)
    rho = np.random.default_rng(seed).normal(size=k) - 1.0
    rho[~objective.hyperparameters.log] = 0.4
    return rho


class Naive:
    """The training criterion written out: dense matrices, an explicit intercept, loops over splits."""

    def __init__(self, problem, training, rho, box):
        self.problem, self.training = problem, training
        lam = np.where(box.log, np.exp(rho), rho)
        self.k = len(training.penalty.matrices(problem.features)[0].names)
        self.lam, self.extra = lam[: self.k], lam[self.k :]

    def weights(self, rows):
        problem, kind = self.problem, self.training.weights
        base = np.ones(len(rows)) if problem.weights is None else problem.weights[rows]
        if kind is None:
            return base
        t = problem.time[rows]
        t = (t - t[0]) / (t[-1] - t[0])
        if kind.kind == "sigmoid_time":
            return base / (1 + np.exp(-self.extra[0] * (t - self.extra[1])))
        if kind.kind == "exponential_time":
            return base * np.exp((t - 1) / self.extra[0])
        return base * np.append(1.0, self.extra[:2])[problem.source[rows]]

    def penalty(self, rows):
        problem = self.problem
        scale = np.ones(P)
        if self.training.standardize:
            base = np.ones(len(rows)) if problem.weights is None else problem.weights[rows]
            mean = np.average(problem.X[rows], axis=0, weights=base)
            scale = np.sqrt(np.average((problem.X[rows] - mean) ** 2, axis=0, weights=base))
        total = np.zeros((P, P))
        penalty = self.training.penalty
        if penalty.kind == "shared":
            total = self.lam[0] * np.eye(P)
        elif penalty.kind == "per_feature":
            total = np.diag(self.lam)
        elif penalty.kind == "per_group":
            for lam, members in zip(self.lam, penalty.groups.values(), strict=True):
                total += lam * np.diag([float(name in members) for name in NAMES])
        else:
            D = np.diff(np.eye(P), 2, axis=0)
            pair, band = np.zeros((P, P)), np.zeros((P, P))
            pair[1:3, 1:3] = [[2, -1], [-1, 1]]
            band[2:, 2:] = [[2, -1, 0], [-1, 2, -1], [0, -1, 2]]
            total = sum(m * S for m, S in zip(self.lam, (D.T @ D, np.eye(P), pair, band), strict=True))
        return total * np.outer(scale, scale)

    def system(self, rows):
        """Rows with the intercept first, shares, and the Hessian with its penalty."""
        i = int(self.training.intercept)
        Z = np.hstack([np.ones((len(rows), i)), self.problem.X[rows]])
        s = self.weights(rows)
        s = s / s.sum()
        B = np.zeros((P + i, P + i))
        B[i:, i:] = self.penalty(rows)
        return Z, s, B

    def theta(self, rows):
        Z, s, B = self.system(rows)
        return np.linalg.solve(Z.T @ np.diag(s) @ Z + B, Z.T @ (s * self.problem.y[rows]))

    def residuals(self, theta, rows):
        i = int(self.training.intercept)
        return self.problem.y[rows] - self.problem.X[rows] @ theta[i:] - (theta[0] if i else 0.0)


def naive_value(problem, training, selection, rho, box, partition):
    naive = Naive(problem, training, rho, box)
    everyone, n = np.arange(N), N
    scoring = np.ones(N) if problem.weights is None else problem.weights
    if not selection.closed_form:
        total, norm = 0.0, 0.0
        weights = selection.split_weights or np.ones(len(partition.splits))
        for f, (train, validation) in zip(weights, partition.splits, strict=True):
            rows = partition.rows(validation)
            losses = (selection.loss or SquaredError()).of(naive.residuals(naive.theta(partition.rows(train)), rows))[0]
            total, norm = total + f * scoring[rows] @ losses, norm + f * scoring[rows].sum()
        return total / norm
    Z, s, B = naive.system(everyone)
    y, H = problem.y, Z.T @ np.diag(s) @ Z + B
    if selection.kind == "leave_one_out":
        errors = []
        for i in everyone:  # n refits, each without the term of one row
            rest = np.delete(everyone, i)
            theta = np.linalg.solve(Z[rest].T @ np.diag(s[rest]) @ Z[rest] + B, Z[rest].T @ (s[rest] * y[rest]))
            errors.append(y[i] - Z[i] @ theta)
        return scoring @ (selection.loss or SquaredError()).of(np.array(errors))[0] / scoring.sum()
    A = Z @ np.linalg.solve(H, Z.T @ np.diag(s))
    if selection.kind == "generalized_cv":
        return (scoring @ (y - A @ y) ** 2 / scoring.sum()) / (1 - np.trace(A) / n) ** 2
    return naive_evidence(naive, selection, rho, n)


def naive_evidence(naive, selection, rho, n):
    """The density of y itself, with flat priors as the limit of wide ones taken out analytically."""
    everyone = np.arange(n)
    training, y = naive.training, naive.problem.y
    Z, s, B = naive.system(everyone)
    values, vectors = np.linalg.eigh(B)
    keep = values > 1e-9 * values.max()
    U, F = vectors[:, keep], Z @ vectors[:, ~keep]  # penalized directions, free ones
    V = np.diag(1 / (n * s)) + Z @ U @ np.diag(1 / (n * values[keep])) @ U.T @ Z.T  # over s2
    Vi = np.linalg.inv(V)
    free = F.shape[1]
    beta = np.linalg.solve(F.T @ Vi @ F, F.T @ Vi @ y) if free else np.zeros(0)
    r = y - F @ beta
    integrated = np.linalg.slogdet(F.T @ Vi @ F)[1] if free else 0.0
    M = free
    if training.intercept and selection.kind != "reml":  # the intercept at its best value instead
        M, integrated = free - 1, integrated - np.log(n)
    q = r @ Vi @ r
    s2 = q / (n - M) if getattr(selection, "noise_variance", None) is None else np.exp(rho[-1])
    return 0.5 * ((n - M) * np.log(2 * np.pi * s2) + q / s2 + np.linalg.slogdet(V)[1] + integrated)


SETTINGS = [(True, True, False), (False, False, False), (True, False, True)]  # intercept, standardize, fixed weights
MATRIX = list(itertools.product(PENALTIES, WEIGHTS, SELECTIONS))


def combinations():
    """All of them; by default each penalty, weight and criterion in one setting, the other settings when slow."""
    for number, names in enumerate(MATRIX):
        for which, settings in enumerate(SETTINGS):
            marks = () if which == number % 3 and number % 2 == 0 else (pytest.mark.slow,)
            yield pytest.param(*names, *settings, marks=marks, id="-".join((*names, str(which))))


@pytest.mark.parametrize(("penalty", "weights", "selection", "intercept", "standardize", "fixed"), list(combinations()))
def test_values_and_derivatives(penalty, weights, selection, intercept, standardize, fixed):
    penalty, weights, selection = PENALTIES[penalty], WEIGHTS[weights], SELECTIONS[selection]
    problem = table(fixed=fixed)
    training = Ridge(intercept, standardize, penalty, weights)
    partition, objective = objective_of(problem, training, selection)
    rho = rho_of(objective)
    at = objective.evaluate(rho)
    assert at.failure is None
    expected = naive_value(problem, training, selection, rho, objective.hyperparameters, partition)
    assert_allclose(at.value, expected, rtol=1e-9)
    assert_allclose(objective.value(rho), at.value, rtol=1e-13)

    scale = max(np.abs(at.gradient).max(), 1e-3 * abs(at.value))
    step = 2e-4 if isinstance(getattr(selection, "loss", None), Huber) else 1e-2  # Huber's second derivative jumps
    assert_allclose(at.gradient, differences(objective.value, rho, step), atol=1e-7 * scale)
    _, other = objective_of(problem, training, selection, CholeskyBackprop())
    assert_allclose(other.evaluate(rho).gradient, at.gradient, rtol=0, atol=1e-11 * scale)

    hessian = objective.hessian(rho)
    numeric = differences(lambda r: objective.evaluate(r).gradient, rho, step)
    assert_allclose(hessian, numeric, atol=1e-6 * np.abs(hessian).max())
    chosen = np.arange(1, len(rho), 2)
    assert_allclose(objective.hessian(rho, chosen), hessian[np.ix_(chosen, chosen)], atol=1e-12 * np.abs(hessian).max())
