from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from tests.core.conftest import regression
from worker.core.family import members
from worker.core.hypergradient import Implicit
from worker.core.objective.mean_of_splits import HessianOfMean
from worker.core.objective.means import mean_of_ridge
from worker.core.objective.objective import Found, Objective
from worker.core.outer import ConcreteOuter, Hoag, Lbfgs, Newton, OuterAuto
from worker.core.outer.newton import TrustRegionModel, ball_minimizer
from worker.core.outer.quartic import Quartic
from worker.core.penalties import PerFeature, Shared
from worker.core.records import Evaluation, Outcome
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, prepare
from worker.core.search.tune import tune
from worker.core.selection import KFold, LeaveOneOut
from worker.core.training import Ridge

pytestmark = pytest.mark.unchecked  # thousands of evaluations; shapes are checked in test_ridge.py

# but for the gradient descent of Hoag, which is slow by design
quick = [outer for outer in members(ConcreteOuter) if outer is not Hoag]
outers = pytest.mark.parametrize("outer", quick, ids=lambda outer: outer.kind)


def objective_of(problem: Problem, penalty=None) -> Objective:
    training = Ridge(penalty=penalty or PerFeature(spread=None))
    partition = KFold().partition(np.arange(len(problem.y)), len(problem.y))
    systems, box = training.systems(problem, partition), training.hyperparameters(problem)
    return mean_of_ridge(systems, box, Implicit(), eliminated=True)


def run(search):
    trials = []
    while True:
        try:
            trials.append(next(search))
        except StopIteration as stop:
            return trials, stop.value


@outers
@pytest.mark.parametrize("penalty", [Shared(), PerFeature(spread=None)], ids=lambda p: p.kind)
def test_ends_at_a_stationary_point_of_the_box(outer, penalty):
    objective = objective_of(regression(80, 6), penalty)
    box = objective.hyperparameters
    trials, outcome = run(outer(max_iterations=500, tolerance=1e-9).search(objective, box.start(0, 0)))
    assert outcome in {Outcome.CONVERGED, Outcome.AT_BOUNDS}
    at = trials[-1].evaluation
    assert trials[-1].gradient_norm <= 1e-9
    assert (box.lower <= at.rho).all()
    assert (at.rho <= box.upper).all()
    outward = ((at.rho == box.lower) & (at.gradient >= 0)) | ((at.rho == box.upper) & (at.gradient <= 0))
    assert (np.abs(at.gradient[~outward]) <= 1e-9 * at.value).all()
    accepted = np.array([trial.evaluation.value for trial in trials if trial.state is not None])
    assert (accepted[1:] <= accepted[:-1] * (1 + 1e-14)).all()


def test_one_penalty_is_found_to_the_last_digits():
    objective = objective_of(regression(80, 6), Shared())
    grid = min(objective.value(np.array([rho])) for rho in np.linspace(-13, 13, 2000))
    values = [
        run(outer(tolerance=1e-10).search(objective, np.zeros(1)))[0][-1].evaluation.value for outer in (Newton, Lbfgs)
    ]
    assert_allclose(values[0], values[1], rtol=1e-12)
    assert values[0] <= grid


@outers
def test_resumed_anywhere_it_takes_the_same_path_bit_for_bit(outer):
    objective = objective_of(regression(60, 8))
    settings = outer(max_iterations=60, tolerance=1e-8)
    whole, outcome = run(settings.search(objective, np.zeros(8)))
    boundaries = [i for i, trial in enumerate(whole) if trial.state is not None]
    assert len(boundaries) > 5
    for i in boundaries:
        state = {name: array.copy() for name, array in whole[i].state.items()}
        fresh = objective_of(regression(60, 8))  # no fits kept from before
        rest, again = run(settings.search(fresh, np.zeros(8), state))
        assert again is outcome
        assert [t.evaluation.value for t in rest] == [t.evaluation.value for t in whole[i + 1 :]]
        assert all((a.evaluation.rho == b.evaluation.rho).all() for a, b in zip(rest, whole[i + 1 :], strict=True))


def test_lbfgs_is_scipys_evaluation_for_evaluation():
    problem = regression(60, 8)
    objective = objective_of(Problem(problem.X, 100.0 * problem.y, problem.features))
    box = objective.hyperparameters
    seen = []
    steepest = np.abs(objective.evaluate(np.zeros(8)).gradient).max()
    unit = 2.0 ** np.round(np.log2(steepest))  # J is minimized over this, without rounding
    assert unit > 100

    def f(rho):
        at = objective.evaluate(rho)
        seen.append(at.rho)
        return at.value / unit, at.gradient / unit

    options = {"ftol": 0.0, "gtol": 0.0, "maxiter": 25, "maxcor": 10}
    minimize(f, np.zeros(8), jac=True, method="L-BFGS-B", bounds=np.c_[box.lower, box.upper], options=options)
    trials, outcome = run(Lbfgs(max_iterations=25, tolerance=1e-300).search(objective, np.zeros(8)))
    assert outcome is Outcome.MAX_ITERATIONS
    assert len(trials) == len(seen)
    assert all((trial.evaluation.rho == rho).all() for trial, rho in zip(trials, seen, strict=True))


def test_an_iteration_moves_no_hyperparameter_far():
    class Slight:
        """`sqrt(1 + (rho - 12)^2)`, whose slope at 0 is nearly the same everywhere."""

        def found(self, rho):
            root = np.sqrt(1.0 + (rho - 12.0) ** 2)
            return Found(float(root.sum()), (rho - 12.0) / root, root)

    slight = replace(objective_of(regression(60, 3)), formula=Slight())
    trials, outcome = run(Lbfgs().search(slight, np.array([0.0, 5.0, -13.0])))
    assert outcome is Outcome.CONVERGED
    assert_allclose(trials[-1].evaluation.rho, 12.0, atol=1e-4)
    moves = np.abs(np.diff([trial.evaluation.rho for trial in trials if trial.state is not None], axis=0))
    assert 3.0 < moves.max() <= 4.0


@outers
def test_a_singular_start_is_an_outcome(outer):
    problem = regression(40, 3)
    twins = Problem(np.column_stack([problem.X[:, 0], problem.X[:, 0]]), problem.y, ("a", "b"))
    penalty = Shared(initial=1e-300, lower=1e-300)
    objective = objective_of(twins, penalty)
    trials, outcome = run(outer().search(objective, objective.hyperparameters.start(0, 0)))
    assert outcome is Outcome.SINGULAR
    assert outcome.is_failure
    assert len(trials) == 1
    assert trials[0].evaluation.value == np.inf


@outers
def test_a_singular_trial_point_is_turned_away_from(outer):
    # training fails below rho = -3: the search has to go on above it
    objective = objective_of(regression(60, 4))
    fits = objective.formula.fits
    anywhere, fence = fits.at, -3.0

    class Fenced(type(fits)):
        def at(self, rho):
            return None if (rho < fence).any() else anywhere(rho)

    fits = Fenced(fits.systems, fits.box)
    formula = replace(objective.formula, fits=fits)
    fenced = replace(objective, formula=formula, second=HessianOfMean(fits))
    trials, outcome = run(outer(max_iterations=200).search(fenced, np.zeros(4)))
    assert not outcome.is_failure
    finite = [t.evaluation for t in trials if np.isfinite(t.evaluation.value)]
    assert len(finite) < len(trials)
    assert finite[-1].value < finite[0].value


@outers
def test_budget_tolerance_and_bounds_as_outcomes(outer):
    objective = objective_of(regression(60, 5))
    assert run(outer(max_iterations=2).search(objective, np.zeros(5)))[1] is Outcome.MAX_ITERATIONS
    noise = Problem(np.random.default_rng(0).normal(size=(50, 2)), np.tile([1.0, -1.0], 25), ("a", "b"))
    flat = objective_of(noise, Shared(lower=0.5, upper=2.0))
    assert run(outer().search(flat, np.zeros(1)))[1] is Outcome.AT_BOUNDS
    assert run(outer(tolerance=1e-300, max_iterations=10_000).search(objective, np.zeros(5)))[1] is Outcome.STALLED


def test_auto_takes_newton_until_its_hessian_costs_too_much():
    assert isinstance(OuterAuto(starts=3).resolve(1000), Newton)
    assert isinstance(OuterAuto().resolve(1001), Lbfgs)
    assert OuterAuto(max_iterations=7, tolerance=1e-3, starts=3).resolve(2) == Newton(7, 1e-3, 3)


def test_newton_takes_far_fewer_evaluations_and_ends_as_low():
    objective = objective_of(regression(150, 30))
    newton, _ = run(Newton(tolerance=1e-7).search(objective, np.zeros(30)))
    lbfgs, _ = run(Lbfgs(tolerance=1e-7, max_iterations=5000).search(objective, np.zeros(30)))
    assert newton[-1].evaluation.value <= lbfgs[-1].evaluation.value * (1 + 1e-3)
    assert len(newton) < len(lbfgs) / 2


floats = st.floats(-5, 5).map(lambda x: round(x, 3))


@given(st.lists(st.tuples(floats, floats), min_size=1, max_size=6), st.floats(0.01, 10))
def test_ball_minimizer_satisfies_the_conditions_of_optimality(pairs, radius):
    # More and Sorensen 1983: s is optimal iff (H + mu I) s = -g, mu >= 0, H + mu I >= 0, and mu = 0 or |s| = radius
    eigenvalues = np.sort([value for value, _ in pairs])
    g = np.array([slope for _, slope in pairs])
    s = ball_minimizer(eigenvalues, g, radius)
    length = np.linalg.norm(s)
    assert length <= radius * (1 + 1e-8)
    value = g @ s + s @ (eigenvalues * s) / 2
    rng = np.random.default_rng(0)
    others = rng.normal(size=(200, len(g)))
    others *= (radius * rng.uniform(size=(200, 1))) / np.linalg.norm(others, axis=1, keepdims=True)
    best_other = (others @ g + ((others**2) @ eigenvalues) / 2).min()
    assert value <= best_other + 2e-2 * max(1.0, abs(best_other))
    if eigenvalues[0] > 1e-2 and np.linalg.norm(g / eigenvalues) < radius:
        assert_allclose(s, -g / eigenvalues, rtol=1e-9, atol=1e-9)


def test_a_step_that_the_box_cuts_still_leads_down():
    random = np.random.default_rng(0)
    for _ in range(300):
        M = random.normal(size=(3, 3))
        rho = np.zeros(3)
        bounds = -(random.uniform(0.0, 5.0, 3) ** 3) / 50, random.uniform(0.0, 5.0, 3) ** 3 / 50
        slope = -random.uniform(0.0, 1.0, 3)
        H = M + M.T
        at = Evaluation(rho, 1.0, -slope, np.ones(1))
        model = TrustRegionModel(at, bounds, 1.0, np.arange(3), -np.ones(3), slope, H, *np.linalg.eigh(H))
        x, _ = model.minimizer(random.uniform(0.1, 10.0))
        assert model.change(x) < 0


def polynomial_at(c: np.ndarray, rho: float) -> Evaluation:
    slope = np.polynomial.polynomial.polyval(rho, np.polynomial.polynomial.polyder(c))
    value = float(np.polynomial.polynomial.polyval(rho, c))
    return Evaluation(np.array([rho]), value, np.array([slope]), np.array([value]))


@pytest.mark.parametrize("seed", range(5))
def test_two_evaluations_make_a_quartic(seed):
    random = np.random.default_rng(seed)
    c = random.normal(size=5) + np.array([20.0, 0.0, 0.0, 0.0, 1.0])
    here, there = random.normal(), random.normal()
    at, second = polynomial_at(c, here), np.polynomial.polynomial.polyder(c, 2)
    curvature = float(np.polynomial.polynomial.polyval(here, second))
    line = Quartic.through(at, curvature, polynomial_at(c, there), 1.0)
    assert line is not None
    steps = np.linspace(-2.0, 1.5, 3501)
    changes = np.polynomial.polynomial.polyval(here + steps, c) - at.value
    assert_allclose([line.change(s) for s in steps[::100]], changes[::100], atol=1e-9)
    assert line.change(line.minimizer(-2.0, 1.5)) <= changes.min() + 1e-9
    assert Quartic.through(at, curvature, polynomial_at(c, here + 1e-6), 1.0) is None
    assert Quartic.through(at, curvature, Evaluation(np.array([there]), np.inf, np.zeros(1), np.zeros(1)), 1.0) is None


def test_with_one_hyperparameter_the_evaluation_before_saves_others(monkeypatch):
    def evaluations() -> int:
        objectives = [objective_of(regression(80, 6, seed=seed), Shared()) for seed in range(12)]
        return sum(len(run(Newton(tolerance=1e-9).search(o, np.array([1.5])))[0]) for o in objectives)

    with_quartic = evaluations()
    monkeypatch.setattr(Quartic, "through", lambda *_: None)
    assert with_quartic < 0.95 * evaluations()


def test_a_state_without_the_evaluation_before_is_gone_on_from():
    objective = objective_of(regression(80, 6, seed=5), Shared())
    trials, _ = run(Newton(tolerance=1e-9).search(objective, np.array([3.0])))
    assert "before" in trials[2].state
    state = {name: array for name, array in trials[2].state.items() if name != "before"}
    again, outcome = run(Newton(tolerance=1e-9).search(objective, np.array([3.0]), state))
    assert outcome is Outcome.CONVERGED
    assert_allclose(again[-1].evaluation.rho, trials[-1].evaluation.rho, atol=1e-6)


@outers
@pytest.mark.parametrize("share", [2.0**-40, 2.0**-330])
def test_the_units_of_the_target_change_nothing(outer, share):
    problem = regression(60, 5)
    small = Problem(problem.X, problem.y * share, problem.features)
    one, other = (run(outer().search(objective_of(p), np.zeros(5))) for p in (problem, small))
    assert one[1] is other[1] is Outcome.CONVERGED
    assert_allclose(other[0][-1].evaluation.value / share**2, one[0][-1].evaluation.value, rtol=1e-9)


def test_a_hessian_that_is_not_finite_ends_the_search_where_it_is():
    problem = regression(40, 3)
    tiny = Problem(problem.X * 1e-100, problem.y, problem.features)
    prepared = prepare(tiny, Plan(Ridge(), LeaveOneOut(), Implicit(), Newton()))
    *_, last = tune(prepared)
    assert last.ended is Outcome.STALLED
    assert np.isfinite(last.best.best.value)
