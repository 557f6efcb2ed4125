from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge as SklearnRidge

from tests.core.conftest import regression
from worker.core.hypergradient import CholeskyBackprop, HypergradientAuto
from worker.core.outer import Hoag, Inexact, Lbfgs, Newton, OuterAuto
from worker.core.penalties import PerFeature, Shared
from worker.core.records import Outcome, Trial
from worker.core.rows.problem import Problem
from worker.core.search import one_start
from worker.core.search.descents import PATH
from worker.core.search.plan import Plan, prepare
from worker.core.search.tune import tune
from worker.core.selection import GivenFolds, Holdout, KFold
from worker.core.training import Ridge
from worker.core.verdict.certificates import certify
from worker.core.verdict.conclude import conclude

pytestmark = pytest.mark.unchecked  # thousands of evaluations; shapes are checked in test_ridge.py


def plan(outer=None, selection=None, penalty=None, **settings) -> Plan:
    training = Ridge(penalty=penalty or PerFeature(spread=None))
    return Plan(training, selection or KFold(), HypergradientAuto(), outer or OuterAuto(), **settings)


def run(problem, the_plan, resume=None):
    prepared = prepare(problem, the_plan)
    return prepared, list(tune(prepared, resume))


def test_the_best_of_several_starts_is_returned_and_each_is_reported():
    prepared, steps = run(regression(60, 6), plan(Newton(starts=5), seed=3))
    last = steps[-1]
    assert last.ended is last.best.outcome
    *starts, shared = last.starts  # a shared value is searched for, too, to compare with
    assert [start.spread for start in last.starts] == [None] * 5 + [0.0]
    assert all(start.outcome is not None for start in last.starts)
    assert last.best.best.value == min(start.best.value for start in starts) < shared.best.value
    initial = np.array([start.initial.rho for start in starts])
    assert (initial[0] == 0).all()
    assert len(np.unique(initial[:, 0])) == 5
    assert last.evaluations == len(steps) - 1
    assert prepared.objective.value(last.best.best.rho) == last.best.best.value


def test_a_search_that_stalled_next_to_a_stationary_point_that_it_saw_has_converged():
    prepared, steps = run(regression(60, 6), plan(Newton(tolerance=1e-9)))
    lowest, objective = steps[-1].best.best, prepared.objective

    def stopped(points):
        def search(of, number, state):
            if of is not prepared:  # the shared value
                return (yield from one_start.search(of, number, state))
            for rho in points:
                at = objective.evaluate(rho)
                yield Trial(at, 1, of.outer.relative_gradient(objective, at), None)
            return Outcome.STALLED

        *_, last = tune(prepared, searches=search)
        return last.ended

    near = lowest.rho - 1e-6 * np.sign(lowest.rho)  # J is equal here to many digits, its gradient exceeds the tolerance
    assert stopped([near, lowest.rho, near]) is Outcome.CONVERGED
    assert stopped([near]) is Outcome.STALLED


@pytest.mark.parametrize("spread", [None, "auto"])
@pytest.mark.parametrize("outer", [Newton(starts=3, max_iterations=30), Lbfgs(starts=3, max_iterations=30)])
def test_resumed_anywhere_in_several_starts_it_ends_with_the_same_numbers(outer, spread):
    problem, the_plan = regression(60, 5), plan(outer, penalty=PerFeature(spread=spread))
    _, whole = run(problem, the_plan)
    assert len(whole[-1].starts) == (3 + 1 if spread is None else 1 + len(PATH) + 2)
    for i in [i for i, step in enumerate(whole) if step.state is not None][::7]:
        _, rest = run(problem, the_plan, whole[i].state)
        assert len(rest) == len(whole) - i - 1
        assert rest[-1].evaluations == whole[-1].evaluations
        for a, b in zip(rest[-1].starts, whole[-1].starts, strict=True):
            assert (a.best.rho == b.best.rho).all()
            assert (a.best.value, a.outcome, a.iterations) == (b.best.value, b.outcome, b.iterations)
        assert rest[-1].choice == whole[-1].choice


@pytest.mark.parametrize("outer", [Newton, Lbfgs, Inexact, Hoag], ids=lambda outer: outer.kind)
def test_a_start_on_a_plateau_is_left(outer):
    problem, box = regression(60, 6), {"lower": 1e-8, "upper": 1e12}
    near, far = (
        run(problem, plan(outer(max_iterations=500), penalty=Shared(initial=initial, **box)))[1]
        for initial in (1.0, 1e12)
    )
    assert far[0].gradient_norm < 1e-6
    assert far[-1].ended is near[-1].ended is Outcome.CONVERGED
    assert_allclose(far[-1].best.best.value, near[-1].best.best.value, rtol=1e-10)
    for i in [i for i, step in enumerate(far) if step.state is not None][:3]:
        _, rest = run(
            problem, plan(outer(max_iterations=500), penalty=Shared(initial=1e12, **box)), resume=far[i].state
        )
        assert rest[-1].best.best.value == far[-1].best.best.value
        assert rest[-1].evaluations == far[-1].evaluations


def test_a_start_at_a_minimum_costs_one_more_evaluation_and_stays():
    problem = regression(60, 6)
    _, steps = run(problem, plan(Newton(tolerance=1e-9), penalty=Shared()))
    minimum = steps[-1].best.best
    _, again = run(problem, plan(Newton(), penalty=Shared(initial=float(np.exp(minimum.rho[0] + 1e-7)))))
    assert 0 < again[0].gradient_norm < 1e-6
    assert again[-1].ended is Outcome.CONVERGED
    assert again[-1].evaluations == 2
    assert_allclose(again[-1].best.best.rho, minimum.rho, atol=1e-6)


def test_a_slope_that_levels_off_is_no_plateau():
    problem = regression(60, 6)
    noise = dataclasses.replace(problem, y=np.random.default_rng(5).normal(size=60))
    _, steps = run(noise, plan(Newton(), penalty=Shared(initial=1e8, lower=1e-8, upper=1e12)))
    at = steps[0]
    assert 0 < at.gradient_norm < 1e-6
    assert at.at.gradient[0] < 0  # J falls towards the upper bound, less and less
    assert steps[-1].ended is Outcome.CONVERGED
    assert steps[-1].evaluations == 2


def test_same_plan_same_numbers_and_another_seed_other_starts():
    problem = regression(40, 4)
    values = [
        [s.initial.value for s in run(problem, plan(Newton(starts=3), seed=seed))[1][-1].starts[:3]]
        for seed in (1, 1, 2)
    ]
    assert values[0] == values[1]
    assert values[0][1:] != values[2][1:]


def test_budgets_stop_it_and_keep_the_best_so_far():
    problem = regression(60, 6)
    _, free = run(problem, plan())
    _, few = run(problem, plan(max_evaluations=4))
    assert few[-1].ended is Outcome.MAX_EVALUATIONS
    assert few[-1].evaluations == 4
    assert few[-1].best.best.value == min(step.at.value for step in few)
    target = (free[0].at.value + free[-1].best.best.value) / 2
    _, early = run(problem, plan(target_value=target))
    assert early[-1].ended is Outcome.TARGET_VALUE
    assert early[-1].best.best.value <= target < early[0].at.value


def test_singular_everywhere_is_an_outcome():
    problem = regression(30, 2)
    twins = Problem(np.column_stack([problem.X[:, 0]] * 2), problem.y, ("a", "b"))
    _, steps = run(twins, plan(penalty=Shared(initial=1e-300, lower=1e-300, upper=1e-290)))
    assert steps[-1].ended is Outcome.SINGULAR


def test_overflow_is_an_outcome():
    problem = regression(30, 3)
    huge = Problem(problem.X * 1e160, problem.y, problem.features)
    with np.errstate(all="ignore"):
        _, steps = run(huge, plan())
    assert steps[-1].ended in {Outcome.NON_FINITE, Outcome.SINGULAR}


@pytest.mark.parametrize("selection", [KFold(), Holdout()])
def test_test_rows_touch_nothing_but_their_score(selection):
    problem = regression(80, 4)
    the_plan = plan(selection=selection, test_fraction=0.25)
    prepared, steps = run(problem, the_plan)
    rows = prepared.test_rows
    assert len(rows) == 20
    spoiled = problem.X.copy()
    spoiled[rows] = 1e6
    other = dataclasses.replace(problem, X=spoiled, y=np.where(np.isin(np.arange(80), rows), -9.0, problem.y))
    prepared_other, steps_other = run(other, the_plan)
    assert steps[-1].best.best.value == steps_other[-1].best.best.value
    first, second = (conclude(p, s[-1].best) for p, s in ((prepared, steps), (prepared_other, steps_other)))
    assert (first.model.coefficients == second.model.coefficients).all()
    assert_allclose(first.test_value, np.mean((problem.y[rows] - first.model.predict(problem.X[rows])) ** 2))
    assert first.test_value != second.test_value


def test_certificates_are_small_for_a_right_gradient_and_large_for_a_wrong_one():
    prepared, steps = run(regression(60, 6), plan(Newton(tolerance=1e-8)))
    best = steps[-1].best
    certificates = certify(prepared.objective, best, 0)
    assert certificates.outer_gradient_norm <= 1e-8
    assert certificates.inner_gradient_norm < 1e-12
    assert certificates.adjoint_residual < 1e-11
    assert certificates.finite_difference_error < 1e-9
    wrong = dataclasses.replace(
        best, best=dataclasses.replace(best.best, gradient=best.best.gradient + 1e-3 * best.best.value)
    )
    assert certify(prepared.objective, wrong, 0).finite_difference_error > 1e-5


def test_conclusion_tells_of_constant_and_duplicate_columns():
    problem = regression(40, 3)
    X = np.column_stack([problem.X, problem.X[:, 0], np.ones(40)])
    prepared, steps = run(Problem(X, problem.y, ("a", "b", "c", "twin", "one")), plan())
    messages = conclude(prepared, steps[-1].best).messages
    assert any("'one' is constant" in message for message in messages)
    assert any("'twin' equals 'a'" in message for message in messages)


def test_plans_that_do_not_fit_the_data_are_refused_with_the_place():
    problem = regression(10, 2)
    for bad, words in [
        (plan(selection=KFold(folds=11)), "11 folds need at least 11 rows"),
        (plan(selection=GivenFolds(fold_of_row=(0, 1))), "fold_of_row has 2 entries"),
        (plan(selection=GivenFolds(fold_of_row=(0, 2) * 5)), "fold 1 has no rows"),
        (plan(selection=GivenFolds(fold_of_row=(0,) * 10)), "one fold"),
        (plan(selection=Holdout(validation_rows=(10,))), "the last row is 9"),
        (plan(selection=Holdout(validation_rows=(1, 1))), "twice"),
        (plan(selection=Holdout(validation_rows=tuple(range(10)))), "no row is left"),
        (plan(selection=Holdout(fraction=0.01)), "holds out no row"),
        (plan(test_fraction=0.01), "holds out no row"),
    ]:
        with pytest.raises(ValueError, match=words):
            prepare(problem, bad)


@pytest.mark.parametrize("method", [HypergradientAuto(), CholeskyBackprop()])
def test_diabetes_reaches_the_best_known_value_confirmed_by_scikit_learn(method):
    X, y = load_diabetes(return_X_y=True)
    X, y = X - X.mean(axis=0), y - y.mean()
    folds = np.arange(len(y)) % 5
    training = Ridge(intercept=False, standardize=False, penalty=PerFeature(lower=1e-6, upper=1e6, spread=None))
    selection = GivenFolds(fold_of_row=tuple(int(f) for f in folds))
    the_plan = Plan(training, selection, method, Newton(starts=20, tolerance=1e-8, max_iterations=200))
    prepared, steps = run(Problem(X, y, tuple(load_diabetes().feature_names)), the_plan)
    best = steps[-1].best.best
    assert best.value <= 2911.2848 * (1 + 1e-7)  # lowest of 200 starts of two optimizers

    lam = prepared.objective.hyperparameters.natural(best.rho)
    squared = np.empty(len(y))
    for fold in range(5):
        train, val = folds != fold, folds == fold
        scale = np.sqrt(lam * train.sum())  # one penalty for each column: divide the column, then alpha = 1
        peer = SklearnRidge(alpha=1.0, fit_intercept=False, solver="svd").fit(X[train] / scale, y[train])
        squared[val] = (y[val] - peer.predict(X[val] / scale)) ** 2
    assert_allclose(best.value, squared.mean(), rtol=1e-10)
