"""Inexact evaluations: their errors never exceed the bounds that come with them, and the searches that use them."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.core.smooth.problems import PENALTIES, TRAINING, table
from worker.core.hypergradient import Implicit
from worker.core.inner.smooth.error_bound import Adjoint, bounds
from worker.core.losses import Brier, SmoothedAuc, SmoothedError
from worker.core.outer import Hoag, Inexact, Lbfgs, Newton
from worker.core.outer.inexact import SearchState, search_direction
from worker.core.penalties import PerFeature, Shared
from worker.core.records import Evaluation, Outcome
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, prepare
from worker.core.search.tune import tune
from worker.core.selection import Holdout, KFold
from worker.core.verdict.conclude import conclude
from worker.core.weights import SigmoidTime

pytestmark = pytest.mark.unchecked  # the same calls are checked in test_hypergradient.py


def random_problem(number: int):
    """A problem of random size, scales, strength of signal, kind, penalty, solver and score."""
    random = np.random.default_rng(number)
    n, p = int(random.integers(30, 120)), int(random.integers(2, 20))
    kind = sorted(TRAINING)[number % 6]
    base = table(kind, n=n, seed=number)
    X = np.asarray(base.X)[:, random.integers(0, 5, p)] + random.normal(size=(n, p)) * np.exp(random.normal(size=p))
    problem = dataclasses.replace(base, X=X, features=tuple(f"x{j}" for j in range(p)))
    training = TRAINING[kind](
        penalty=(Shared(), PerFeature(spread=None))[(number // 6) % 2],
        solver=("newton_cholesky", "newton_cg")[(number // 12) % 2],
        intercept=number % 5 != 0,
        weights=SigmoidTime() if number % 7 == 0 else None,
    )
    scores = [None, SmoothedError(), Brier()] if training.classifies and kind != "squared_hinge" else [None]
    return problem, training, KFold(folds=3, loss=scores[number % len(scores)])


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, 4))])
def test_errors_never_exceed_their_bounds_on_200_random_problems(part):
    informative = 0
    for number in range(part, 200, 4):
        problem, training, selection = random_problem(number)
        objective = prepare(problem, Plan(training, selection, Implicit(), Inexact())).objective
        random, box = np.random.default_rng([number, 1]), objective.hyperparameters
        rho = np.where(box.log, random.uniform(-8, 2, len(box.names)), random.uniform(0, 1, len(box.names)))
        approximate = objective.approximate(rho, 10.0 ** random.uniform(-9, -1))
        objective.forget()
        exact = objective.evaluate(rho)
        assert exact.failure is None, number
        assert abs(approximate.value - exact.value) <= approximate.value_error + 1e-12 * abs(exact.value), number
        error = float(np.linalg.norm(approximate.gradient - exact.gradient))
        assert error <= approximate.gradient_error + 1e-10 * objective.unit(exact.value), number
        informative += approximate.gradient_error < 1e-2 * objective.unit(exact.value)
    assert informative > 15  # bounds that are always infinite would pass the rest


@pytest.mark.parametrize("solver", ["newton_cholesky", "newton_cg"])
def test_the_bound_of_an_inexact_adjoint_is_near_its_error_where_the_penalty_is_strong(solver):
    training = TRAINING["logistic"](penalty=Shared(), solver=solver)
    system = prepare(
        table("logistic"), Plan(training, Holdout(), Implicit(), Inexact())
    ).objective.formula.fits.systems[0]
    fit = system.fit(np.array([30.0]))
    theta_bar = system.loss.value_and_gradient(fit.theta)[1]
    u = fit.solve(theta_bar)
    off = 1e-3 * fit.solve(fit.penalty.apply(fit.theta))  # the direction in which the gradient errs most
    inexact = Adjoint(u + off, theta_bar, theta_bar - fit.apply(u + off))
    bound = bounds(system, fit, inexact, system.loss.predictor(fit.theta))[1]
    error = float(np.abs(fit.contract(off))[0])
    assert error <= bound <= 1.5 * error


def found(problem, training, selection, outer):
    prepared = prepare(problem, Plan(training, selection, Implicit(), outer))
    steps = list(tune(prepared))
    return prepared, steps


@pytest.mark.parametrize("kind", sorted(TRAINING))
@pytest.mark.parametrize("solver", ["newton_cholesky", "newton_cg"])
def test_inexact_ends_where_exact_methods_end(kind, solver):
    training = TRAINING[kind](penalty=Shared(), solver=solver)
    problem, selection = table(kind, n=150), KFold(folds=3)
    prepared, steps = found(problem, training, selection, Inexact(tolerance=1e-7))
    _, exact = found(problem, training, selection, Lbfgs(tolerance=1e-7))
    assert steps[-1].best.best.value_error == 0
    certificates = conclude(prepared, steps[-1].best).certificates
    if kind in {"huber", "squared_hinge"}:  # J has kinks, where a row enters or leaves a piece of the loss
        assert_allclose(steps[-1].best.best.value, exact[-1].best.best.value, rtol=1e-5)
    else:
        assert steps[-1].ended in {Outcome.CONVERGED, Outcome.AT_BOUNDS}
        assert_allclose(steps[-1].best.best.value, exact[-1].best.best.value, rtol=1e-10)
        assert certificates.outer_gradient_norm <= 1e-7
    assert certificates.adjoint_residual < 1e-9


@pytest.mark.parametrize(("before", "now"), [(3.0, 0.5), (3.0, 2.0)])
def test_one_hyperparameter_goes_to_the_minimizer_of_a_cubic(before, now):
    """`log J = t^3 / 3 - t` has its minimum at 1; the secant stops short of it."""
    log_J, slope = (lambda t: t**3 / 3 - t), (lambda t: np.array([t**2 - 1]))
    at = Evaluation(np.array([now]), np.exp(log_J(now)), slope(now) * np.exp(log_J(now)), np.ones(1), None, 0.0, 0.0)
    step, change, rise = np.array([[now - before]]), (slope(now) - slope(before))[None], log_J(now) - log_J(before)
    here = SearchState(at, steps=step, changes=change, rises=np.array([rise]))
    assert_allclose(now + search_direction(here, np.array([True])), 1.0, rtol=1e-12)


def test_early_steps_are_less_exact_than_late_ones():
    training = TRAINING["logistic"](penalty=PerFeature(spread=None), solver="newton_cg")
    _, steps = found(table("logistic", n=150), training, Holdout(fraction=0.4), Inexact())
    bounds = [step.at.gradient_error for step in steps[:-1]]
    assert max(bounds) > 1e3 * bounds[-1]
    descents = [step.at.ceiling for step in steps if step.state is not None and len(step.starts) == 1]
    assert all(b < a for a, b in itertools.pairwise(descents))


def test_a_score_of_all_rows_together_is_descended_with_exact_evaluations():
    training = TRAINING["logistic"](penalty=Shared())
    selection = KFold(folds=3, loss=SmoothedAuc(slope=2.0))
    _, steps = found(table("logistic", n=150), training, selection, Inexact())
    _, exact = found(table("logistic", n=150), training, selection, Lbfgs())
    assert_allclose(steps[-1].best.best.value, exact[-1].best.best.value, rtol=1e-8)


@pytest.mark.parametrize("schedule", ["quadratic", "exponential"])
def test_hoag_converges_in_one_hyperparameter(schedule):
    training = TRAINING["logistic"](penalty=Shared(), solver="newton_cg")
    selection = Holdout(fraction=0.4)
    _, steps = found(
        table("logistic", n=150), training, selection, Hoag(schedule=schedule, tolerance=1e-4, max_iterations=500)
    )
    _, exact = found(table("logistic", n=150), training, selection, Newton())
    assert steps[-1].best.best.value - exact[-1].best.best.value < 1e-5


@pytest.mark.parametrize(
    "outer", [Newton(starts=2), Lbfgs(starts=2), Inexact(starts=2), Hoag(starts=2, max_iterations=15)]
)
@pytest.mark.parametrize("solver", ["newton_cholesky", "newton_cg"])
def test_resumed_anywhere_it_ends_with_the_same_bits(outer, solver):
    problem = table("logistic", n=120)
    plan = Plan(TRAINING["logistic"](penalty=PENALTIES["per_group"], solver=solver), KFold(folds=2), Implicit(), outer)
    prepared = prepare(problem, plan)
    whole = list(tune(prepared))
    conclusion = conclude(prepared, whole[-1].best)
    saved = [i for i, step in enumerate(whole) if step.state is not None]
    for i in saved[1 :: max(1, len(saved) // 3)]:
        again = prepare(problem, plan)
        rest = list(tune(again, whole[i].state))
        assert len(rest) == len(whole) - i - 1
        for a, b in zip(rest[-1].starts, whole[-1].starts, strict=True):
            assert (a.best.rho == b.best.rho).all()
            assert (a.best.value, a.outcome, a.evaluations) == (b.best.value, b.outcome, b.evaluations)
        ended = conclude(again, rest[-1].best)
        assert (ended.model.coefficients == conclusion.model.coefficients).all()
        assert ended.certificates == conclusion.certificates


def test_separable_classes_end_at_the_lower_bound_and_never_overflow():
    X = np.linspace(-1.0, 1.0, 40)[:, None]
    problem = Problem(X, (X[:, 0] > 0).astype(float), ("x",), classes=("no", "yes"))
    for outer in (Newton(), Lbfgs(), Inexact()):
        _, steps = found(problem, TRAINING["logistic"](), KFold(folds=4), outer)
        assert steps[-1].ended is Outcome.AT_BOUNDS
        assert_allclose(np.exp(steps[-1].best.best.rho), 1e-6)
