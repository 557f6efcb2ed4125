"""The loop around every outer optimizer, also around one that is written here alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.core.conftest import regression
from tests.core.gradient_descent import GradientDescent
from tests.core.test_outer import objective_of, run
from worker.core.family import members
from worker.core.hypergradient import HypergradientAuto
from worker.core.objective.objective import Found
from worker.core.outer import ConcreteOuter, Hoag, Inexact, Newton, Optimizer
from worker.core.penalties import Shared
from worker.core.records import Outcome
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, prepare
from worker.core.search.tune import tune
from worker.core.selection import KFold
from worker.core.training import Ridge

pytestmark = pytest.mark.unchecked  # hundreds of evaluations; shapes are checked in test_ridge.py

every = pytest.mark.parametrize("outer", [*members(ConcreteOuter), GradientDescent], ids=lambda outer: outer.__name__)


def prepared(**settings):
    training = Ridge(penalty=Shared(initial=100.0))
    return prepare(regression(60, 4), Plan(training, KFold(), HypergradientAuto(), GradientDescent(**settings), seed=1))


def test_an_optimizer_of_ones_own_descends_and_ends_as_others_do():
    minimum = run(Newton(tolerance=1e-9).search(objective_of(regression(60, 4), Shared()), np.zeros(1)))[0][-1]
    objective = objective_of(regression(60, 4), Shared())
    trials, outcome = run(GradientDescent().search(objective, np.array([4.0])))
    assert outcome is Outcome.CONVERGED
    assert_allclose(trials[-1].evaluation.rho, minimum.evaluation.rho, atol=1e-4)
    assert len([trial for trial in trials if trial.state is None]) > 0  # some lengths were halved
    assert run(GradientDescent(max_iterations=2).search(objective, np.array([4.0])))[1] is Outcome.MAX_ITERATIONS
    assert run(GradientDescent(tolerance=1e-300).search(objective, np.array([4.0])))[1] is Outcome.STALLED
    narrow = objective_of(regression(60, 4), Shared(initial=1e3, lower=5e2, upper=2e3))
    assert run(GradientDescent().search(narrow, np.log([1e3])))[1] is Outcome.AT_BOUNDS
    problem = regression(40, 3)
    twins = Problem(np.column_stack([problem.X[:, 0], problem.X[:, 0]]), problem.y, ("a", "b"))
    singular = objective_of(twins, Shared(initial=1e-300, lower=1e-300))
    trials, outcome = run(GradientDescent().search(singular, np.log([1e-300])))
    assert outcome is Outcome.SINGULAR
    assert [trial.state for trial in trials] == [None]


@every
def test_resumed_at_every_state_it_takes_the_same_path(outer):
    objective, settings = objective_of(regression(60, 3)), outer(max_iterations=12)
    whole, outcome = run(settings.search(objective, np.full(3, 2.0)))
    saved = [i for i, trial in enumerate(whole) if trial.state is not None]
    assert len(saved) > 3
    for i in saved:  # with the states as they are after the search, so that no step may have changed them
        rest, again = run(settings.search(objective_of(regression(60, 3)), np.full(3, 2.0), whole[i].state))
        assert again is outcome
        assert [bits(trial) for trial in rest] == [bits(trial) for trial in whole[i + 1 :]]


def bits(trial):
    state = None if trial.state is None else {name: array.tobytes() for name, array in trial.state.items()}
    at = trial.evaluation
    return at.rho.tobytes(), at.value, at.gradient.tobytes(), trial.gradient_norm, trial.iteration, state


def test_a_job_with_it_resumes_at_every_step_in_every_start():
    whole = list(tune(prepared(starts=3, max_iterations=8)))
    saved = [step for step in whole if step.state is not None]
    assert len({len(step.starts) for step in saved}) == 3
    for step in saved:
        *_, last = tune(prepared(starts=3, max_iterations=8), step.state)
        assert (ends(last), last.ended) == (ends(whole[-1]), whole[-1].ended)


def ends(step):
    return [(start.best.rho.tobytes(), start.outcome, start.iterations, start.evaluations) for start in step.starts]


def test_an_optimizer_that_says_too_little_cannot_be_made():
    class Silent(GradientDescent):
        typical_evaluations = Optimizer.typical_evaluations

    with pytest.raises(TypeError, match="typical_evaluations"):
        Silent()


class OnlyTheStart:
    """J falls away from 0, but its gradient is a number at 0 alone."""

    def found(self, rho):
        slope = np.full(len(rho), np.nan) if rho.any() else np.full(len(rho), -1.0)
        return Found(10.0 - float(rho.sum()), slope, np.ones(1))


@every
def test_a_gradient_that_is_not_a_number_is_no_convergence(outer):
    objective = replace(
        objective_of(regression(40, 2)), formula=OnlyTheStart(), second=lambda _, chosen: np.eye(len(chosen))
    )
    trials, outcome = run(
        outer(tolerance=1.0, max_iterations=5).search(objective, np.ones(2))
    )  # begins where it is none
    assert (outcome, len(trials)) == (Outcome.SINGULAR, 1)
    trials, outcome = run(outer(tolerance=1e-3).search(objective, np.zeros(2)))  # and gets there
    assert outcome is Outcome.STALLED
    assert sum(trial.evaluation.failure is not None for trial in trials) > 3
    assert all(np.isfinite(trial.evaluation.gradient).all() for trial in trials)
    assert not any(trial.state is not None and trial.evaluation.rho.any() for trial in trials)


@pytest.mark.parametrize("outer", [Newton, Inexact, Hoag, GradientDescent], ids=lambda outer: outer.__name__)
def test_a_state_with_such_a_gradient_is_no_end(outer):
    objective = objective_of(regression(40, 2))
    trials, _ = run(outer(tolerance=1.0).search(objective, np.zeros(2)))
    state = trials[0].state
    assert outer(tolerance=1.0).ended(objective, state) is Outcome.CONVERGED
    assert outer(tolerance=1.0).ended(objective, {**state, "gradient": np.array([np.nan, 0.0])}) is None


@every
def test_settled_needs_a_gradient_that_is_a_number(outer):
    objective = objective_of(regression(40, 2))
    at = objective.evaluate(np.zeros(2))
    assert outer(tolerance=1.0).settled(objective, at) is Outcome.CONVERGED
    assert outer(tolerance=1.0).settled(objective, replace(at, gradient=np.array([np.nan, 0.0]))) is None
