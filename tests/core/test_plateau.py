"""Hyperparameters on plateaus are moved one by one, also where others converge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.core.gradient_descent import GradientDescent
from worker import checkpoint
from worker.core.hypergradient import HypergradientAuto
from worker.core.outer import Hoag, Inexact, Lbfgs, Newton, OuterAuto
from worker.core.outer.plateau import FLAT
from worker.core.penalties import PerFeature
from worker.core.records import Outcome
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, prepare
from worker.core.search.tune import tune
from worker.core.selection import Holdout
from worker.core.training import LogisticRegression, Ridge

pytestmark = pytest.mark.unchecked

OUTER = [Newton(), Lbfgs(), Inexact(), Hoag()]
LEVELS_OFF = 3  # a seed with which the last column only adds noise to the scored rows
WIDE = {"lower": 1e-16, "upper": 1e16}


def table(scale: tuple[float, ...]) -> Problem:
    random = np.random.default_rng(3)
    X = random.normal(size=(60, len(scale)))
    y = X @ np.linspace(1.0, -1.5, len(scale)) + random.normal(size=60)
    return Problem(X * scale, y, tuple(f"x{j}" for j in range(len(scale))))


def run(problem, outer, penalty, resume=None, training=Ridge):
    plan = Plan(training(standardize=False, penalty=penalty), Holdout(fraction=0.4), HypergradientAuto(), outer)
    prepared = prepare(problem, plan)
    return prepared, list(tune(prepared, resume))


@pytest.mark.parametrize("outer", OUTER[:3], ids=lambda outer: outer.kind)
@pytest.mark.parametrize(
    "scale", [(1.0, 1e-4, 1.0), (1.0, 1e-5, 1e-4), (1e5, 1.0, 1e-5)], ids=["one", "two", "both sides"]
)
def test_what_begins_far_out_ends_where_the_others_would_have_taken_it(outer, scale):
    problem = table(scale)
    _, near = run(problem, outer, PerFeature(spread=None))  # begins in the units of the columns
    _, far = run(problem, outer, PerFeature(initial=1.0, spread=None, **WIDE))
    assert far[-1].ended is Outcome.CONVERGED
    assert_allclose(far[-1].best.best.value, near[-1].best.best.value, rtol=1e-4)


@pytest.mark.parametrize(
    ("outer", "spread"),
    [*((outer, None) for outer in OUTER), (OUTER[0], "auto")],
    ids=lambda one: getattr(one, "kind", one),
)
def test_a_search_resumed_on_its_way_off_a_plateau_is_the_same(outer, spread):
    problem, penalty = table((1.0, 1e-4, 1e-4)), PerFeature(initial=1.0, spread=spread, **WIDE)
    outer = replace(outer, max_iterations=40, starts=2)
    prepared, whole = run(problem, outer, penalty)
    states = [i for i, step in enumerate(whole) if step.state is not None]
    assert any(FLAT in whole[i].state.search for i in states)
    for i in states[:: max(len(states) // 8, 1)]:
        stored = checkpoint.unpack(checkpoint.pack(whole[i].state))
        rest = list(tune(prepare(prepared.problem, prepared.plan), stored))
        assert len(rest) == len(whole) - i - 1
        for a, b in zip(rest, whole[i + 1 :], strict=True):
            assert (a.best.best.rho == b.best.best.rho).all()
            assert (a.best.best.value, a.evaluations, a.ended) == (b.best.best.value, b.evaluations, b.ended)


@pytest.mark.parametrize("outer", OUTER[:2], ids=lambda outer: outer.kind)
def test_a_search_that_begins_off_plateaus_is_as_it_was(outer):
    """Not one evaluation more, and nothing else in its states."""
    prepared, steps = run(table((1.0, 1.0, 1.0)), outer, PerFeature(spread=None))
    states = [step.state.search for step in steps if step.state is not None]
    assert not any(name.startswith("plateau.") for state in states for name in state)
    search = prepared.outer.search(prepared.objective, prepared.objective.hyperparameters.start(0, 0))
    own = [step.at.value for step in steps[:-1] if len(step.starts) == 1]  # then a shared value is searched for
    assert [trial.evaluation.value for trial in search] == own


def test_one_without_effect_stays_where_it_is():
    """Of a constant column J does not depend on the penalty at all: its slope is not even rounding noise."""
    problem = table((1.0, 1.0, 1.0))
    problem = replace(problem, X=problem.X * [1.0, 0.0, 1.0])
    _, steps = run(problem, Newton(), PerFeature(initial=1.0, spread=None, **WIDE))
    assert {float(step.at.rho[1]) for step in steps if len(step.starts) == 1} == {0.0}
    assert steps[-1].at.rho[1] == 0.0
    assert steps[-1].ended is Outcome.CONVERGED


def test_a_slope_that_levels_off_costs_one_evaluation():
    """A column of noise, whose penalty is nearly infinite already: J falls towards the bound, less and less."""
    random = np.random.default_rng(LEVELS_OFF)
    X = random.normal(size=(60, 2)) * [1.0, 1e-4]
    problem = Problem(X, X[:, 0] + random.normal(size=60), ("x0", "x1"))
    prepared, steps = run(problem, Newton(), PerFeature(initial=1.0, spread=None, **WIDE))
    slope = steps[0].at.gradient[1]
    assert -1e-6 < slope < -1e-12
    alone = list(prepared.outer.search(prepared.objective, np.zeros(2)))
    assert steps[-1].starts[0].evaluations == len(alone) + 1
    assert steps[-1].ended is Outcome.CONVERGED


def test_classes():
    random = np.random.default_rng(6)
    X = random.normal(size=(80, 3))
    y = (X @ [2.0, 1.5, 0.0] + random.logistic(size=80) > 0).astype(float)
    problem = Problem(X * [1.0, 1e-4, 1.0], y, ("a", "b", "c"), classes=("no", "yes"))
    near, far = (
        run(problem, OuterAuto(), penalty, training=LogisticRegression)[1][-1].best.best
        for penalty in (PerFeature(spread=None), PerFeature(initial=1.0, spread=None, **WIDE))
    )
    assert_allclose(far.value, near.value, rtol=1e-5)


@pytest.mark.parametrize(("k", "most"), [(1, 101), (57, 157), (1900, 2000), (100_000, 2000)])
def test_iterations_that_are_not_given_grow_with_the_hyperparameters(k, most):
    assert OuterAuto().resolve(k).max_iterations == most
    assert OuterAuto().resolve(k, inexact=True).max_iterations == most
    assert Hoag().resolve(k, has_hessian=True, inexact=False) == Hoag(max_iterations=most)
    assert OuterAuto(max_iterations=7).resolve(k).max_iterations == 7
    assert Lbfgs(max_iterations=5000).resolve(k, has_hessian=True, inexact=False).max_iterations == 5000


def test_the_prepared_optimizer_has_a_number_and_each_start_ends_by_it():
    outer = GradientDescent(tolerance=1e-300, starts=2)
    prepared, steps = run(table((1.0, 1.0)), outer, PerFeature(spread=None))
    assert prepared.outer.max_iterations == 102
    assert [start.spread for start in steps[-1].starts] == [None, None, 0.0]
    outcomes = {start.outcome: start.iterations for start in steps[-1].starts[:2]}
    assert outcomes.get(Outcome.MAX_ITERATIONS, 102) == 102
    assert max(start.iterations for start in steps[-1].starts) <= 102
