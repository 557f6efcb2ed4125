"""Minima of J on its corners, where rows of a hinge pass their kinks: they are found, and certified."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from scipy.special import expit

from worker.core.hypergradient import HypergradientAuto
from worker.core.hyperparameters import Hyperparameters
from worker.core.kernels import Rbf, SharedWidth, WidthPerFeature
from worker.core.losses import PlattLogLoss, SquaredError
from worker.core.losses.platt import Calibrated
from worker.core.objective.objective import Found, Objective
from worker.core.outer import Lbfgs
from worker.core.records import Outcome
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, prepare
from worker.core.search.procedure import carry_out
from worker.core.search.tune import tune
from worker.core.selection import Holdout, KFold, StratifiedKFold
from worker.core.training import KernelSvm
from worker.core.verdict.certificates import DIFFERENCE_LIMIT, certify
from worker.core.verdict.conclude import conclude
from worker.core.verdict.remarks import GRADIENT_DISAGREES, NEARLY_SINGULAR

SELECTIONS = (KFold(folds=3), StratifiedKFold(folds=3), Holdout(fraction=0.3))


def prepared_svm(seed=53, largest=32):
    """Machines of all kinds on tables of all sizes; many have their minimum at a corner, that of seed 53 among them."""
    random = np.random.default_rng(seed)
    n, p = int(random.integers(24, largest)), int(random.integers(1, 5))
    X = random.normal(size=(n, p))
    noise = random.choice([0.1, 0.5, 1.5, 5.0])
    y = (np.sin(2 * X[:, 0]) + 0.5 * (X[:, -1] ** 2 - 1) + noise * random.normal(size=n) > 0).astype(float)
    widths = WidthPerFeature(spread=None) if seed % 3 == 0 else SharedWidth()
    training = KernelSvm(kernel=Rbf(widths=widths), hinge="squared" if seed % 2 else "huberized")
    selection = replace(SELECTIONS[seed // 3 % 3], loss=PlattLogLoss())
    problem = Problem(X, y, tuple(f"x{j}" for j in range(p)), classes=("no", "yes"))
    return prepare(problem, Plan(training, selection, HypergradientAuto(), Lbfgs()))


@pytest.fixture(scope="module")
def at_corner():
    """A machine whose minimum is at a corner, with the steps of its search."""
    prepared = prepared_svm()
    return prepared, list(tune(prepared))


def assert_certified(prepared, last):
    assert last.ended in {Outcome.CONVERGED, Outcome.AT_BOUNDS}
    best = last.best
    conclusion = conclude(prepared, best)
    assert not {GRADIENT_DISAGREES, NEARLY_SINGULAR} & set(conclusion.messages)
    assert conclusion.certificates.outer_gradient_norm <= prepared.outer.tolerance
    assert conclusion.certificates.finite_difference_error <= DIFFERENCE_LIMIT
    objective, box, rho = prepared.objective, prepared.objective.hyperparameters, best.best.rho
    unit = objective.unit(best.best.value)
    random = np.random.default_rng(0)
    for length in (1e-4, 1e-3):  # J rises on all sides
        for _ in range(4):
            step = random.normal(size=len(rho))
            there = np.clip(rho + length * step / np.linalg.norm(step), box.lower, box.upper)
            assert objective.value(there) >= best.best.value - 1e-5 * length * unit


def test_the_minimum_of_a_platt_machine_is_found_and_certified(at_corner):
    prepared, steps = at_corner
    at = steps[-1].best.best
    assert prepared.outer.relative_gradient(prepared.objective, at) > 1e-3  # of a single piece
    assert_certified(prepared, steps[-1])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_many_platt_machines_are_found_and_certified(seed):
    prepared = prepared_svm(seed, 100)
    *_, last = tune(prepared)
    assert_certified(prepared, last)


class Pieces:
    """The largest of several parabolas, and parabolas beside it: a J whose minimum is known."""

    def __init__(self, bounds=(-5.0, 5.0)):
        k = 3
        lower, upper = (np.full(k, bound) for bound in bounds)
        box = (np.exp(lower), np.exp(upper))
        self.box = Hyperparameters(tuple("abc"), np.zeros(k), lower, upper, box, np.ones(k, bool))
        self.centre, self.evaluations, self.wrong = np.array([1.5, -0.5, 0.7]), 0, 1.0

    def found(self, rho):
        self.evaluations += 1
        d = rho - self.centre
        value = 1.0 + abs(d[0] + 0.5 * d[1]) + 0.3 * d[1] ** 2 + 2.0 * abs(d[2]) + 0.1 * d @ d
        slope = (
            np.array([1.0, 0.5, 0.0]) * np.sign(d[0] + 0.5 * d[1])
            + np.array([0, 0.6 * d[1], 2.0 * np.sign(d[2])])
            + 0.2 * d
        )
        return Found(float(value), self.wrong * slope, np.array([value]))

    def value(self, rho):
        return self.found(rho).value

    def residuals(self, rho):  # noqa: ARG002 - as every formula
        return None  # nothing is trained

    def objective(self):
        return Objective(self, self.box, SquaredError(), "primal")


def searched(pieces, start, state=None):
    trials, search = [], Lbfgs().search(pieces.objective(), np.array(start, float), state)
    while True:
        try:
            trials.append(next(search))
        except StopIteration as stop:
            return trials, stop.value


@pytest.mark.parametrize("start", [[0.0, 0.0, 0.0], [4.0, 4.0, -4.0], [1.5, 3.0, 0.7]])
def test_a_corner_of_two_kinks_is_found(start):
    pieces = Pieces()
    trials, outcome = searched(pieces, start)
    assert outcome is Outcome.CONVERGED
    assert_allclose(trials[-1].evaluation.rho, pieces.centre, atol=1e-4)  # as near as gradients count
    assert trials[-1].gradient_norm <= 1e-6
    assert pieces.evaluations < 500


def test_a_corner_on_a_bound_is_found():
    pieces = Pieces((-5.0, 1.0))  # the first hyperparameter may not reach its centre
    trials, outcome = searched(pieces, [0.0, 0.0, 0.0])
    line = minimize_scalar(lambda t: pieces.value(pieces.centre + np.array([-0.5, t, 0.0])), (0.0, 1.0), tol=1e-12)
    assert outcome is Outcome.CONVERGED
    assert_allclose(trials[-1].evaluation.value, line.fun, rtol=1e-7)
    assert (trials[-1].evaluation.rho <= 1.0).all()


def test_a_search_on_corners_resumes_bit_for_bit():
    trials, outcome = searched(Pieces(), [4.0, 4.0, -4.0])
    stops = [i for i, trial in enumerate(trials) if trial.state is not None and "inverse" in trial.state]
    assert stops
    for stop in stops:
        rest, ended = searched(Pieces(), [0.0, 0.0, 0.0], trials[stop].state)
        assert ended is outcome
        assert len(rest) == len(trials) - 1 - stop
        if rest:
            assert_allclose(rest[-1].evaluation.rho, trials[-1].evaluation.rho, rtol=0, atol=0)
            assert rest[-1].gradient_norm == trials[-1].gradient_norm
            assert rest[-1].iteration == trials[-1].iteration


def test_a_platt_machine_resumes_bit_for_bit(at_corner):
    _, steps = at_corner
    late = [step for step in steps if step.state is not None and "inverse" in step.state.search]
    for step in (late[0], late[-1]):
        *_, last = carry_out(prepared_svm(), step.state)
        assert (last.best.best.rho == steps[-1].best.best.rho).all()
        assert (last.best.gradient_norm, last.ended) == (steps[-1].best.gradient_norm, steps[-1].ended)
        assert last.evaluations == steps[-1].evaluations


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_wrong_gradient_is_told_beside_corners_too(at_corner, factor):
    """Differences beside the corner judge the gradient: one that is right passes, one that is wrong does not."""
    prepared, steps = at_corner
    objective, best = prepared.objective, steps[-1].best

    class Wrong:
        value, residuals = objective.formula.value, objective.formula.residuals

        def found(self, rho):
            at = objective.formula.found(rho)
            return replace(at, gradient=factor * at.gradient)

    wrong = replace(objective, formula=Wrong())
    at_best = replace(best, best=wrong.evaluate(best.best.rho))
    error = certify(wrong, at_best, 0).finite_difference_error
    assert error < 1e-8 if factor == 1.0 else error > DIFFERENCE_LIMIT


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("apart", [0.0, 0.5, 1e3])
def test_platts_line_is_solved_to_rounding(scale, apart):
    random = np.random.default_rng(3)
    y = np.arange(80) % 3 % 2 * 1.0
    eta = (random.normal(size=80) + apart * (2 * y - 1)) * scale
    w = random.uniform(0.5, 2.0, 80)
    at = Calibrated.of(y, eta, w)
    z = at.line[0] * eta + at.line[1]
    residual = w * (expit(z) - at.t)
    assert abs(residual.sum()) < 1e-12 * w.sum()
    assert abs(residual @ eta) < 1e-12 * w.sum() * np.abs(eta).max()


def test_a_line_that_the_steps_do_not_reach_is_no_line(monkeypatch):
    monkeypatch.setattr("worker.core.losses.platt.MOST_NEWTON_STEPS", 2)
    with np.errstate(invalid="ignore"):
        at = Calibrated.of(np.array([0.0, 1.0, 1.0, 0.0]), np.array([1.0, 3.0, 2.0, 1.5]), np.ones(4))
    assert np.isnan(at.value)
